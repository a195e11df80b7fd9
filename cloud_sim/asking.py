"""Commands to devices, and their answers, matched by the command's id."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from secrets import token_hex
from types import TracebackType
from typing import Self

from cloud_sim.clock import now
from cloud_sim.collector import Collector
from device_agent.model.target import Json
from device_agent.wire.commands import RUNNING, Answer, Command, encode_command
from device_agent.wire.log import LogMessage

PUBACK_S = 10.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that was sent. Within its `with` block, answers to it are collected."""

    id: str
    _collector: Collector

    @classmethod
    def send(
        cls, collector: Collector, topic: str, args: Mapping[str, Json], *, expires_s: float, listen: str | None = None
    ) -> Self:
        """Send it; `listen` is a topic that devices will send lines to. Raises `Denied`, `Unreachable`."""
        asked = cls(f"cloud-sim-{token_hex(6)}", collector)
        command = Command(asked.id, args, now() + timedelta(seconds=expires_s))
        with collector.changed:
            collector.answers[asked.id] = {}
        try:
            if listen:
                collector.listen(listen)
            collector.connection.publish(
                topic,
                encode_command(command),
                retain=False,
                wait_s=PUBACK_S,
                expiry_s=round(expires_s),
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
