"""The engine's log stream, in pieces of any size."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.adapters.docker_logs import LONGEST, LogReader, logs_path
from device_agent.model.log import LogLine
from tests.builders import NOW

AT = "2026-11-22T10:00:00.123456789Z"


def frame(stream: int, content: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(content).to_bytes(4, "big") + content


def entry(text: str) -> bytes:
    return f"{AT} {text}\n".encode()


MULTIPLEXED = frame(1, entry("one")) + frame(2, entry("two")) + frame(1, entry("")) + frame(1, entry("four")[:-1])
EXPECTED = (
    LogLine("one", "stdout", AT),
    LogLine("two", "stderr", AT),
    LogLine("", "stdout", AT),
    LogLine("four", "stdout", AT),
)
TERMINAL = entry("one\r") + entry("two")


def read(stream: bytes, cuts: list[int]) -> tuple[LogLine, ...]:
    reader, lines, at = LogReader(), [], 0
    for cut in [*sorted(cuts), len(stream)]:
        lines += reader.feed(stream[at:cut])
        at = max(at, cut)
    return (*lines, *reader.end())


@given(st.lists(st.integers(0, len(MULTIPLEXED)), max_size=10))
def test_a_multiplexed_stream(cuts):
    assert read(MULTIPLEXED, cuts) == EXPECTED


@given(st.lists(st.integers(0, len(TERMINAL)), max_size=10))
def test_the_stream_of_a_terminal(cuts):
    assert read(TERMINAL, cuts) == (LogLine("one", "stdout", AT), LogLine("two", "stdout", AT))


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_whatever_comes_is_read(stream, cuts):
    assert all(isinstance(line, LogLine) for line in read(stream, cuts))


def test_lines_of_one_stream_may_come_in_several_frames():
    stream = frame(1, entry("half")[:-3]) + frame(2, entry("other")) + frame(1, b"lf\n")
    assert [line.text for line in read(stream, [])] == ["other", "half"]


def test_a_line_without_end_is_cut():
    reader = LogReader()
    for _ in range(100):
        reader.feed(frame(1, b"x" * LONGEST))
    (line,) = reader.end()
    assert len(line.text) == LONGEST


@pytest.mark.parametrize(("since", "query"), [(None, ""), (NOW, "&since=1795341600.000000000")])
def test_what_is_asked(since, query):
    path = logs_path("abc", 100, since, follow=True)
    assert path == f"/containers/abc/logs?stdout=1&stderr=1&timestamps=1&tail=100&follow=1{query}"
