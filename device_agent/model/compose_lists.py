"""The forms that many of Compose's keys share: lists of different strings, and maps that may be written as lists."""

from collections.abc import Callable, Collection
from typing import Any

from device_agent.model import compose_units as units
from device_agent.model.compose_units import NotValid, kind
from device_agent.model.observed import LABEL, LABEL_UPDATE_LOCK
from device_agent.model.place import Place, Reader, by, list_of, map_of
from device_agent.model.target import Json

WHEN_PUBLISHING = "is resolved when publishing: cloud-sim publish does it"
NO_USE = "has no use on a device: ignored"


def unique(names: Collection[str]) -> None:
    """Compose refuses a list that says the same twice."""
    if len(set(names)) != len(names):
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                raise NotValid(f"`{name}` is in the list twice", index)
            seen.add(name)


def strings(place: Place) -> tuple[str, ...]:
    """A list of different strings."""
    values: tuple[str, ...] = list_of(units.text)(place)
    unique(values)
    return values


def string_or_list(parse: Callable[[Json], Any]) -> Reader:
    return lambda place: (parse(place.value),) if isinstance(place.value, str) else list_of(parse)(place)


def pairs(null: str | None, reserved: str | None = None, free: str | None = None) -> Reader:
    """Compose's list-or-map of strings.

    `null` is what a name without a value gets (None: it must have one), `reserved` a prefix that no name may have but
    `free`.
    """

    def pair(key: str, value: Json) -> str:
        if not units.string(key) or "=" in key:
            raise NotValid("a name is not empty and has no `=` in it")
        if reserved and key.startswith(reserved) and key != free:
            raise NotValid(f"names that start with `{reserved}` are the agent's own")
        if value is not None:
            return units.scalar_text(value)
        if null is None:
            raise NotValid(f"has no value: a variable of the publisher's environment {WHEN_PUBLISHING}")
        return null

    def reader(place: Place) -> dict[str, str]:
        found: dict[str, str] = {}
        for where, key, value in _entries(place):
            try:
                found[key] = pair(key, value)
            except NotValid as error:
                place.note(error, where)
        return found

    return reader


def _entries(place: Place) -> list[tuple[str | int, str, Json]]:
    """Where each entry stands, its key, and its value (None where there is no `=`)."""
    if isinstance(place.value, dict):
        return [(key, key, value) for key, value in place.value.items()]
    if not isinstance(place.value, list):
        raise NotValid(f"expected an object or a list, not {kind(place.value)}")
    entries: list[tuple[str | int, str, Json]] = []
    for index, entry in enumerate(place.value):
        if isinstance(entry, str):
            key, separator, value = entry.partition("=")
            entries.append((index, key, value if separator else None))
        else:
            place.invalid(f"expected a string NAME=VALUE, not {kind(entry)}", index)
    unique([entry for entry in place.value if isinstance(entry, str)])
    return entries


def options(*scalars: type) -> Reader:
    """A map of options for a driver, their values as strings."""

    def parse(value: Json) -> str:
        if type(value) not in scalars:
            quote = ": put it in quotes" if isinstance(value, bool) else ""
            raise NotValid(f"expected a string or a number, not {kind(value)}{quote}")
        return "" if value is None else units.scalar_text(value)

    return map_of(by(parse))


labels = pairs(null="", reserved=LABEL)
"""Labels. Those of the agent itself are not a target's to set: by them it tells what is its own."""
container_labels = pairs(null="", reserved=LABEL, free=LABEL_UPDATE_LOCK)
