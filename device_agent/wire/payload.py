"""Bytes that arrive → JSON, strictly and in bounded time and memory.

Whatever the bytes are, the answer is a value or `Refused` (`too_large`, `malformed`), never another exception. JSON
here is RFC 8259 less what two parsers read differently: duplicate keys, NaN and infinities, lone surrogates, integers
that a double cannot hold (RFC 7493), and nesting deeper than 64.
"""

import io
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

from device_agent.model.errors import Refused
from device_agent.model.target import Json

JSON = "application/json"
GZIP = "application/json+gzip"
ZSTD = "application/json+zstd"

DEPTH = 64
LARGEST_INTEGER = 2**53 - 1
_CONTAINERS = frozenset((dict, list))

# A list costs 3 bytes as JSON and 80 in memory, and each value its time. This bounds what a payload within the size
# limits can grow to; the largest targets that make sense have some thousands.
_VALUES = 50_000
_MARKS = b",[{:"
# In memory a text takes as many bytes for each character as its widest one needs: so one of these at the end of a large
# document could make it several times as large, and its text again.
_WITH_BEYOND_FFFF, _WITH_BEYOND_FF = 3 * 1024 * 1024, 6 * 1024 * 1024
# Each escape takes a parser many times what a plain character does. As many as 6 MiB of nothing else have.
_ESCAPES = 2**20
_CHUNK = 64 * 1024
# What a zstd decoder must support (RFC 8878, 3.1.1.1.2). A frame can ask for more memory than it will ever fill.
_WINDOW = 8 * 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Limits:
    """In bytes: a payload as it travels, and inflated."""

    payload: int = 1024 * 1024
    inflated: int = 8 * 1024 * 1024


DEFAULT_LIMITS = Limits()


def read(payload: bytes, content_type: str | None = None, limits: Limits = DEFAULT_LIMITS) -> Json:
    """The JSON value of a payload as it arrived. Raises `Refused`: `too_large` or `malformed`."""
    return parse(inflate(payload, content_type, limits))


