"""Typed reading of one JSON object of which only some keys are of interest."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from device_agent.model.errors import Problem, Refused
from device_agent.model.target import Json


@dataclass(frozen=True, slots=True)
class Fields:
    """An object and where it is. Wrong values raise `Refused` (`malformed`) with the place; null counts as absent."""

    value: dict[str, Json]
    pointer: str = ""

    def wrong(self, key: str, message: str) -> Refused:
        place = f"{self.pointer}/{key}"
        return Refused("malformed", f"{place} {message}", (Problem(place, message),))

    def maybe_text(self, key: str) -> str | None:
        value = self.value.get(key)
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, "must be text")
        return value

    def text(self, key: str) -> str:
        value = self.maybe_text(key)
        if value is None:
            raise self.wrong(key, "is missing")
        return value

    def maybe_whole(self, key: str) -> int | None:
        value = self.value.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise self.wrong(key, "must be a whole number")
        return value

    def whole(self, key: str) -> int:
        value = self.maybe_whole(key)
        if value is None:
            raise self.wrong(key, "is missing")
        return value

    def flag(self, key: str) -> bool:
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def maybe_time(self, key: str) -> datetime | None:
        text = self.maybe_text(key)
        if text is None:
            return None
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            at = None
        if at is None or at.tzinfo is None:
            raise self.wrong(key, "must be a time with its zone")
        return at

    def time(self, key: str) -> datetime:
        at = self.maybe_time(key)
        if at is None:
            raise self.wrong(key, "is missing")
        return at

    def inner(self, key: str) -> "Fields | None":
        value = self.value.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "must be an object")
        return None if value is None else Fields(value, f"{self.pointer}/{key}")

    def inners(self, key: str) -> Iterator[tuple[str, "Fields"]]:
        """The objects of an object, by name."""
        outer = self.inner(key) or Fields({})
        for name in outer.value:
            inner = outer.inner(name)
            if inner is None:
                raise outer.wrong(name, "must be an object")
            yield name, inner

    def items(self, key: str) -> Iterator["Fields"]:
        """The objects of a list."""
        value = self.value.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.wrong(key, "must be a list of objects")
        for index, item in enumerate(value):
            yield Fields(item, f"{self.pointer}/{key}/{index}")

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.value.get(key) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "must be a list of texts")
        return tuple(value)
