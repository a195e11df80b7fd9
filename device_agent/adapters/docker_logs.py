"""A container's log as the engine streams it → lines.

Without a terminal the stream is multiplexed: frames of eight bytes (the stream, three zeros, the length as four bytes,
big-endian) and their content, each entry with its time in front. With one it is the bare text, entry by entry.
Source: Docker Engine API, "Attach to a container", stream format.
"""

from datetime import datetime
from urllib.parse import urlencode

from device_agent.model.log import LogLine

_HEADER = 8
_STREAMS = {0: "stdout", 1: "stdout", 2: "stderr"}
LONGEST = 16 * 1024
"""Bytes of one line; the rest of it is left out."""


def logs_path(container_id: str, lines: int, since: datetime | None, *, follow: bool) -> str:
    query: dict[str, str | int] = {"stdout": 1, "stderr": 1, "timestamps": 1, "tail": lines, "follow": int(follow)}
    if since is not None:
        query["since"] = f"{since.timestamp():.9f}"
    return f"/containers/{container_id}/logs?{urlencode(query)}"


class LogReader:
    """Takes the stream in pieces of any size."""

    def __init__(self) -> None:
        self._multiplexed: bool | None = None
        self._frames = b""
        self._rest = {"stdout": b"", "stderr": b""}
        """Of each stream, the line that has no end yet."""

    def feed(self, piece: bytes) -> tuple[LogLine, ...]:
        """The lines that it ends."""
        self._frames += piece
        if self._multiplexed is None:
            if len(self._frames) < _HEADER:
                return ()
            # Bare text begins with the digits of a year.
            self._multiplexed = self._frames[0] in _STREAMS and self._frames[1:4] == b"\0\0\0"
        if not self._multiplexed:
            content, self._frames = self._frames, b""
            return self._split("stdout", content)
        lines: list[LogLine] = []
        while len(self._frames) >= _HEADER:
            end = _HEADER + int.from_bytes(self._frames[4:_HEADER], "big")
            if len(self._frames) < end:
                break
            stream = _STREAMS.get(self._frames[0], "stderr")
            lines += self._split(stream, self._frames[_HEADER:end])
            self._frames = self._frames[end:]
        return tuple(lines)

    def end(self) -> tuple[LogLine, ...]:
        """What was left without an end."""
        if self._multiplexed is None and self._frames:
            self._rest["stdout"] += self._frames
        return tuple(_line(stream, rest) for stream, rest in self._rest.items() if rest)

    def _split(self, stream: str, content: bytes) -> tuple[LogLine, ...]:
        *complete, rest = (self._rest[stream] + content).split(b"\n")
        self._rest[stream] = rest[: 2 * LONGEST]
        return tuple(_line(stream, line) for line in complete)


def _line(stream: str, raw: bytes) -> LogLine:
    at, space, text = raw.rstrip(b"\r").partition(b" ")
    if not space or not at[:1].isdigit():
        at, text = b"", raw
    return LogLine(text[:LONGEST].decode(errors="replace"), stream, at.decode(errors="replace") or None)
