import gzip
import json
import time
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.model.errors import Refused
from device_agent.wire.payload import DEPTH, GZIP, JSON, LARGEST_INTEGER, ZSTD, Limits, inflate, parse, read

SMALL = Limits(payload=1000, inflated=5000)


def code(payload: bytes, content_type: str | None = None, limits: Limits = SMALL) -> str:
    with pytest.raises(Refused) as refused:
        read(payload, content_type, limits)
    return refused.value.code


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize("content_type", [None, JSON, "application/json; charset=utf-8", "text/plain", GZIP, ZSTD])
def test_compression_is_named_or_seen(content_type: str | None) -> None:
    document = b'{"a": 1}'
    if content_type not in (GZIP, ZSTD):
        assert read(document, content_type) == {"a": 1}
    if content_type != ZSTD:
        assert read(gzip.compress(document), content_type) == {"a": 1}
    if content_type != GZIP:
        assert read(zstandard.compress(document), content_type) == {"a": 1}


def test_what_is_named_and_is_not_is_malformed() -> None:
    assert code(b"{}", GZIP) == "malformed"
    assert code(b"{}", ZSTD) == "malformed"
    assert code(zstandard.compress(b"{}"), GZIP) == "malformed"


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_data_is_whole_and_alone(compress: object) -> None:
    packed = compress(b'{"a": 1}')  # type: ignore[operator]
    assert code(packed[:-1]) == "malformed"
    assert code(packed[:5]) == "malformed"
    assert code(packed + b"x") == "malformed"
    assert code(packed + packed) == "malformed"


def test_an_empty_payload_is_malformed() -> None:
    assert code(b"") == "malformed"


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_size_limits_to_the_byte(compress: object) -> None:
    assert len(inflate(b" " * 1000, None, SMALL)) == 1000
    assert code(b" " * 1001) == "too_large"
    assert len(inflate(compress(b" " * 5000), None, SMALL)) == 5000  # type: ignore[operator]
    assert code(compress(b" " * 5001)) == "too_large"  # type: ignore[operator]
    assert code(b" " * 900, None, Limits(payload=1000, inflated=800)) == "too_large"


def bomb_gzip(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    block = bytes(1024 * 1024)
    return b"".join([*(packer.compress(block) for _ in range(size // len(block))), packer.flush()])


def bomb_zstd(size: int) -> bytes:
    packer = zstandard.ZstdCompressor(level=19).compressobj()
    block = bytes(1024 * 1024)
    return b"".join([*(packer.compress(block) for _ in range(size // len(block))), packer.flush()])


@pytest.mark.parametrize("make", [bomb_gzip, bomb_zstd])
def test_a_bomb_is_given_up_while_inflating(make: object) -> None:
    bomb = make(512 * 1024 * 1024)  # type: ignore[operator]
    assert len(bomb) < 1024 * 1024
    tracemalloc.start()
    try:
        assert code(bomb, limits=Limits()) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 40 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_zstd_frame_that_wants_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    assert code(packer.compress(b"{}") + packer.flush()) == "too_large"


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"nul",
        b"{}{}",
        b"{} x",
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'{"a": 1, "a": 1}',
        b'{"x": [{"a": 1, "b": {}, "a": 2}]}',
        b'{"a": 1, "\\u0061": 1}',
        b"NaN",
        b"[Infinity]",
        b"[-Infinity]",
        b"1e999",
        b"[-1e999]",
        b"%d" % (LARGEST_INTEGER + 1),
        b"%d" % (-LARGEST_INTEGER - 1),
        b"9" * 900,
        b"-" + b"9" * 5000,
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'{"\\ud800": 1}',
        b'["\\ud83d\\ude00", ["\\ud83d"]]',
        b'"tab\there"',
        b"'single'",
        b"{a: 1}",
        b"[1,]",
        b"01",
        b"/* */ {}",
        nested(DEPTH + 1),
        nested(5_000),
        nested(20_000),
        b'{"a":' * 20_000,
        b"[" * 40_000,
    ],
)
def test_what_is_not_json(document: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse(document)
    assert refused.value.code == "malformed"
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("document", "value"),
    [
        (b"{}", {}),
        (b" [1, -2, 3.5e3, true, null] \n", [1, -2, 3500.0, True, None]),
        (b"%d" % LARGEST_INTEGER, LARGEST_INTEGER),
        (b"%d" % -LARGEST_INTEGER, -LARGEST_INTEGER),
        (b'"\\ud83d\\ude00 \xf0\x9f\x98\x80"', "\U0001f600 \U0001f600"),
        (b'{"a": {"a": {}}, "b": {"a": {}}}', {"a": {"a": {}}, "b": {"a": {}}}),
    ],
)
def test_what_is_json(document: bytes, value: object) -> None:
    assert parse(document) == value


def test_nesting_up_to_the_limit() -> None:
    value = parse(nested(DEPTH))
    for _ in range(DEPTH - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize(
    "document",
    [
        b"[" + b",".join([b"[]"] * 24_000) + b"]",
        b"{" + b",".join(b'"%d":{}' % number for number in range(16_000)) + b"}",
        b'"' + b"\\u0041" * 1_000_000 + b'"',
        b"[" + b",".join([b"9" * 15] * 40_000) + b"]",
    ],
)
def test_large_documents_take_bounded_time(document: bytes) -> None:
    started = time.monotonic()
    parse(document)
    assert time.monotonic() - started < 10


def test_too_many_escapes_are_too_large() -> None:
    most = 2**20
    assert parse(b'"' + b"\\n" * most + b'"') == "\n" * most
    with pytest.raises(Refused) as refused:
        parse(b'"' + b"\\n" * (most + 1) + b'"')
    assert refused.value.code == "too_large"


def test_too_many_values_are_too_large() -> None:
    with pytest.raises(Refused) as refused:
        parse(b"[" + b"[]," * 1_000_000 + b"[]]")
    assert refused.value.code == "too_large"


@given(st.binary(max_size=300), st.sampled_from([None, JSON, GZIP, ZSTD]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_value_or_refused(payload: bytes, content_type: str | None) -> None:
    try:
        read(payload, content_type)
    except Refused as refused:
        assert refused.code in {"malformed", "too_large"}  # noqa: PT017


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES, st.booleans(), st.sampled_from([lambda raw: raw, gzip.compress, zstandard.compress]))
@settings(max_examples=200, deadline=None)
def test_what_json_writes_is_read(value: object, ascii_only: bool, pack: object) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert read(pack(raw)) == value  # type: ignore[operator]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_payloads_are_a_value_or_refused(data: st.DataObject) -> None:
    raw = json.dumps(data.draw(VALUES)).encode()
    packed = bytearray(data.draw(st.sampled_from([raw, gzip.compress(raw), zstandard.compress(raw)])))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(packed))
    except Refused as refused:
        assert refused.code in {"malformed", "too_large"}  # noqa: PT017
