"""The fast reader and writer of JSON against slow ones that are plainly right: the standard library's and rfc8785."""

import json
import sys
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import rfc8785
from hypothesis import example, given, settings
from hypothesis import strategies as st

from device_agent.model.canonical import canonical
from device_agent.model.errors import Refused
from device_agent.wire import payload

MOST_VALUES = 70
LARGEST = 2**53 - 1

texts = st.text(max_size=4) | st.sampled_from(
    ["a", "\ud800", "😀", "\uffff", '"', "\\", "\\\\", '\\"', ',[{:"', "\x7f"]
)
numbers = (
    st.integers(-(2**54), 2**54)
    | st.floats()
    | st.sampled_from([LARGEST, -LARGEST, LARGEST + 1, -0.0, 1.0, 1e15, 1e16, 1e20, 1e21, 1e-4, 1e-5, 1e-6, 1e-7])
    | st.builds(lambda digits, power: digits * 10.0**power, st.integers(-999, 999), st.integers(-30, 30))
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
# Pieces that make good and bad JSON by chance: keys that are equal once their escapes are read, numbers out of bounds.
pieces = st.lists(
    st.sampled_from(
        [
            *'{}[],:" ',
            '"a"', '"\\u0061"', '"\\\\"', '"\\""', '"\\\\\\""', '"\\ud83d\\ude00"', '"\\ud800"', '"\\uDC00"', '"é"',
            '"😀"',
            '{"a":1}', '{"a":1,"\\u0061":2}', '{"":{"":0}}', '"[,{:"', "[1,2]", "[" * 64, "]" * 64, "[" * 65, "]" * 65,
            "-0", "0", "01", "1.0", "1e400", "-1e400", "1e-400", "9007199254740991", "-9007199254740992", "9" * 5000,
            "NaN", "Infinity", "-Infinity", "null", "true", "\t", "\x00", '"\x1f"', "\ufeff",
        ]
    ),
    max_size=12,
).map("".join)  # fmt: skip


def slowly(document: bytes) -> Any:
    """The value, strictly read. Raises ValueError."""

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in members}) < len(members):
            raise ValueError("a key is there twice")
        return dict(members)

    def number(digits: str, of: type) -> Any:
        value = of(digits[:400])
        if abs(value) > (LARGEST if of is int else sys.float_info.max):
            raise ValueError("too large")
        return value

    def constant(name: str) -> Any:
        raise ValueError(name)

    text = document.decode()
    if sum(1 for _ in marks(text)) > MOST_VALUES:
        raise ValueError("too many")
    value = json.loads(
        text,
        object_pairs_hook=pairs,
        parse_int=lambda digits: number(digits, int),
        parse_float=lambda digits: number(digits, float),
        parse_constant=constant,
    )
    check(value, payload.DEPTH)
    return value


def marks(text: str) -> Iterator[str]:
    within = escaped = False
    for character in text:
        if within:
            within = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            within = True
        elif character in ",[{:":
            yield character


def check(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if not depth:
            raise ValueError("too deep")
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            check(inner, depth - 1)
    elif isinstance(value, str):
        value.encode()


@given(
    pieces.map(lambda text: text.encode(errors="surrogatepass")) | values.map(lambda value: json.dumps(value).encode())
)
@example(b'{"a":1,"\\u0061":2}')
@example(b"[" * 65 + b"]" * 65)
@example(b'["\\\\",' + b"1," * 80 + b"1]")
@example(b'["' + b"\\\\" * 90 + b'",[],"\\\\\\""]')
@example(b'"' + b'\\"[' * 80 + b'"')
@settings(max_examples=400, deadline=None)
def test_what_is_read_is_what_a_slow_reader_reads(document: bytes) -> None:
    with patch.object(payload, "_VALUES", MOST_VALUES):
        try:
            expected = repr(slowly(document))
        except ValueError:
            expected = "refused"
        try:
            found = repr(payload.parse(document))
        except Refused:
            found = "refused"
    assert found == expected


@given(values)
@settings(max_examples=400, deadline=None)
def test_what_is_written_is_what_a_slow_writer_writes(value: Any) -> None:
    try:
        expected = rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError):
        expected = b"refused"
    try:
        found = canonical(value)
    except Refused:
        found = b"refused"
    assert found == expected
