"""What is written and told, in transactions: acks and events go with what they tell, and a PUBACK follows its commit.

On a full disk nothing is acknowledged and nothing is forgotten: it is tried again, in order.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from device_agent.model.errors import StoreFull
from device_agent.model.report import Ack, Happening
from device_agent.ports import Clock, Store, Transaction, Transport
from device_agent.runtime.link import Link
from device_agent.wire.messages import Head, encode_ack, encode_event

FULL_S = 5.0
"""How soon a commit is tried again on a full disk."""

Write = Callable[[Transaction], None]

log = structlog.get_logger()


@dataclass(slots=True)
class Journal:
    store: Store
    transport: Transport
    link: Link
    clock: Clock
    changed: Callable[[], None]
    """Called when `status` has changed."""
    status: str = "ok"
    """`ok`, `full`, or how the store was recovered at this start."""
    _writes: list[Write] = field(default_factory=list)
    _chores: list[Callable[[], None]] = field(default_factory=list)
    """What else the store has to do, after `_writes`."""
    _not_before: float = 0.0
    _tokens: list[object] = field(default_factory=list)
    """PUBACKs to send when `_writes` are on disk."""

    def tell(self, happening: Happening) -> None:
        """Queue an event."""
        head = self._head()
        self.write(lambda tx: tx.queue("event", lambda seq: encode_event(happening, head(seq))))

    def tell_ack(self, ack: Ack) -> None:
        log.info("ack", **{name: str(value) for name, value in _words(ack).items()})
        self.write(self.queue_ack(ack))

    def tell_all(self, acks: list[Ack]) -> None:
        for ack in acks:
            self.tell_ack(ack)

    def queue_ack(self, ack: Ack) -> Write:
        head = self._head()
        return lambda tx: tx.queue("ack", lambda seq: encode_ack(ack, head(seq)), terminal=ack.terminal)

    def _head(self) -> Callable[[int], Head]:
        """Of a message about what happens now, when it has its number."""
        device, session, at = self.link.topics.device, self.link.session or 0, self.clock.now()
        return lambda seq: Head(device, session, seq, at)

    def write(self, write: Write) -> None:
        """With the next transaction."""
        self._writes.append(write)

    def chore(self, chore: Callable[[], None]) -> None:
        """Once what was written before is on disk."""
        self._chores.append(chore)

    def acknowledge(self, token: object) -> None:
        """PUBACK a message as soon as what it led to is on disk. None: no message has led to it."""
        if token is not None:
            self._tokens.append(token)

    @property
    def pending(self) -> bool:
        return bool(self._writes or self._chores)

    def due(self) -> float | None:
        return self._not_before if self.pending else None

    @property
    def may_write(self) -> bool:
        return self.clock.monotonic() >= self._not_before

    @property
    def next_try(self) -> float:
        return self._not_before

    def delete_confirmed(self, *, now: bool = False) -> None:
        """Rows that the broker has: with what is written anyway, or `now`."""
        for row, dropped in self.link.confirmed(writing=now or bool(self._writes)).items():
            self.write(lambda tx, row=row, dropped=dropped: tx.unqueue(row, dropped=dropped))  # type: ignore[misc]

    def flush(self) -> None:
        """Everything that has come together, in one transaction."""
        if self.pending and self.may_write:
            try:
                if self._writes:
                    self.commit()
                while self._chores:
                    self._chores[0]()
                    del self._chores[0]
                self._ok()
            except StoreFull as full:
                self.full(full)
        if not self._writes:
            tokens, self._tokens = self._tokens, []
            for token in tokens:
                self.transport.acknowledge(token)

    def commit(self, *more: Write) -> None:
        """What has come together, and then `more`, in one transaction: nothing that came first is written after it.

        Raises `StoreFull`; then what has come together is still to be written, and `more` is the caller's.
        """
        with self.store.transaction() as tx:
            for write in (*self._writes, *more):
                write(tx)
        self._writes.clear()
        self._ok()

    def full(self, full: StoreFull) -> None:
        if self.status != "full":
            log.error("store full", why=str(full), next=f"tried again in {FULL_S:g} s; what runs runs on")
        self.status = "full"
        self._not_before = self.clock.monotonic() + FULL_S
        self.changed()

    def _ok(self) -> None:
        if self.status == "full":
            self.status = "ok"
            self.changed()


def _words(ack: Ack) -> dict[str, object]:
    fields = ("verdict", "scope", "version", "release", "app", "service", "code", "message", "attempt")
    return {name: value for name in fields if (value := getattr(ack, name)) is not None}
