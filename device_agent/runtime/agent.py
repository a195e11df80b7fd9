"""The owner loop: the one thread that owns all that changes.

It takes what has arrived, updates what is wanted, looks, plans, hands out, and reports what changed. Boot, a new
target, a dead container, a retry and an idle check all take this one road.

Its parts: `intake` judges what arrives, `reconciler` observes, plans and acts, `progress` tells how far it is (with
`rollout` and `releases`), `journal` writes it down, `link` sends it.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping

import structlog

from device_agent.core.intake import Wanted, unknown_scopes, want
from device_agent.core.orders import carried_out, with_orders
from device_agent.core.status import (
    label_revision,
)
from device_agent.model.errors import Refused
from device_agent.model.memory import Floor, Memory, Order
from device_agent.model.observed import EngineEvent, Observed
from device_agent.model.report import Happening
from device_agent.model.target import SCOPES
from device_agent.ports import (
    Clock,
    Connected,
    Disconnected,
    Engine,
    Host,
    Published,
    PullProgress,
    Received,
    Store,
    Transport,
)
from device_agent.runtime import purge
from device_agent.runtime.commands import last_only, run
from device_agent.runtime.current_state import CurrentState
from device_agent.runtime.documents import Documents
from device_agent.runtime.ending import Ending
from device_agent.runtime.garbage import Garbage, wanted_images
from device_agent.runtime.holds import Holds
from device_agent.runtime.host import HostWatch
from device_agent.runtime.images import Images
from device_agent.runtime.inbox import (
    Event,
    ImageRemoved,
    LocksRead,
    LogArrived,
    LogEnded,
    Looked,
    PullEnded,
    Request,
    SizesRead,
    StepEnded,
    StopRequested,
    TailRead,
    ThreadDied,
    VolumesPurged,
)
from device_agent.runtime.intake import Intake
from device_agent.runtime.journal import Journal
from device_agent.runtime.link import Link
from device_agent.runtime.logs import Logs
from device_agent.runtime.options import Options
from device_agent.runtime.paused import Paused
from device_agent.runtime.planning import Planning
from device_agent.runtime.progress import Progress
from device_agent.runtime.reconciler import Reconciler
from device_agent.runtime.releases import Releases
from device_agent.runtime.remote_commands import RemoteCommands
from device_agent.runtime.rollout import Rollout
from device_agent.runtime.room import Room
from device_agent.runtime.tails import Tails
from device_agent.runtime.workers import Workers

BEAT_S = 15.0
"""How often the loop shows that it is alive: the health check calls it dead after 90 s."""
log = structlog.get_logger()


class Died(Exception):  # noqa: N818
    """Something that must not end has ended. The process exits, and is started again by the engine."""


class Agent:
    """Give it events with `handle`, call `tick`, and come back at `next_due`; or let `run` do it."""

    def __init__(
        self,
        options: Options,
        *,
        store: Store,
        engine: Engine,
        transport: Transport,
        workers: Workers,
        clock: Clock,
        host: Host,
        inbox: "queue.SimpleQueue[Event]",
        beat: Callable[[], None],
    ) -> None:
        self.options = options
        self.store = store
        self.clock = clock
        self.stopping = threading.Event()
        self._inbox = inbox
        self._beat = beat
        self._beat_at = 0.0
        self._changed = True
        self.link = Link(transport, store, options.topics, clock, inbox.put, options.will_delay_s)
        self.journal = Journal(store, transport, self.link, clock, self.state_changed)
        self.images = Images(clock, self.journal.write)
        self.host = HostWatch(host, clock, self._tell_of_host)
        self.holds = Holds(self)
        self.tails = Tails(engine, workers, inbox.put)
        self.paused = Paused()
        self.reconciler = Reconciler(
            engine=engine,
            workers=workers,
            clock=clock,
            put=inbox.put,
            stopping=self.stopping,
            keep=lambda attempt: self.journal.write(lambda tx: tx.put_attempt(attempt)),
            forget=lambda app, subject: self.journal.write(lambda tx: tx.drop_attempt(app, subject)),
            images=self.images,
            room=Room(engine, host.disk, options.reserve),
            make_room=self._make_room,
            choose=self.holds.choose,
            ask_locks=lambda app, containers: self.holds.ask(app, containers, before_stopping=True),
        )
        self.garbage = Garbage(self.images, engine, workers, clock, inbox.put, self.stopping)
        self.rollout = Rollout({}, {})
        self.releases = Releases(clock, options.naming, self.rollout.apps)
        self.progress = Progress(self)
        self.floors: dict[str, Floor] = {}
        self.orders: dict[tuple[str, str], Order] = {}
        """By (app, service): what operators have said, as the database has it."""
        self.current = CurrentState(self)
        self.ending = Ending(self)
        self.intake = Intake(self, Documents(self))
        self.commands = RemoteCommands(self)
        self.logs = Logs(self, engine, workers)
        self.planning = Planning(self, engine, workers)

    # Life.

    def start(self) -> None:
        """Load, begin to reconcile from what is stored, and only then think of the network."""
        memory = self.store.load()
        self.remember(memory)
        self.reconciler.retries.await_anew()
        self.commands.remember(memory.commands)
        self.tick()
        self.link.start()

    def remember(self, memory: Memory) -> None:
        """Begin with what the store has: at the start, and after a restore."""
        self.rollout = Rollout(dict(memory.targets), dict(memory.apps))
        self.floors = dict(memory.floors)
        self.orders = {(order.app, order.service): order for order in memory.orders}
        self.reconciler.retries.rows = {(attempt.app, attempt.subject): attempt for attempt in memory.attempts}
        self.images.rows = {(row.image, row.image_id): row for row in memory.pulled}
        if memory.recovered:
            self.journal.status = memory.recovered
            log.error("store recovered", how=memory.recovered)
            self.journal.tell(Happening("store_recovered", {"message": memory.recovered}))
        self.releases = Releases(self.clock, self.options.naming, self.rollout.apps, dict(memory.bad))
        self.want(self._wanted_of_memory())
        self.reconciler.settled = self._settled()
        self._changed = True

    def want(self, wanted: Wanted) -> None:
        """Want this from now on; something else may be run in place of a part of it."""
        self.reconciler.held = frozenset(name for name, app in wanted.apps.items() if self.releases.held(app))
        unknown = unknown_scopes(self.floors, self.rollout.targets)
        content = self.releases.running(wanted)
        ordered = {name: with_orders(app, self.orders.values()) for name, app in content.items()}
        self.reconciler.gated = frozenset(name for name, app in ordered.items() if self.releases.gated(app))
        self.reconciler.want(wanted, unknown, ordered)

    def _wanted_of_memory(self) -> Wanted:
        targets = {scope: accepted.target for scope, accepted in self.rollout.targets.items()}
        try:
            return want(targets, self.options.naming, policy=None)
        except Refused as refused:
            # Accepted by another version of the agent: what runs is left alone until a target comes that is understood.
            log.warning("stored target not understood", code=refused.code, why=refused.message)
            self.journal.status = f"the stored target is not understood: {refused.message}"
            return Wanted()

    def run(self) -> None:
        """Until a stop was requested and carried out. Raises `Died`."""
        self.start()
        while not self.ending.finished:
            due = self.next_due()
            wait = max(0.0, min(due - self.clock.monotonic(), BEAT_S)) if due is not None else BEAT_S
            try:
                self.handle(self._inbox.get(timeout=wait))
                for _ in range(self._inbox.qsize()):
                    self.handle(self._inbox.get_nowait())
            except queue.Empty:
                pass
            self.tick()

    def next_due(self) -> float | None:
        times = [
            self.reconciler.next_due(),
            self.host.next_due(),
            self.holds.next_due(),
            self.intake.next_due(),
            self.link.confirmed_due(),
            self.link.answers_due(),
            self.link.pump_due(),
            self.logs.next_due(),
            self.journal.due(),
            self.ending.due,
        ]
        if self._changed or self.intake.judging.unstored:
            times.append(max(self.link.state_due(), self.journal.next_try if self.intake.judging.unstored else 0.0))
        return min((time for time in times if time is not None), default=None)

    # One event.

    def handle(self, event: Event) -> None:  # noqa: C901, PLR0912, PLR0915 - a table of what can happen
        match event:
            case Connected():
                self.intake.connected()
                self.link.connected(event, self.current.have())
                self._changed = True
            case Disconnected():
                self.intake.disconnected()
                self.logs.disconnected()
                self.commands.disconnected()
                self.link.disconnected(event)
                if event.code == "duplicate_identity":
                    self.journal.tell(Happening("duplicate_identity", {"message": event.message}))
            case Received():
                self._received(event)
            case Published():
                self.link.published(event)
            case PullProgress():
                self.images.heard(event)
                self.link.progress(event)
            case EngineEvent():
                self.reconciler.engine_event(event)
            case Looked():
                self._looked(event)
            case StepEnded():
                self.reconciler.acting.step_ended(event)
                self._changed = True
            case PullEnded():
                self.reconciler.pull_ended(event)
                self._changed = True
            case LocksRead():
                self.holds.read(event)
                self._changed = True
            case ImageRemoved():
                happening = self.garbage.removed(event)
                self.reconciler.wake()
                if happening:
                    self.journal.tell(happening)
            case VolumesPurged():
                purge.ended(self, event)
            case TailRead():
                happening = self.tails.heard(event)
                self._changed = True
                if happening:
                    self.journal.tell(happening)
            case SizesRead():
                event.then(event.sizes)
            case LogArrived():
                pass  # the next `tick` sends what may be sent
            case LogEnded():
                self.logs.ended(event)
            case Request():
                run(self, event.verb, event.args, last_only(event.reply))
            case StopRequested():
                self.ending.begin()
            case ThreadDied():
                raise Died(f"{event.name} ended: {event.error}")

    def _received(self, event: Received) -> None:
        verb = self.options.topics.verb_of(event.topic)
        if verb:
            self.commands.received(event, verb)
        else:
            self.intake.received(event)

    def tick(self) -> None:
        """What is due: looking, settling, writing, sending."""
        now = self.clock.monotonic()
        if now >= self._beat_at:
            self._beat()
            self._beat_at = now + BEAT_S
        self.intake.tick()
        self.holds.tick()
        self.reconciler.tick()
        if self.host.tick() and self.link.host_is_news(self.host.figures):
            self._changed = True
        self.commands.tick()
        self.logs.tick()
        self.journal.delete_confirmed()
        self.journal.flush()
        self.link.pump()
        if self._changed:
            self._changed = not self.link.report(self.current.read(), self.host.figures)
        self.ending.tick()

    # Observing and planning.

    def _looked(self, event: Looked) -> None:
        planned = self.reconciler.looked(event)
        self._changed = True
        observed = self.reconciler.observed
        if event.observed is None or observed is None:
            return
        if event.number == 1:
            log.info("first pass", wanted=len(self.reconciler.wanted.apps), containers=len(observed.containers))
        self._raise_floors(observed)
        self.releases.observe(observed)
        for app in planned:
            self.progress.planned(app, observed)
        self.reconciler.settled = self._settled()
        self.reconciler.act([app for app in planned if app not in self.progress.overtaken])
        self.progress.overtaken.clear()
        self.progress.end_targets()
        self.forget_orders(order for order in self.orders.values() if carried_out(order, observed))
        self.holds.forget_gone(observed)
        self.tails.read(observed, self.reconciler.plans.values())
        for happening in self.paused.seen(observed):
            self.journal.tell(happening)
        if self.reconciler.at_rest:
            self.garbage.collect(observed, self.wanted_images())
        wait_s = self.releases.next_wait_s(planned)
        if wait_s is not None:
            self.reconciler.wake(wait_s)

    def forget_orders(self, orders: Iterable[Order]) -> None:
        for order in tuple(orders):
            del self.orders[order.app, order.service]
            self.journal.write(lambda tx, order=order: tx.drop_order(order.app, order.service))  # type: ignore[misc]

    def wanted_images(self) -> frozenset[str]:
        """The references of images that are not removed."""
        reconciler = self.reconciler
        apps = (*reconciler.wanted.apps.values(), *reconciler.content.values(), *reconciler.running.values())
        return wanted_images(apps, self.rollout.targets.values(), self.rollout.apps.values())

    def _make_room(self) -> bool:
        """For a pull that finds too little space, earlier than usual. Says whether there is anything to wait for."""
        observed = self.reconciler.observed
        if observed is None or not self.reconciler.may_conclude:
            return False
        return self.garbage.collect(observed, self.wanted_images())

    def _raise_floors(self, observed: Observed) -> None:
        """The labels of what runs are a lower bound, should database and sidecar both be lost."""
        for container in observed.containers:
            told = label_revision(container.revision)
            if told is None or told[0] not in SCOPES:
                continue
            scope, version = told
            if scope not in self.floors or self.floors[scope].version < version:
                floor = self.floors[scope] = Floor(version)
                self.journal.chore(lambda scope=scope, floor=floor: self.store.raise_floor(scope, floor))  # type: ignore[misc]
                self.reconciler.unknown = unknown_scopes(self.floors, self.rollout.targets)

    def _settled(self) -> dict[str, Mapping[str, str]]:
        return {name: record.specs for name, record in self.rollout.apps.items()}

    def state_changed(self) -> None:
        self._changed = True

    def _tell_of_host(self, happening: Happening) -> None:
        self.journal.tell(happening)
        if happening.name == "clock_jump":
            self.reconciler.wake()  # what waits for a time of day may have come to it, or gone back from it
