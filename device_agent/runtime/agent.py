"""The owner loop: the one thread that owns all that changes.

It takes what has arrived, updates what is wanted, looks, plans, hands out, and reports what changed. Boot, a new
target, a dead container, a retry and an idle check all take this one road.

What is told (acks, events) is written in the transaction of what it tells. A message gets its PUBACK only when that
transaction is on disk. On a full disk nothing is acknowledged and everything runs on.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from device_agent.core.gate import Failed, Passed, Verdict
from device_agent.core.intake import Wanted, own_apps, unknown_scopes, want
from device_agent.core.policy import Policy
from device_agent.core.status import (
    Activity,
    label_revision,
    only_leftovers,
    orphan_volumes,
    report_adopted,
    report_app,
    report_removal,
    settled,
    specs,
)
from device_agent.core.wanted import Naming, WantedApp
from device_agent.model.errors import Refused, StoreFull
from device_agent.model.memory import AcceptedTarget, AppRecord, BadRelease, Floor, Memory
from device_agent.model.observed import Container, EngineEvent, Health, Observed, Status
from device_agent.model.report import Ack, AppReport, Happening, Have, State
from device_agent.model.steps import Plan
from device_agent.model.target import SCOPES, Identity
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
    Transaction,
    Transport,
)
from device_agent.runtime.commands import answer
from device_agent.runtime.host import HostWatch
from device_agent.runtime.inbox import (
    Event,
    Looked,
    PullEnded,
    Request,
    StepEnded,
    StopRequested,
    TailRead,
    ThreadDied,
)
from device_agent.runtime.intake import Intake
from device_agent.runtime.link import Link
from device_agent.runtime.reconciler import Reconciler
from device_agent.runtime.releases import Releases
from device_agent.runtime.rollout import Rollout, drift
from device_agent.runtime.workers import CALL, Workers
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.messages import Head, encode_ack, encode_event
from device_agent.wire.payload import DEFAULT_LIMITS, Limits
from device_agent.wire.topics import Topics

BEAT_S = 15.0
"""How often the loop shows that it is alive: the health check calls it dead after 90 s."""
FULL_S = 5.0
"""How soon a commit is tried again on a full disk."""
STOP_S = 6.0
"""How long the step in the middle may take at SIGTERM. A container that is being stopped for its replacement is killed
then, whatever its grace period: else the agent would be gone, and neither of the two would run."""
HURRY_S = 2.0
"""How long the replacement may then take to start. With the farewell all is less than the 10 s that engines give."""
FAREWELL_S = 1.5
TAIL_LINES = 10

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """What the agent needs of the settings."""

    identity: Identity
    topics: Topics
    naming: Naming
    policy: Policy = field(default_factory=Policy)
    limits: Limits = DEFAULT_LIMITS
    trusted: TrustedKeys | None = None


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
        self._engine = engine
        self._workers = workers
        self._inbox = inbox
        self._beat = beat
        self._beat_at = 0.0
        self._writes: list[Callable[[Transaction], None]] = []
        self._chores: list[Callable[[], None]] = []
        """What else the store has to do, after `_writes`: tried again like them while the disk is full."""
        self._write_at = 0.0
        self._tokens: list[object] = []
        """PUBACKs to send when `_writes` are on disk."""
        self._transport = transport
        self._tails: dict[str, str] = {}
        self._loops: dict[str, Container | None] = {}
        """By id, what crashes again and again: as it was seen, until its event is told, then None."""
        self._converged: tuple[bool, object] = (False, None)
        self._changed = True
        self._state: State | None = None
        self._stop_at: float | None = None
        self._hurried = False
        self.store_status = "ok"
        self.finished = False
        self.host = HostWatch(host, clock, self.tell)
        self.link = Link(transport, store, options.topics, clock, inbox.put)
        self.reconciler = Reconciler(
            engine=engine,
            workers=workers,
            clock=clock,
            put=inbox.put,
            stopping=self.stopping,
            keep=lambda attempt: self._write(lambda tx: tx.put_attempt(attempt)),
            forget=lambda app, subject: self._write(lambda tx: tx.drop_attempt(app, subject)),
        )
        self.rollout = Rollout({}, {})
        self.releases = Releases(clock, options.naming, self.rollout.apps)
        self._overtaken: set[str] = set()
        """Apps whose fresh plan is for what is no longer to run."""
        self.floors: dict[str, Floor] = {}
        self.intake = Intake(self)

    # Life.

    def start(self) -> None:
        """Load, begin to reconcile from what is stored, and only then think of the network."""
        self.remember(self.store.load())
        self.tick()
        self.link.start()

    def remember(self, memory: Memory) -> None:
        """Begin with what the store has: at the start, and after a restore."""
        self.rollout = Rollout(dict(memory.targets), dict(memory.apps))
        self.floors = dict(memory.floors)
        self.reconciler.rows = {(attempt.app, attempt.subject): attempt for attempt in memory.attempts}
        if memory.recovered:
            self.store_status = memory.recovered
            log.error("store recovered", how=memory.recovered)
            self.tell(Happening("store_recovered", {"message": memory.recovered}))
        self.releases = Releases(self.clock, self.options.naming, self.rollout.apps, dict(memory.bad))
        self.want(self._wanted_of_memory())
        self.reconciler.settled = self._settled()
        self._changed = True

    def want(self, wanted: Wanted) -> None:
        """Want this from now on; something else may be run in place of a part of it."""
        self.reconciler.held = frozenset(name for name, app in wanted.apps.items() if self.releases.held(app))
        unknown = unknown_scopes(self.floors, self.rollout.targets)
        running = self.releases.running(wanted)
        self.reconciler.gated = frozenset(name for name, app in running.items() if self.releases.gated(app))
        self.reconciler.want(wanted, unknown, running)

    def _wanted_of_memory(self) -> Wanted:
        targets = {scope: accepted.target for scope, accepted in self.rollout.targets.items()}
        try:
            return want(targets, self.options.naming, policy=None)
        except Refused as refused:
            # Accepted by another version of the agent: what runs is left alone until a target comes that is understood.
            log.warning("stored target not understood", code=refused.code, why=refused.message)
            self.store_status = f"the stored target is not understood: {refused.message}"
            return Wanted()

    def run(self) -> None:
        """Until a stop was requested and carried out. Raises `Died`."""
        self.start()
        while not self.finished:
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
            self.intake.settle_at,
            self.link.confirmed_due(),
            self._stop_at,
        ]
        if self._writes or self._chores:
            times.append(self._write_at)
        if self._changed or self.intake.unstored:
            times.append(max(self.link.state_due(), self._write_at if self.intake.unstored else 0.0))
        return min((time for time in times if time is not None), default=None)

    # One event.

    def handle(self, event: Event) -> None:  # noqa: C901, PLR0912 - a table of what can happen
        match event:
            case Connected():
                self.intake.connected()
                self.link.connected(event, self.have())
                self._changed = True
            case Disconnected():
                self.intake.disconnected()
                self.link.disconnected(event)
                if event.code == "duplicate_identity":
                    self.tell(Happening("duplicate_identity", {"message": event.message}))
            case Received():
                self.intake.received(event)
            case Published():
                self.link.published(event)
            case PullProgress():
                self.link.progress(event)
            case EngineEvent():
                self.reconciler.engine_event(event)
            case Looked():
                self._looked(event)
            case StepEnded():
                self.reconciler.step_ended(event)
                self._changed = True
            case PullEnded():
                self.reconciler.pull_ended(event)
                self._changed = True
            case TailRead():
                self._tail_read(event)
            case Request():
                event.reply(answer(self, event.verb, event.args))
            case StopRequested():
                self._stop()
            case ThreadDied():
                raise Died(f"{event.name} ended: {event.error}")

    def tick(self) -> None:
        """What is due: looking, settling, writing, sending."""
        now = self.clock.monotonic()
        if now >= self._beat_at:
            self._beat()
            self._beat_at = now + BEAT_S
        self.intake.tick()
        self.reconciler.tick()
        if self.host.tick() and self.link.host_is_news(self.host.figures):
            self._changed = True
        self._delete_confirmed(writing=bool(self._writes))
        self.flush()
        self.link.pump()
        if self._changed:
            self._state = self.state()
            self._changed = not self.link.report(self._state, self.host.figures)
        if self._stop_at is not None:
            self._go_on_stopping(now, self._stop_at)

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
            self._tell_progress(app, observed)
        self.reconciler.settled = self._settled()
        self.reconciler.act([app for app in planned if app not in self._overtaken])
        self._overtaken.clear()
        self._end_targets()
        self._read_tails(observed)
        wait_s = self.releases.next_wait_s()
        if wait_s is not None:
            self.reconciler.wake(wait_s)

    def _tell_progress(self, app: str, observed: Observed) -> None:
        plan = self.reconciler.plans.get(app)
        wanted = self.reconciler.running.get(app)
        if plan is None:
            return
        if wanted and app in self.reconciler.held:
            self._tell_all(self.rollout.held(app, "release_failed"))
            return
        verdict = self._judge(wanted, observed, plan) if wanted else None
        if isinstance(verdict, Failed):
            return
        if wanted is None:
            going = any(container.app == app for container in observed.containers)
            gone = only_leftovers(plan, None) and not going
            self._tell_all(self._gone(app) if gone else self.rollout.begun(app))
        elif isinstance(verdict, Passed) and settled(wanted, observed, plan):
            self._settle(wanted, observed)
        else:
            self._tell_unsettled(wanted, observed, plan)

    def _judge(self, wanted: WantedApp, observed: Observed, plan: Plan) -> Verdict:
        """The gate of its release; a failure, or a pass that lets more be done, is acted on with the next look."""
        verdict = self.releases.judge(wanted, observed, plan, self.reconciler.attempts())
        if isinstance(verdict, Failed):
            bad = self.releases.failed(wanted, verdict)
            self._write(lambda tx: tx.put_bad(bad))
            self._tell_all(self.rollout.failed(wanted.name, bad))
            self._overtaken.add(wanted.name)
            self.want(self.reconciler.wanted)
        elif isinstance(verdict, Passed) and wanted.name in self.reconciler.gated:
            self.reconciler.gated -= {wanted.name}
            self.reconciler.wake()
        return verdict

    def _settle(self, wanted: WantedApp, observed: Observed) -> None:
        """What is to run does, and has proved good."""
        published = self.reconciler.wanted.apps[wanted.name]
        bad = self.releases.rolled_back(published)
        if bad:
            acks, changed = self.rollout.rolled_back(wanted.name, bad, self.rollout.apps[wanted.name])
            self._tell_all(acks)
            self._write_targets(changed)
            return
        self._arrived(wanted.name)
        record = self.rollout.settled(wanted, specs(wanted, observed))
        if record:
            self._write(lambda tx: tx.put_app(record))

    def _tell_unsettled(self, wanted: WantedApp, observed: Observed, plan: Plan) -> None:
        if self.rollout.is_repair(wanted.name, wanted.digest):
            for step in plan.steps:
                if not step.until:
                    log.warning("drift", app=wanted.name, subject=step.subject, why=step.cause)
                    self.tell(drift(wanted.name, step.subject, step.cause))
                    break
        if plan.steps or plan.blocked:
            self._tell_all(self.rollout.begun(wanted.name))
        report = report_app(wanted, observed, self.activity(plan), None)
        self._tell_all(self.rollout.failing(wanted.name, report))

    def _gone(self, app: str) -> list[Ack]:
        self._arrived(app)
        if app in self.rollout.apps:
            del self.rollout.apps[app]
            self._write(lambda tx: tx.drop_app(app))
        if self.releases.bad.pop(app, None):
            self._write(lambda tx: tx.drop_bad(app))
        self.releases.forget_gate(app)
        return []

    def _arrived(self, app: str) -> None:
        acks, changed = self.rollout.arrived(app)
        self._tell_all(acks)
        self._write_targets(changed)

    def _write_targets(self, changed: list[AcceptedTarget]) -> None:
        for accepted in changed:
            self._write(lambda tx, accepted=accepted: tx.put_target(accepted))  # type: ignore[misc]

    def _end_targets(self) -> None:
        observed = self.reconciler.observed
        there = own_apps(observed) if observed else set()
        for scope in SCOPES:
            accepted = self.rollout.targets.get(scope)
            for app in accepted.awaited if accepted else ():
                if app not in there and app not in self.reconciler.wanted.apps:
                    self._gone(app)
        acks, changed = self.rollout.ended({bad.revision for bad in self.releases.bad.values()})
        if not changed:
            return
        self._tell_all(acks)
        self._write_targets(changed)
        self._chores.append(lambda: self.store.remember_good(self.rollout.applied))
        self.flush()

    def _raise_floors(self, observed: Observed) -> None:
        """The labels of what runs are a lower bound, should database and sidecar both be lost."""
        for container in observed.containers:
            told = label_revision(container.revision)
            if told is None or told[0] not in SCOPES:
                continue
            scope, version = told
            if scope not in self.floors or self.floors[scope].version < version:
                floor = self.floors[scope] = Floor(version)
                self._chores.append(lambda scope=scope, floor=floor: self.store.raise_floor(scope, floor))  # type: ignore[misc]
                self.reconciler.unknown = unknown_scopes(self.floors, self.rollout.targets)

    def _settled(self) -> dict[str, Mapping[str, str]]:
        return {name: record.specs for name, record in self.rollout.apps.items()}

    def _read_tails(self, observed: Observed) -> None:
        """The last lines of what crashes: once for each spell, not once for each crash."""
        for container in observed.containers:
            troubled = (
                container.status is Status.RESTARTING
                or container.health is Health.UNHEALTHY
                or (container.status is Status.EXITED and container.exit_code)
            )
            if not troubled:
                if container.status is Status.RUNNING and container.restarts == 0:
                    self._tails.pop(container.id, None)
                    self._loops.pop(container.id, None)
            elif container.id not in self._tails or self._begins_to_loop(container):
                self._tails.setdefault(container.id, "")
                if self._begins_to_loop(container):
                    self._loops[container.id] = container
                self._workers.submit(CALL, lambda id_=container.id: self._read_tail(id_))  # type: ignore[misc]
        for gone in self._tails.keys() - {c.id for c in observed.containers}:
            del self._tails[gone]
            self._loops.pop(gone, None)

    def _begins_to_loop(self, container: Container) -> bool:
        return container.status is Status.RESTARTING and container.id not in self._loops

    def _read_tail(self, container_id: str) -> None:
        try:
            text = self._engine.tail(container_id, TAIL_LINES)
        except Exception as error:  # noqa: BLE001 - for people only: what cannot be read is said
            text = f"(not readable: {error})"
        self._inbox.put(TailRead(container_id, text))

    def _tail_read(self, event: TailRead) -> None:
        if event.container_id not in self._tails:
            return
        self._tails[event.container_id] = event.text
        self._changed = True
        # As it was when it was seen restarting: by now it may run again, until its next crash.
        container = self._loops.get(event.container_id)
        if container is not None:
            self._loops[event.container_id] = None
            self.tell(
                Happening(
                    "crash_loop",
                    {
                        "app": container.app,
                        "service": container.service,
                        "container": container.name,
                        "exit_code": container.exit_code,
                        "restarts": container.restarts,
                        "log": event.text,
                    },
                )
            )

    # Telling.

    def tell(self, happening: Happening) -> None:
        """Queue an event."""
        at, session = self.clock.now(), self.link.session or 0
        device = self.options.identity.device
        self._write(lambda tx: tx.queue("event", lambda seq: encode_event(happening, Head(device, session, seq, at))))

    def tell_ack(self, ack: Ack) -> None:
        log.info("ack", **{k: str(v) for k, v in _words(ack).items()})
        self._write(self.queue_ack(ack))

    def queue_ack(self, ack: Ack) -> Callable[[Transaction], None]:
        at, session = self.clock.now(), self.link.session or 0
        device = self.options.identity.device
        return lambda tx: tx.queue(
            "ack", lambda seq: encode_ack(ack, Head(device, session, seq, at)), terminal=ack.terminal
        )

    def _tell_all(self, acks: list[Ack]) -> None:
        for ack in acks:
            self.tell_ack(ack)

    def _write(self, write: Callable[[Transaction], None]) -> None:
        self._writes.append(write)

    def acknowledge(self, token: object) -> None:
        """PUBACK a message as soon as what it led to is on disk."""
        self._tokens.append(token)

    def _delete_confirmed(self, *, writing: bool) -> None:
        for row in self.link.confirmed(writing=writing):
            self._write(lambda tx, row=row: tx.unqueue(row))  # type: ignore[misc]

    def flush(self) -> None:
        """Everything that has come together, in one transaction."""
        if (self._writes or self._chores) and self.may_write:
            try:
                if self._writes:
                    self.commit()
                while self._chores:
                    self._chores[0]()
                    del self._chores[0]
                self.store_ok()
            except StoreFull as full:
                self.store_full(full)
        if not self._writes:
            tokens, self._tokens = self._tokens, []
            for token in tokens:
                self._transport.acknowledge(token)

    def commit(self, *more: Callable[[Transaction], None]) -> None:
        """What has come together, and then `more`, in one transaction: nothing that came first is written after it.

        Raises `StoreFull`; then what has come together is still to be written, and `more` is the caller's.
        """
        with self.store.transaction() as tx:
            for write in (*self._writes, *more):
                write(tx)
        self._writes.clear()
        self.store_ok()

    def state_changed(self) -> None:
        self._changed = True

    def store_full(self, full: StoreFull) -> None:
        if self.store_status != "full":
            log.error("store full", why=str(full), next=f"tried again in {FULL_S:g} s; what runs runs on")
        self.store_status = "full"
        self._write_at = self.clock.monotonic() + FULL_S
        self._changed = True

    def store_ok(self) -> None:
        if self.store_status == "full":
            self.store_status = "ok"
            self._changed = True

    @property
    def may_write(self) -> bool:
        return self.clock.monotonic() >= self._write_at

    # The whole truth.

    def have(self) -> dict[str, Have | None]:
        targets = self.rollout.targets
        return {
            scope: Have(targets[scope].target.version, targets[scope].target.digest) if scope in targets else None
            for scope in SCOPES
        }

    def state(self) -> State:
        reconciler = self.reconciler
        observed = reconciler.observed or Observed()
        apps: dict[str, AppReport] = {}
        left_alone = reconciler.left_alone()
        for name in sorted(left_alone):
            apps[name] = report_adopted(name, observed)
        for name, wanted in reconciler.running.items():
            if name not in left_alone:
                record = self.rollout.apps.get(name)
                activity = self.activity(reconciler.plans.get(name, Plan(name)))
                notes = tuple(p for p in reconciler.wanted.warnings if p.pointer.startswith(f"/apps/{name}/"))
                apps[name] = report_app(wanted, observed, activity, _previous(record, wanted), notes)
        for name, plan in reconciler.plans.items():
            if name not in apps and plan.steps:
                apps[name] = report_removal(name, observed, self.activity(plan))
        converged = (
            reconciler.observed is not None
            and not reconciler.away
            and not left_alone
            and not reconciler.runs
            and not any(self._failed_release(name) for name in reconciler.wanted.apps)
            and all(app.phase == "settled" for name, app in apps.items() if name in reconciler.wanted.apps)
            and all(only_leftovers(plan, reconciler.wanted.apps.get(app)) for app, plan in reconciler.plans.items())
        )
        if self._converged[0] != converged or self._converged[1] is None:
            self._converged = (converged, self.clock.now())
        return State(
            have=self.have(),
            effective_digest=reconciler.wanted.digest,
            converged=converged,
            since=self._converged[1],  # type: ignore[arg-type]
            apps=dict(sorted(apps.items())),
            orphan_volumes=orphan_volumes(reconciler.wanted.apps, observed) if reconciler.wanted.targets else (),
            store=self.store_status,
            engine="away" if reconciler.away else "ok",
        )

    def activity(self, plan: Plan) -> Activity:
        """What goes on in the app of a plan."""
        run = self.reconciler.runs.get(plan.app)
        flying = frozenset(run.flying) if run else frozenset[str]()
        gated, held = plan.app in self.reconciler.gated, plan.app in self.reconciler.held
        bad = self._failed_release(plan.app)
        return Activity(plan, self.reconciler.attempts(), flying, self._tails, gated, held, bad)

    def _failed_release(self, app: str) -> BadRelease | None:
        wanted = self.reconciler.wanted.apps.get(app)
        return (self.releases.rolled_back(wanted) or self.releases.held(wanted)) if wanted else None

    # Ending.

    def _stop(self) -> None:
        if self._stop_at is None:
            log.info("stopping", next="the step in the middle is finished; applications keep running")
            self._stop_at = self.clock.monotonic() + STOP_S
            self.reconciler.stop()

    def _go_on_stopping(self, now: float, stop_at: float) -> None:
        if not self.reconciler.busy:
            self._finish()
        elif now >= stop_at and not self._hurried:
            self._hurried = True
            self._stop_at = now + HURRY_S
            self.reconciler.hurry()
        elif now >= stop_at:
            self._finish()

    def _finish(self) -> None:
        self.stopping.set()
        self._delete_confirmed(writing=True)
        self.flush()
        self.link.stop(FAREWELL_S)
        self.store.close()
        self.finished = True


def _previous(record: AppRecord | None, wanted: WantedApp) -> str | None:
    if record is None:
        return None
    return record.release if record.release != wanted.release else record.previous


def _words(ack: Ack) -> dict[str, object]:
    fields = ("verdict", "scope", "version", "release", "app", "service", "code", "message", "attempt")
    return {name: value for name in fields if (value := getattr(ack, name)) is not None}
