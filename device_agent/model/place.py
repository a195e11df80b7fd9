"""Reading a document: a value, where it stands, and what is noted about it.

Every wrong place is noted under its own JSON pointer (RFC 6901) and reading goes on, so that an operator sees all of
them at once. A reader that cannot give a value raises: `NotValid` is noted by whoever called it, under the place that
was read; `Noted` says that it is in the notes already.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from pydantic import ValidationError

from device_agent.model.compose_units import NotSupported, NotValid, kind, string
from device_agent.model.errors import MOST_PROBLEMS, Problem
from device_agent.model.target import Json

VARIABLE_HINT = "variables are resolved when publishing: cloud-sim publish does it"


class Enough(Exception):  # noqa: N818 - not an error of its own
    """So much is wrong that reading on would tell nobody more."""


class Noted(Exception):  # noqa: N818 - not an error of its own
    """No value can be given, and the reasons are in the notes."""


@dataclass(slots=True)
class Notes:
    """What was found so far."""

    unsupported: list[Problem] = field(default_factory=list)
    invalid: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    ports_left: int = 20_000
    """A few bytes can ask for very many ports: together they may not be more than this."""
    containers_left: int = 4_096
    """The same of containers by `scale`, beyond the first of each service."""
    mounts_left: int = 65_536
    """The same of mounts by `volumes_from`."""

    def problems(self) -> int:
        return len(self.unsupported) + len(self.invalid)

    def add(self, problems: list[Problem], problem: Problem) -> None:
        """To `unsupported` or `invalid`. Raises `Enough`."""
        problems.append(problem)
        if self.problems() >= MOST_PROBLEMS:
            raise Enough


@dataclass(frozen=True, slots=True)
class Names:
    """What an app declares: the names that its services may use."""

    services: Collection[str] = ()
    networks: Collection[str] = ()
    volumes: Collection[str] = ()
    contents: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    """`configs` and `secrets`: name → content."""


@dataclass(frozen=True, slots=True)
class Place:
    """A value of the document, and the way to it."""

    value: Json
    notes: Notes
    names: Names = Names()
    key: str | int = ""
    parent: "Place | None" = None

    def at(self, key: str | int, names: Names | None = None) -> "Place":
        """The member or item of this name; it must be there."""
        return Place(self.value[key], self.notes, names or self.names, key, self)

    def pointer(self, *more: str | int) -> str:
        keys: list[str | int] = list(reversed(more))
        place: Place | None = self
        while place is not None:
            keys.append(place.key)
            place = place.parent
        return "/" + "/".join(str(key).replace("~", "~0").replace("/", "~1") for key in reversed(keys))

    def invalid(self, message: str, *more: str | int) -> None:
        self.notes.add(self.notes.invalid, Problem(self.pointer(*more), message))

    def unsupported(self, message: str, *more: str | int) -> None:
        self.notes.add(self.notes.unsupported, Problem(self.pointer(*more), message))

    def warn(self, message: str, *more: str | int) -> None:
        if len(self.notes.warnings) < MOST_PROBLEMS:
            self.notes.warnings.append(Problem(self.pointer(*more), message))

    def note(self, error: NotValid, *more: str | int) -> None:
        where = (*more, *error.more)
        if isinstance(error, NotSupported):
            self.unsupported(error.message, *where)
        elif not where and isinstance(self.value, str) and "${" in self.value:
            self.invalid(f"{error.message}; {VARIABLE_HINT}")
        else:
            self.invalid(error.message, *where)

    def object(self) -> dict[str, Json]:
        if not isinstance(self.value, dict):
            raise NotValid(f"expected an object, not {kind(self.value)}")
        return self.value

    def list(self) -> list[Json]:
        if not isinstance(self.value, list):
            raise NotValid(f"expected a list, not {kind(self.value)}")
        return self.value

    def members(self) -> Iterator["Place"]:
        return (self.at(key) for key in self.object())

    def items(self) -> Iterator["Place"]:
        return (self.at(index) for index in range(len(self.list())))


Reader: TypeAlias = Callable[[Place], Any]
"""Gives the canonical value of a place, or raises `NotValid` or `Noted`."""


def read(place: Place, reader: Reader) -> Iterator[Any]:
    """The one value that the reader gives, or none; what it raises is noted."""
    try:
        yield reader(place)
    except NotValid as error:
        place.note(error)
    except ValidationError as error:
        # A model refuses what its reader let through: a fault of ours, for which the document pays, not the agent.
        place.invalid(error.errors()[0]["msg"])
    except Noted:
        pass


def by(parse: Callable[[Json], Any]) -> Reader:
    """Reads the value alone."""
    return lambda place: parse(place.value)


def read_fields(
    place: Place,
    readers: Mapping[str, Reader],
    refused: Mapping[str, str] | None = None,
    ignored: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An object's fields by their readers, without the wrong ones. Keys with `x-` are Compose's extensions."""
    fields: dict[str, Any] = {}
    for key in place.object():
        if reader := readers.get(key):
            for value in read(place.at(key), reader):
                fields[key] = value
        elif key.startswith("x-"):
            place.warn("ignored: not an extension that this version of device-agent knows", key)
        elif ignored and key in ignored:
            place.warn(ignored[key], key)
        elif refused and key in refused:
            place.unsupported(refused[key], key)
        else:
            place.unsupported("not a key that Compose has here", key)
    return fields


def read_object(
    place: Place,
    readers: Mapping[str, Reader],
    required: Collection[str] = (),
    refused: Mapping[str, str] | None = None,
    ignored: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Like `read_fields`, whole or not at all: raises `Noted` when something of it is wrong or missing."""
    before = place.notes.problems()
    fields = read_fields(place, readers, refused, ignored)
    for key in required:
        if key not in place.value:
            place.invalid("is required", key)
    if place.notes.problems() > before:
        raise Noted
    return fields


def list_of(parse: Callable[[Json], Any]) -> Reader:
    """A list, each item parsed alone."""

    def reader(place: Place) -> tuple[Any, ...]:
        values: list[Any] = []
        for index, item in enumerate(place.list()):
            try:
                values.append(parse(item))
            except ValueError:  # its place is made for what is wrong only: a list can be long
                values.extend(read(place.at(index), by(parse)))
        return tuple(values)

    return reader


def map_of(reader: Reader) -> Reader:
    """An object, each member read alone."""

    def read_map(place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for member in place.members():
            try:
                key = string(member.key)
            except NotValid as error:
                member.note(error)
                continue
            for value in read(member, reader):
                values[key] = value
        return values

    return read_map