def inflate(payload: bytes, content_type: str | None = None, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The document in `payload`: gzip or zstd by its content type, or by its first bytes (JSON starts with neither).

    Raises `Refused`: `too_large`, found while inflating, or `malformed`.
    """
    if len(payload) > limits.payload:
        raise Refused("too_large", f"{len(payload)} bytes: the limit is {limits.payload}")
    named = (content_type or "").partition(";")[0].strip().lower()
    if named == GZIP or payload.startswith(_GZIP_MAGIC):
        return _gunzip(payload, limits.inflated)
    if named == ZSTD or payload.startswith(_ZSTD_MAGIC):
        return _unzstd(payload, limits.inflated)
    if len(payload) > limits.inflated:
        raise _inflated_too_large(limits.inflated)
    return payload


def _inflated_too_large(limit: int) -> Refused:
    return Refused("too_large", f"more than {limit} bytes when inflated")


def _gunzip(payload: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        document = stream.decompress(payload, limit + 1)
    except zlib.error as error:
        raise Refused("malformed", f"not gzip: {error}") from error
    if len(document) > limit:
        raise _inflated_too_large(limit)
    if not stream.eof:
        raise Refused("malformed", "not gzip: it ends too early")
    if stream.unused_data:
        raise Refused("malformed", "bytes after the end of the gzip data")
    return document


def _unzstd(payload: bytes, limit: int) -> bytes:
    import zstandard  # noqa: PLC0415 - most clouds never compress that way

    try:
        if zstandard.get_frame_parameters(payload).window_size > max(limit, _WINDOW):
            raise _inflated_too_large(limit)
        # The reader is what stops at a size; only the object after it tells a cut frame and trailing bytes.
        with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(payload)) as reader:
            size = 0
            while chunk := reader.read(_CHUNK):
                size += len(chunk)
                if size > limit:
                    raise _inflated_too_large(limit)
        stream = zstandard.ZstdDecompressor().decompressobj()
        document = stream.decompress(payload)
    except zstandard.ZstdError as error:
        raise Refused("malformed", f"not zstd: {error}") from error
    if not stream.eof:
        raise Refused("malformed", "not zstd: it ends too early")
    if stream.unused_data:
        raise Refused("malformed", "bytes after the end of the zstd data")
    return document


def parse(document: bytes) -> Json:
    """The JSON value of a whole document. Raises `Refused`: `malformed`, or `too_large` for what costs too much."""
    if document.count(b"\\") > _ESCAPES:
        raise Refused("too_large", f"more than {_ESCAPES} backslashes")
    # The first count is fast, and takes those within strings for values too.
    if _count(document) > _VALUES and _has_too_many(document):
        raise Refused("too_large", f"more than {_VALUES} values")
    _check_width(document)
    try:
        value = json.loads(
            document.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except UnicodeDecodeError as error:
        raise Refused("malformed", f"not UTF-8 at byte {error.start}") from error
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:
        raise Refused("malformed", f"not JSON: {error}") from error
    _check_depth(value)
    # Only an escape can bring a lone surrogate through the UTF-8 decoder.
    if b"\\ud" in document or b"\\uD" in document:
        _check_surrogates(value)
    return value


def _count(document: bytes) -> int:
    """How many marks there are; as fast where there are very many."""
    return len(document) - len(document.translate(None, _MARKS))


def _has_too_many(document: bytes) -> bool:
    """Counted where no string is: what is between quotes is every other piece, once the escaped ones are away."""
    pieces = document.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', 2 * _VALUES + 2)
    # So many strings have more than so many marks between them, or are no JSON.
    return len(pieces) > 2 * _VALUES + 2 or _count(b"".join(pieces[::2])) > _VALUES


def _check_width(document: bytes) -> None:
    size = len(document)
    if size > _WITH_BEYOND_FF and _goes_beyond_ff(document):
        limit, what = _WITH_BEYOND_FF, "U+00FF"
    elif _WITH_BEYOND_FF >= size > _WITH_BEYOND_FFFF and _goes_beyond_ffff(document):
        limit, what = _WITH_BEYOND_FFFF, "U+FFFF"
    else:
        return
    raise Refused("too_large", f"{size} bytes with characters beyond {what}: the limit is {limit} with them")


# Not one regular expression each: over 8 MiB that takes 70 ms and more.


def _goes_beyond_ff(document: bytes) -> bool:
    if _has_byte_from(0xC4, document):
        return True
    escapes = document.count(b"\\u")
    return escapes > 0 and escapes != document.count(b"\\u00")


def _goes_beyond_ffff(document: bytes) -> bool:
    if _has_byte_from(0xF0, document):
        return True
    if b"\\ud" not in document and b"\\uD" not in document:
        return False
    lower = document.lower()
    return any(high in lower for high in (b"\\ud8", b"\\ud9", b"\\uda", b"\\udb"))


def _has_byte_from(lowest: int, document: bytes) -> bool:
    return not document.isascii() and bool(document.translate(None, bytes(range(lowest))))


def _too_deep() -> Refused:
    return Refused("malformed", f"nested deeper than {DEPTH}")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Refused("malformed", f"not JSON: the key {key[:80]!a} is there twice")
            seen.add(key)
    return value


def _constant(name: str) -> Json:
    raise Refused("malformed", f"not JSON: {name}")


def _integer(digits: str) -> int:
    # int() is quadratic in the number of digits, so the length comes first.
    if len(digits) > len(str(-LARGEST_INTEGER)) or abs(value := int(digits)) > LARGEST_INTEGER:
        raise Refused("malformed", f"the integer {digits[:24]} is beyond 2^53 - 1")
    return value


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise Refused("malformed", f"the number {digits[:24]} is too large")
    return value


def _check_depth(root: Json) -> None:
    """Level by level, and so without recursion."""
    level: list[Any] = [root] if type(root) in _CONTAINERS else []
    for _ in range(DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer)
            if type(inner) in _CONTAINERS
        ]
    if level:
        raise _too_deep()


def _check_surrogates(value: Json) -> None:
    try:
        json.dumps(value, ensure_ascii=False, check_circular=False).encode()
    except UnicodeEncodeError as error:
        raise Refused("malformed", "not Unicode: a lone surrogate") from error
