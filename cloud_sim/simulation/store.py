"""A simulated device's memory: the port `Store` without a disk. It lives as long as the device, and is never full."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path

from device_agent.model.errors import Refused
from device_agent.model.memory import (
    AcceptedTarget,
    AppRecord,
    Attempt,
    BadRelease,
    CommandRecord,
    Floor,
    Memory,
    Message,
    Order,
    OutboxCounts,
    PulledImage,
)
from device_agent.model.target import Target

OUTBOX_ROWS = 1000
"""The oldest go when there are more: a fleet without a broker must not fill the machine's memory."""


class MemoryStore:
    """Store and transaction in one: what is written is there at once."""

    __slots__ = ("_dropped", "_rows", "_seq", "_session")

    def __init__(self, now: datetime) -> None:
        """Numbers begin beyond any that an earlier device of this name had: none was as high as the time of day."""
        self._seq = self._session = int(now.timestamp())
        self._rows: dict[int, Message] = {}
        self._dropped = 0

    def load(self) -> Memory:
        return Memory()

    @contextmanager
    def transaction(self) -> Iterator["MemoryStore"]:
        yield self

    def raise_floor(self, scope: str, floor: Floor) -> None:
        """The agent keeps it."""

    def remember_good(self, targets: tuple[Target, ...]) -> None:
        """Nothing is to be recovered."""

    def outbox(self, after: int, limit: int) -> tuple[Message, ...]:
        # Numbers only go up, and so does a dict's order.
        if after >= self._seq:
            return ()
        return tuple(islice((row for seq, row in self._rows.items() if seq > after), limit))

    def outbox_counts(self) -> OutboxCounts:
        return OutboxCounts(len(self._rows), self._dropped)

    def last_session(self) -> int:
        return self._session

    def reserve_sessions(self, count: int, above: int = 0) -> int:
        first = max(self._session, above) + 1
        self._session = first + count - 1
        return first

    def backup(self, file: Path) -> None:
        raise Refused("invalid", f"a simulated device has nothing to put into {file}")

    def restore(self, file: Path) -> Memory:
        raise Refused("invalid", f"a simulated device cannot be restored from {file}")

    def close(self) -> None:
        """Nothing is open."""

    # A transaction. Of all that the agent writes only the outbox is ever read again: it remembers the rest itself.

    def queue(self, kind: str, body: Callable[[int], bytes], *, terminal: bool = False) -> None:
        self._seq += 1
        self._rows[self._seq] = Message(self._seq, kind, body(self._seq), terminal)
        if len(self._rows) > OUTBOX_ROWS:
            del self._rows[next(iter(self._rows))]
            self._dropped += 1

    def unqueue(self, seq: int, *, dropped: bool = False) -> None:
        if self._rows.pop(seq, None) and dropped:
            self._dropped += 1

    def put_target(self, accepted: AcceptedTarget) -> None:
        """The agent keeps it."""

    def put_app(self, record: AppRecord) -> None:
        """The agent keeps it."""

    def drop_app(self, app: str) -> None:
        """The agent keeps it."""

    def put_bad(self, bad: BadRelease) -> None:
        """The agent keeps it."""

    def drop_bad(self, app: str) -> None:
        """The agent keeps it."""

    def put_attempt(self, attempt: Attempt) -> None:
        """The agent keeps it."""

    def drop_attempt(self, app: str, subject: str) -> None:
        """The agent keeps it."""

    def put_command(self, record: CommandRecord) -> None:
        """The agent keeps it."""

    def drop_command(self, id_: str) -> None:
        """The agent keeps it."""

    def put_order(self, order: Order) -> None:
        """The agent keeps it."""

    def put_pulled(self, pulled: PulledImage) -> None:
        """The agent keeps it."""

    def drop_order(self, app: str, service: str) -> None:
        """The agent keeps it."""

    def drop_pulled(self, image: str, image_id: str) -> None:
        """The agent keeps it."""
