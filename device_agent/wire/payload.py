"""Bytes that arrive → JSON, strictly and in bounded time and memory.

Whatever the bytes are, the answer is a value or `Refused` (`too_large`, `malformed`), never another exception. JSON
here is RFC 8259 less what two parsers read differently: duplicate keys, NaN and infinities, lone surrogates, integers
that a double cannot hold (RFC 7493), and nesting deeper than 64.
"""

import io
import json
import math
import re
import zlib
from dataclasses import dataclass

import zstandard

from device_agent.model.errors import Refused
from device_agent.model.target import Json

JSON = "application/json"
GZIP = "application/json+gzip"
ZSTD = "application/json+zstd"

DEPTH = 64
LARGEST_INTEGER = 2**53 - 1

# A list costs 3 bytes as JSON and 80 in memory, and each value its time. This bounds what a payload within the size
# limits can grow to; the largest targets that make sense have some thousands.
_VALUES = 50_000
_MARKS = (b",", b"[", b"{", b":")
# Up to and with the next mark that is not within a string. Nothing in it can be matched in two ways.
_TO_MARK = re.compile(rb'(?:[^",\[{:]++|"(?:[^"\\]++|\\.)*+")*+[,\[{:]', re.DOTALL)
# In memory a text takes as many bytes for each character as its widest one needs: so one of these at the end of a large
# document could make it several times as large, and its text again.
_WIDE = (
    (3 * 1024 * 1024, re.compile(rb"[\xf0-\xff]|\\u[dD][89abAB]"), "beyond U+FFFF"),
    (6 * 1024 * 1024, re.compile(rb"[\xc4-\xff]|\\u(?!00)"), "beyond U+00FF"),
)
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
    """The JSON value of a whole document. Raises `Refused`: `malformed`, or `too_large` for far too many values."""
    # The first count is fast, and takes those within strings for values too.
    if sum(document.count(mark) for mark in _MARKS) > _VALUES and _has_too_many(document):
        raise Refused("too_large", f"more than {_VALUES} values")
    for limit, wide, what in _WIDE:
        if len(document) > limit and wide.search(document):
            raise Refused("too_large", f"{len(document)} bytes with characters {what}: the limit is {limit} with them")
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
    # Only an escape can bring a lone surrogate through the UTF-8 decoder.
    _walk(value, surrogates=b"\\u" in document)
    return value


def _has_too_many(document: bytes) -> bool:
    end = 0
    for _ in range(_VALUES + 1):
        found = _TO_MARK.match(document, end)
        if found is None:
            return False
        end = found.end()
    return True


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


def _walk(root: Json, *, surrogates: bool) -> None:
    """Check the depth, and the strings where there may be surrogates, level by level and so without recursion."""
    level: list[Json] = [root]
    for depth in range(DEPTH + 1):
        below: list[Json] = []
        for value in level:
            if isinstance(value, dict | list):
                if depth == DEPTH:
                    raise _too_deep()
                below.extend(value.values() if isinstance(value, dict) else value)
            if surrogates:
                for text in (value,) if isinstance(value, str) else value if isinstance(value, dict) else ():
                    _check_text(text)
        level = below


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused("malformed", "not Unicode: a lone surrogate") from error
