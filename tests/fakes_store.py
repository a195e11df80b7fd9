"""A store in memory that passes the contract suite of the real one, with faults to order.

It outlives the agent: hand it to the next one. What was committed is there, what was not has vanished. `cut` is called
with a name at every call of the port and at both sides of a commit (`commit`: nothing is stored yet, `committed`: all
of it is); raise there to cut the power, with a `BaseException` that no `except Exception` swallows.
"""

import hashlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from device_agent.model.errors import Refused, StoreBroken, StoreFull
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
from device_agent.ports import Clock, Transaction


def no_cut(_where: str) -> None:
    """The power stays on."""


@dataclass
class Rows:
    """What is on the fake disk."""

    targets: dict[str, AcceptedTarget] = field(default_factory=dict)
    floors: dict[str, Floor] = field(default_factory=dict)
    apps: dict[str, AppRecord] = field(default_factory=dict)
    bad: dict[str, BadRelease] = field(default_factory=dict)
    attempts: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    commands: dict[str, CommandRecord] = field(default_factory=dict)
    orders: dict[tuple[str, str], Order] = field(default_factory=dict)
    pulled: dict[tuple[str, str], PulledImage] = field(default_factory=dict)
    outbox: dict[int, tuple[Message, int]] = field(default_factory=dict)
    seq: int = 0
    session: int = 0
    dropped: int = 0
    started: float = 0.0
    """What makes the monotonic clock the running time of this database."""

    def copy(self) -> "Rows":
        return Rows(
            dict(self.targets),
            dict(self.floors),
            dict(self.apps),
            dict(self.bad),
            dict(self.attempts),
            dict(self.commands),
            dict(self.orders),
            dict(self.pulled),
            dict(self.outbox),
            self.seq,
            self.session,
            self.dropped,
            self.started,
        )


