"""What can be done within a transaction. The store begins it and ends it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from device_agent.adapters import store_outbox, store_rows
from device_agent.adapters.sidecar import higher
from device_agent.adapters.store_outbox import Bounds, Fill
from device_agent.adapters.store_schema import apps, attempts, bad_releases, commands, orders, pulled_images
from device_agent.model.errors import StoreBroken, StoreFull
from device_agent.model.memory import (
    AcceptedTarget,
    AppRecord,
    Attempt,
    BadRelease,
    CommandRecord,
    Floor,
    Message,
    Order,
    PulledImage,
)
from device_agent.ports import Clock


@dataclass(slots=True)
class Standing:
    """What is kept in memory beside the tables; put back when a transaction fails."""

    floors: dict[str, Floor]
    counters: dict[str, int]
    fill: Fill
    started: float = 0.0
    """What makes the monotonic clock the running time of this database."""

    def copy(self) -> "Standing":
        return Standing(dict(self.floors), dict(self.counters), replace(self.fill), self.started)


class Rows:
    """`ports.Transaction`. Once a call has failed, so do all later ones: SQLite has rolled back already."""

    def __init__(
        self,
        connection: Connection,
        standing: Standing,
        bounds: Bounds,
        clock: Clock,
        work: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._connection = connection
        self._standing = standing
        self._bounds = bounds
        self._clock = clock
        self._work = work
        self._failed: StoreFull | StoreBroken | None = None
        self._ended = False

    def put_target(self, accepted: AcceptedTarget) -> None:
        target = accepted.target
        floors = higher(self._standing.floors, {target.scope: Floor(target.version, target.digest)})
        with self._writing():
            store_rows.put_target(self._connection, accepted)
            store_rows.put_floor(self._connection, target.scope, floors[target.scope])
            self._standing.floors = floors

    def put_app(self, record: AppRecord) -> None:
        with self._writing():
            store_rows.put_app(self._connection, record)

    def drop_app(self, app: str) -> None:
        with self._writing():
            store_rows.drop(self._connection, apps, app=app)

    def put_bad(self, bad: BadRelease) -> None:
        with self._writing():
            store_rows.put_bad(self._connection, bad)

    def drop_bad(self, app: str) -> None:
        with self._writing():
            store_rows.drop(self._connection, bad_releases, app=app)

    def put_attempt(self, attempt: Attempt) -> None:
        with self._writing():
            store_rows.put_attempt(self._connection, attempt)

    def drop_attempt(self, app: str, subject: str) -> None:
        with self._writing():
            store_rows.drop(self._connection, attempts, app=app, subject=subject)

    def put_command(self, record: CommandRecord) -> None:
        with self._writing():
            store_rows.put_command(self._connection, record)

    def drop_command(self, id_: str) -> None:
        with self._writing():
            store_rows.drop(self._connection, commands, id=id_)

    def put_order(self, order: Order) -> None:
        with self._writing():
            store_rows.put_order(self._connection, order)

    def drop_order(self, app: str, service: str) -> None:
        with self._writing():
            store_rows.drop(self._connection, orders, app=app, service=service)

    def put_pulled(self, pulled: PulledImage) -> None:
        with self._writing():
            store_rows.put_pulled(self._connection, pulled)

    def drop_pulled(self, image: str, image_id: str) -> None:
        with self._writing():
            store_rows.drop(self._connection, pulled_images, image=image, image_id=image_id)

    def queue(self, kind: str, body: Callable[[int], bytes], *, terminal: bool = False) -> None:
        counters = self._standing.counters
        seq = counters["seq"] + 1
        message = Message(seq, kind, body(seq), terminal)
        now = int(self._clock.monotonic() + self._standing.started)
        with self._writing():
            counters["seq"] = seq
            store_rows.put_counter(self._connection, "seq", seq)
            self._count(store_outbox.add(self._connection, self._standing.fill, self._bounds, message, now))

    def unqueue(self, seq: int, *, dropped: bool = False) -> None:
        with self._writing():
            removed = store_outbox.remove(self._connection, self._standing.fill, seq)
            self._count(removed if dropped else 0)

    def _count(self, dropped: int) -> None:
        counters = self._standing.counters
        if dropped:
            counters["dropped"] += dropped
            store_rows.put_counter(self._connection, "dropped", counters["dropped"])

    def end(self) -> None:
        """No more calls; a failure that the caller has swallowed comes back before the commit."""
        self._ended = True
        if self._failed:
            raise self._failed

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if self._ended:
            raise RuntimeError("the transaction has ended")
        if self._failed:
            raise self._failed
        try:
            with self._work():
                yield
        except (StoreFull, StoreBroken) as error:
            self._failed = error
            raise
