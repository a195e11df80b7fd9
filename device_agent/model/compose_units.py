"""JSON scalars and Compose's units: one value of a document in, its canonical value out.

Pure functions. Each raises `NotValid` with a sentence for the operator (`NotSupported` where Compose would take the
value and this agent does not). Rules and units are the Compose Specification's. A string may stand for a number or a
boolean only where the specification's schema lets it.

A `$` has no meaning here: variables were resolved when the target was published, so `$HOME` and `$$` are passed on
as they are.
"""

import re
from collections.abc import Callable
from decimal import Decimal

from device_agent.model.target import Json

LARGEST = 2**53 - 1
"""The largest integer that canonical JSON (RFC 8785) can say; as nanoseconds, 104 days."""


class NotValid(ValueError):  # noqa: N818 - its message says what is wrong
    """A value that is wrong; `more` leads from the value that was given to the part that is wrong."""

    def __init__(self, message: str, *more: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.more = more


class NotSupported(NotValid):
    """A value that Compose knows and this version of the agent does not."""


def kind(value: Json) -> str:
    """The JSON type in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


# ------------------------------------------------------------------------------------------------- scalars


def string(value: Json) -> str:
    """A string, perhaps empty."""
    if not isinstance(value, str):
        quote = ": put it in quotes" if isinstance(value, bool | int | float) else ""
        raise NotValid(f"expected a string, not {kind(value)}{quote}")
    if "\0" in value:
        raise NotValid("a NUL character cannot be passed to a process")
    if not value.isascii() and _has_surrogate(value):
        raise NotValid("half a surrogate pair is not a character")
    return value


def _has_surrogate(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def text(value: Json) -> str:
    """A string that is not empty."""
    if string(value) == "":
        raise NotValid("must not be empty")
    return str(value)


_FIRST_WITH_EXPONENT = 1e21
"""Compose prints numbers as Go does: without an exponent below this, and for the rest like Python."""


def scalar_text(value: Json) -> str:
    """The string that Compose makes of a scalar: 1 → `1`, 1.0 → `1`, 1.5 → `1.5`, true → `true`."""
    match value:
        case str():
            return string(value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            if abs(value) < _FIRST_WITH_EXPONENT:
                plain = format(Decimal(repr(value)), "f") if "e+" in repr(value) else repr(value)
                return plain.removesuffix(".0")
            return repr(value)
        case _:
            raise NotValid(f"expected a string, a number or a boolean, not {kind(value)}")


_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y"), True),
    **dict.fromkeys(("false", "no", "off", "n"), False),
}


def boolean(value: Json) -> bool:
    """A boolean, or a string that YAML 1.1 reads as one: Compose casts those after it has put variables in."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise NotValid(f"expected true or false, not {kind(value)}")


def strict_boolean(value: Json) -> bool:
    if not isinstance(value, bool):
        raise NotValid(f"expected true or false, not {kind(value)}")
    return value


def integer(value: Json, lowest: int = 0, highest: int = LARGEST) -> int:
    """A whole number, or a string of digits."""
    number: int | None = None
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,19}", value):
        number = int(value)
    elif isinstance(value, float) and value.is_integer():
        number = int(value)  # 80.0 is the same number as 80 in canonical JSON
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        raise NotValid("expected a whole number" + ("" if isinstance(value, str | float) else f", not {kind(value)}"))
    if not lowest <= number <= highest:
        raise NotValid(f"must be from {lowest} to {highest}")
    return number


def number(value: Json) -> int:
    """A whole number that may not be written as a string; either sign."""
    if isinstance(value, str):
        raise NotValid("expected a number, not a string")
    return integer(value, lowest=-LARGEST)


def one_of(*words: str) -> Callable[[Json], str]:
    """Exactly one of these words."""

    def parse(value: Json) -> str:
        if value not in words:
            raise NotValid(f"must be one of: {', '.join(words)}")
        return str(value)

    return parse


# --------------------------------------------------------------------------------------------------- units

_BYTES = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_LONGEST_NUMBER = 64


def size(value: Json) -> int:
    """Bytes, from a number or a string such as `64m`, `1.5g`, `2 GiB`. Prefixes are binary, a fraction is cut off."""
    if isinstance(value, str):
        match = _BYTES.fullmatch(value) if len(value) <= _LONGEST_NUMBER else None
        if match is None:
            raise NotValid("expected a size in bytes, such as 67108864, 64m or 1.5g")
        exponent = " kmgtp".index(match[2].lower()) if match[2] else 0
        exact = Decimal(match[1]) * 1024**exponent
        if exact > LARGEST:
            raise NotValid(f"must be at most {LARGEST} bytes")
        return int(exact)
    return integer(value)


def limit(value: Json) -> int | None:
    """Like `size`; 0 is the engine's word for no limit of its own."""
    return size(value) or None


_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, the micro sign
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
    "w": 7 * 24 * 3600 * 10**9,
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)")


def duration(value: Json) -> int:
    """Nanoseconds, from a string such as `1m30s`, `1h5m30s20ms`, `1.5s` or `0`; any other bare number has no unit."""
    wrong = NotValid("expected a duration with units, such as 30s, 1m30s or 1h5m30s20ms")
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NUMBER:
        raise wrong
    if value == "0":
        return 0
    total, end = Decimal(0), 0
    while end < len(value):
        part = _DURATION_PART.match(value, end)
        if part is None:
            raise wrong
        total += Decimal(part[1]) * _NANOSECONDS[part[2]]
        end = part.end()
    if total > LARGEST:
        raise NotValid("must be at most 104 days")
    return int(total)


def health_duration(value: Json) -> int | None:
    """A duration of a healthcheck: 0 is the engine's word for the image's, less than a millisecond it refuses."""
    nanoseconds = duration(value)
    if 0 < nanoseconds < _NANOSECONDS["ms"]:
        raise NotValid("must be at least 1ms")
    return nanoseconds or None


_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", re.ASCII)


def cpus(value: Json) -> int | None:
    """Billionths of a CPU, from a number or a string such as `0.5`; 0 is no limit."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NotValid(f"expected a number of CPUs, not {kind(value)}")
    written = value if isinstance(value, str) else format(Decimal(repr(value)), "f")
    if len(written) > _LONGEST_NUMBER or not _DECIMAL.fullmatch(written):
        raise NotValid("expected a number of CPUs, such as 0.5 or 2")
    billionths = int(Decimal(written) * 10**9)
    if billionths > LARGEST:
        raise NotValid("must be at most nine million CPUs")
    return billionths or None


def file_mode(value: Json) -> int:
    """Permission bits: a string is octal (`"1777"`), a number is taken as it is (octal 1777 is 1023)."""
    highest = 0o7777
    if isinstance(value, str):
        if not re.fullmatch(r"(?:0o?)?[0-7]{1,4}", value):
            raise NotValid('expected permission bits in octal, such as "1777"')
        return int(value.removeprefix("0o"), 8)
    return integer(value, highest=highest)