class FakeStore:
    """`ports.Store`, in memory."""

    def __init__(
        self,
        clock: Clock,
        cut: Callable[[str], None] = no_cut,
        *,
        max_rows: int = 10_000,
        max_size: int = 4 * 1024 * 1024,
        max_age_s: int = 7 * 24 * 3600,
    ) -> None:
        self.cut = cut
        self.full = False
        """The next commits raise `StoreFull`."""
        self.failing = False
        """The next commit raises `StoreBroken`, and so does everything after it until `load` (a restart)."""
        self.spare: int | None = 0
        """As the file `session`; None: it could never be made."""
        self.good: tuple[Target, ...] = ()
        """As `last-good.json`."""
        self.rows = Rows()
        self._clock = clock
        self._bounds = (max_rows, max_size, max_age_s)
        self._recovered: str | None = None
        self._stopped: str | None = None
        self._inside = False
        self.rows.seq = self.rows.session = self._beyond(0)

    def lose_database(self) -> None:
        """As if the file had been damaged while no agent ran: the next `load` finds what the files beside it tell."""
        lost, self.rows = self.rows, Rows()
        self.rows.floors = lost.floors
        self.rows.targets = {one.scope: AcceptedTarget(one, self._clock.now(), ended="applied") for one in self.good}
        self.rows.seq, self.rows.session = self._beyond(lost.seq), self._beyond(lost.session)
        self._recovered = "the database was set aside"

    def load(self) -> Memory:
        """Also the restart after a `close`, a power cut or a broken disk."""
        self.cut("load")
        self._stopped, self._inside = None, False
        rows = self.rows
        rows.started = max((at for _, at in rows.outbox.values()), default=0) - self._clock.monotonic()
        attempts = tuple(rows.attempts[key] for key in sorted(rows.attempts))
        return Memory(
            dict(rows.targets),
            dict(rows.floors),
            dict(rows.apps),
            attempts,
            dict(rows.bad),
            tuple(sorted(rows.commands.values(), key=lambda record: record.number)),
            tuple(rows.orders[key] for key in sorted(rows.orders)),
            tuple(rows.pulled[key] for key in sorted(rows.pulled)),
            self._recovered,
            rows.dropped,
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        self._usable("transaction")
        if self._inside:
            raise RuntimeError("a transaction is under way")
        before, self._inside = self.rows.copy(), True
        rows = _Transaction(self.rows, self._clock, self._bounds, self.cut)
        try:
            yield rows
            self._commit()
        except BaseException:
            self.rows = before
            raise
        finally:
            rows.ended, self._inside = True, False
        self.cut("committed")

    def raise_floor(self, scope: str, floor: Floor) -> None:
        self._usable("raise_floor")
        if max(floor.version) > 2**53:
            return
        with self.transaction():
            raise_floor(self.rows.floors, scope, floor)

    def remember_good(self, targets: tuple[Target, ...]) -> None:
        self._usable("remember_good")
        if self.full:
            raise StoreFull("full")
        self.good = targets

    def outbox(self, after: int, limit: int) -> tuple[Message, ...]:
        self._usable("outbox")
        return tuple(self.rows.outbox[seq][0] for seq in sorted(self.rows.outbox) if seq > after)[:limit]

    def outbox_counts(self) -> OutboxCounts:
        return OutboxCounts(len(self.rows.outbox), self.rows.dropped)

    def last_session(self) -> int:
        return max(self.rows.session, self.spare or 0)

    def reserve_sessions(self, count: int, above: int = 0) -> int:
        self._usable("reserve_sessions")
        first = max(self.last_session(), above) + 1
        last = first + count - 1
        try:
            with self.transaction():
                self.rows.session = last
        except StoreFull:
            if self.spare is None:
                raise
            self.cut("spare")
            self.spare = last
            self.cut("spared")
        return first

    def backup(self, file: Path) -> None:
        self._usable("backup")
        content = pickle.dumps(self.rows)
        try:
            file.write_bytes(hashlib.sha256(content).digest() + content)
        except OSError as error:
            raise Refused("invalid", f"cannot write the backup {file}: {error.strerror}") from error

    def restore(self, file: Path) -> Memory:
        self._usable("restore")
        try:
            content = file.read_bytes()
        except OSError as error:
            raise Refused("invalid", f"cannot read {file}: {error.strerror}") from error
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise Refused("invalid", f"{file} is no sound backup")
        found: Rows = pickle.loads(content[32:])
        with self.transaction():
            rows = self.rows
            rows.targets, rows.apps, rows.attempts, rows.bad = found.targets, found.apps, found.attempts, found.bad
            rows.orders = found.orders
            for scope, floor in found.floors.items():
                raise_floor(rows.floors, scope, floor)
            rows.seq, rows.session = max(rows.seq, found.seq), max(rows.session, found.session)
        self.good = tuple(one.target for one in found.targets.values() if one.ended == "applied")
        self._recovered = None
        return self.load()

    def close(self) -> None:
        self._stopped = "the store is closed"

    def _usable(self, where: str) -> None:
        self.cut(where)
        if self._stopped:
            raise StoreBroken(self._stopped)

    def _commit(self) -> None:
        self.cut("commit")
        if self.full:
            raise StoreFull("full")
        if self.failing:
            self.failing, self._stopped = False, "the disk failed"
            raise StoreBroken(self._stopped)

    def _beyond(self, mark: int) -> int:
        return max(mark + 1_000_000 if mark else 0, int(self._clock.now().timestamp()))


class _Transaction:
    def __init__(self, rows: Rows, clock: Clock, bounds: tuple[int, int, int], cut: Callable[[str], None]) -> None:
        self._rows = rows
        self._clock = clock
        self._bounds = bounds
        self._cut = cut
        self.ended = False

    def put_target(self, accepted: AcceptedTarget) -> None:
        self._usable("put_target")
        target = accepted.target
        self._rows.targets[target.scope] = accepted
        raise_floor(self._rows.floors, target.scope, Floor(target.version, target.digest))

    def put_app(self, record: AppRecord) -> None:
        self._usable("put_app")
        self._rows.apps[record.app] = replace(record, specs=dict(record.specs))

    def drop_app(self, app: str) -> None:
        self._usable("drop_app")
        self._rows.apps.pop(app, None)

    def put_bad(self, bad: BadRelease) -> None:
        self._usable("put_bad")
        self._rows.bad[bad.app] = bad

    def drop_bad(self, app: str) -> None:
        self._usable("drop_bad")
        self._rows.bad.pop(app, None)

    def put_attempt(self, attempt: Attempt) -> None:
        self._usable("put_attempt")
        self._rows.attempts[attempt.app, attempt.subject] = replace(attempt, failed_at=None)

    def drop_attempt(self, app: str, subject: str) -> None:
        self._usable("drop_attempt")
        self._rows.attempts.pop((app, subject), None)

    def put_command(self, record: CommandRecord) -> None:
        self._usable("put_command")
        self._rows.commands[record.id] = record

    def drop_command(self, id_: str) -> None:
        self._usable("drop_command")
        self._rows.commands.pop(id_, None)

    def put_order(self, order: Order) -> None:
        self._usable("put_order")
        self._rows.orders[order.app, order.service] = order

    def drop_order(self, app: str, service: str) -> None:
        self._usable("drop_order")
        self._rows.orders.pop((app, service), None)

    def put_pulled(self, pulled: PulledImage) -> None:
        self._usable("put_pulled")
        self._rows.pulled[pulled.image, pulled.image_id] = pulled

    def drop_pulled(self, image: str, image_id: str) -> None:
        self._usable("drop_pulled")
        self._rows.pulled.pop((image, image_id), None)

    def queue(self, kind: str, body: Callable[[int], bytes], *, terminal: bool = False) -> None:
        self._usable("queue")
        rows = self._rows
        message = Message(rows.seq + 1, kind, body(rows.seq + 1), terminal)
        rows.seq = message.seq
        rows.outbox[message.seq] = (message, int(self._clock.monotonic() + rows.started))
        self._keep_within_bounds()

    def unqueue(self, seq: int, *, dropped: bool = False) -> None:
        self._usable("unqueue")
        if self._rows.outbox.pop(seq, None) and dropped:
            self._rows.dropped += 1

    def _keep_within_bounds(self) -> None:
        outbox, (max_rows, max_size, max_age_s) = self._rows.outbox, self._bounds
        now = int(self._clock.monotonic() + self._rows.started)
        before = len(outbox)
        for seq in [seq for seq, (_, at) in outbox.items() if at <= now - max_age_s]:
            del outbox[seq]
        order = sorted(outbox, key=lambda seq: (_worth(outbox[seq][0]), seq))
        while len(outbox) > max_rows or sum(len(message.body) for message, _ in outbox.values()) > max_size:
            del outbox[order.pop(0)]
        self._rows.dropped += before - len(outbox)

    def _usable(self, where: str) -> None:
        self._cut(where)
        if self.ended:
            raise RuntimeError("the transaction has ended")


def raise_floor(floors: dict[str, Floor], scope: str, floor: Floor) -> None:
    """Never lowers it; a digest is added to an equal version that had none."""
    mine = floors.get(scope)
    if mine is None or floor.version > mine.version or (floor.version == mine.version and mine.digest is None):
        floors[scope] = floor


def _worth(message: Message) -> int:
    if message.kind == "event":
        return 0
    return 2 if message.terminal else 1
