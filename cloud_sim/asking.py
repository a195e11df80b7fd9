"""Commands to devices, and their answers, matched by the command's id."""

import gzip
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cloud_sim.clock import now
from cloud_sim.collector import Collector
from cloud_sim.connection import Misconfigured
from device_agent.model.command import LONGEST, Command, Signed
from device_agent.model.target import Json
from device_agent.wire import dsse
from device_agent.wire.commands import RUNNING, Answer, encode_command
from device_agent.wire.log import LogMessage

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBACK_S = 10.0
COMPRESSED_FROM_BYTES = 64 * 1024
"""Smaller messages stay readable for whoever looks at the topic."""


@dataclass(frozen=True, slots=True)
class Question:
    """A command before it is sent."""

    verb: str
    args: Mapping[str, Json]
    fleet: str
    device: str | None
    """None: every device of the fleet."""
    expires_s: float

    def written(self, id_: str, keys: Sequence["Ed25519PrivateKey"]) -> bytes:
        """The payload: signed by all `keys`, where there are any. Raises `Misconfigured`."""
        at, lifetime = now(), timedelta(seconds=self.expires_s)
        if not keys:
            return encode_command(Command(id_, self.args, at + lifetime))
        if lifetime > LONGEST:
            raise Misconfigured("a signed command is good for 24 h at most: wait for less time")
        signed = Signed(self.verb, self.fleet, self.device, at)
        raw = dsse.seal(encode_command(Command(id_, self.args, at + lifetime, signed)), keys, dsse.COMMAND)
        return gzip.compress(raw) if len(raw) > COMPRESSED_FROM_BYTES else raw


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that was sent. Within its `with` block, answers to it are collected."""

    id: str
    _collector: Collector

    @classmethod
    def send(
        cls,
        collector: Collector,
        topic: str,
        question: Question,
        keys: Sequence["Ed25519PrivateKey"] = (),
        *,
        listen: str | None = None,
    ) -> Self:
        """Send it; `listen` is a topic that devices will send lines to. Raises as `Cloud.ask` does."""
        asked = cls(f"cloud-sim-{token_hex(6)}", collector)
        payload = question.written(asked.id, keys)
        with collector.changed:
            collector.answers[asked.id] = {}
        try:
            if listen:
                collector.listen(listen)
            collector.connection.publish(
                topic,
                payload,
                retain=False,
                wait_s=PUBACK_S,
                expiry_s=round(question.expires_s),
                reply_to=collector.reply_to,
                correlation=asked.id.encode(),
            )
        except BaseException:
            asked.close()
            raise
        return asked

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._collector.changed:
            self._collector.answers.pop(self.id, None)

    @property
    def answers(self) -> dict[str, Answer]:
        """By device, the newest so far."""
        with self._collector.changed:
            return dict(self._collector.answers.get(self.id, {}))

    def wait(
        self, devices: Collection[str], timeout: float, lines: Callable[[LogMessage], None] = lambda _: None
    ) -> dict[str, Answer]:
        """Until all of `devices` have answered for good, or time is over. `lines` gets what a log brings."""

        def ended() -> bool:
            logs = self._collector.logs
            for message in [message for message in logs if message.id == self.id]:
                logs.remove(message)
                lines(message)
            answers = self.answers
            return all(device in answers and answers[device].status != RUNNING for device in devices)

        self._collector.wait_for(ended, timeout)
        return self.answers
