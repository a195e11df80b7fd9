"""Log lines on their topic, while a `logs` command follows them."""

from collections.abc import Sequence
from dataclasses import dataclass

from device_agent.model.errors import Refused
from device_agent.model.log import LogLine
from device_agent.model.target import Json
from device_agent.wire import payload
from device_agent.wire.fields import Fields
from device_agent.wire.messages import SCHEMA, encode


def line_body(line: LogLine) -> dict[str, Json]:
    body: dict[str, Json] = {"at": line.at, "stream": line.stream, "text": line.text}
    if line.container is not None:
        body["container"] = line.container
    return body


def encode_log(device: str, id_: str, seq: int, lines: Sequence[LogLine], dropped: int) -> bytes:
    """`seq` counts the messages of one command from 1; `dropped` are lines since the message before."""
    told: list[Json] = [line_body(line) for line in lines]
    return encode({"schema": SCHEMA, "device": device, "id": id_, "seq": seq, "lines": told, "dropped": dropped})


@dataclass(frozen=True, slots=True)
class LogMessage:
    """Lines of one command's log. QoS 0: a `seq` that is missing was lost."""

    device: str
    id: str
    seq: int
    lines: tuple[LogLine, ...]
    dropped: int


def decode_log(raw: bytes) -> LogMessage:
    """Raises `Refused` (`malformed`)."""
    body = payload.read(raw)
    if not isinstance(body, dict):
        raise Refused("malformed", "not an object")
    fields = Fields(body)
    return LogMessage(
        fields.text("device"),
        fields.text("id"),
        fields.whole("seq"),
        tuple(line_of(line) for line in fields.items("lines")),
        fields.maybe_whole("dropped") or 0,
    )


def line_of(body: Fields) -> LogLine:
    return LogLine(
        body.text("text"), body.maybe_text("stream") or "stdout", body.maybe_text("at"), body.maybe_text("container")
    )
