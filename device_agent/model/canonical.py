"""Canonical JSON (RFC 8785) and the digests over it: the same on the device and in the cloud.

Not by a library: rfc8785 takes three times as long, and for a hostile document more than its judging may take in all
(0.15 s for 8 MiB of escapes). Tests hold this to it.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring as _string  # it escapes what RFC 8785 escapes, and in the same way
from typing import Any

from device_agent.model.errors import Refused
from device_agent.model.target import Json

_LARGEST_INTEGER = 2**53 - 1
_EXPONENTS = range(-6, 21)
"""Of numbers that ECMAScript writes without one."""


def canonical(value: Json) -> bytes:
    """The canonical bytes.

    Raises `Refused` (`malformed`) for what RFC 8785 cannot say: integers beyond 2^53, NaN, lone surrogates.
    """
    try:
        return _text(value).encode()
    except UnicodeEncodeError as error:
        raise _not_representable(str(error)) from error


def digest(value: Json) -> str:
    """`sha256:` and the hexadecimal hash of the canonical bytes."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def _text(value: Json) -> str:
    parts: list[str] = []
    _write(value, parts.append)
    return "".join(parts)


def _write(value: Any, put: Callable[[str], object]) -> None:
    if scalar := _SCALARS.get(type(value)):
        put(scalar(value))
    elif isinstance(value, dict):
        separator = "{"
        for key in _sorted(value):
            put(f"{separator}{_string(key)}:")
            _write(value[key], put)
            separator = ","
        put("}" if value else "{}")
    elif isinstance(value, list | tuple):
        separator = "["
        for item in value:
            put(separator)
            _write(item, put)
            separator = ","
        put("]" if value else "[]")
    else:
        raise TypeError(f"no JSON: {type(value).__name__}")


def _sorted(members: Mapping[str, Json]) -> list[str]:
    """By UTF-16 units: another order than by characters, once there are some beyond U+FFFF."""
    keys = sorted(members)
    if not "".join(keys).isascii():
        keys.sort(key=lambda key: key.encode("utf-16-be"))
    return keys


def _integer(value: int) -> str:
    if abs(value) > _LARGEST_INTEGER:
        raise _not_representable("an integer beyond 2^53 - 1")
    return str(value)


def _fraction(value: float) -> str:
    """As ECMAScript writes it: Python has the same digits, and an exponent sooner."""
    if not math.isfinite(value):
        raise _not_representable(f"the number {value}")
    if value == 0:
        return "0"  # and -0 too
    mantissa, with_exponent, written = repr(value).partition("e")
    if not with_exponent:
        return mantissa.removesuffix(".0")
    exponent = int(written)
    if exponent not in _EXPONENTS:
        return f"{mantissa}e{exponent:+}"
    sign = "-" if value < 0 else ""
    digits = mantissa.removeprefix("-").replace(".", "")
    return sign + (
        "0." + digits.rjust(len(digits) - exponent - 1, "0") if exponent < 0 else digits.ljust(exponent + 1, "0")
    )


def _boolean(value: bool) -> str:  # noqa: FBT001 - it is the value
    return "true" if value else "false"


def _null(_: None) -> str:
    return "null"


_SCALARS: Mapping[type, Callable[[Any], str]] = {
    str: _string,
    int: _integer,
    float: _fraction,
    bool: _boolean,
    type(None): _null,
}


def _not_representable(what: str) -> Refused:
    return Refused("malformed", f"not representable in canonical JSON: {what}")
