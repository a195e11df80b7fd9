"""Observe → plan → act, for all apps: the part of the owner loop that drives the engine.

Threads: every method runs in the owner loop. Engine calls run on workers and come back as events.

Invariants
1. An app is planned only from an observation that began after its last step ended, and never while a step of it flies:
   so there is one writer to each container, and no step is planned from what its own predecessor has outdated.
2. Nothing is concluded from an engine that is away, and nothing is removed before a target is known.
3. Apps do not wait for each other: each has its own run, its own attempts, and its share of the workers.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import structlog

from device_agent.core.backoff import CAP, CAP_S, Attempts, due
from device_agent.core.draft import image_subject
from device_agent.core.holds import keep_running
from device_agent.core.images import next_refresh
from device_agent.core.intake import Wanted, adopted_apps, own_apps
from device_agent.core.planner import plan_app, plan_removal
from device_agent.core.status import only_leftovers
from device_agent.core.wanted import WantedApp
from device_agent.model.errors import Cancelled, EngineAway, EngineError, Kind
from device_agent.model.memory import Attempt
from device_agent.model.observed import Container, EngineEvent, Observed
from device_agent.model.steps import Plan, Pull, Remove, Step, Stop
from device_agent.model.target import printed_revision
from device_agent.ports import Clock, Engine, PullProgress
from device_agent.runtime.execute import delay_s, execute, lane
from device_agent.runtime.holds import Choice
from device_agent.runtime.images import Images
from device_agent.runtime.inbox import Looked, PullEnded, Put, StepEnded
from device_agent.runtime.room import DISK_SHORT, Room
from device_agent.runtime.run import Run
from device_agent.runtime.workers import CALL, PULL, Workers

DEBOUNCE_S = 0.025
"""Engine events that come together are one pass."""
DEEP_S = 600.0
"""How often everything is inspected, events or not."""
UNSETTLED_S = 60.0
"""How often it is looked again while something is blocked by what sends no event."""
AWAY_S = 2.0

_SURPRISES = frozenset(("die", "destroy", "oom", "kill", "stop", "pause", "unpause", "rename", "health_status"))

log = structlog.get_logger()


@dataclass(slots=True)
class _Look:
    """When and how closely to look next."""

    at: float | None = 0.0
    stale: frozenset[str] = frozenset()
    deep: bool = False
    flying: bool = False
    number: int = 0


@dataclass(slots=True)
class Reconciler:
    engine: Engine
    workers: Workers
    clock: Clock
    put: Put
    stopping: threading.Event
    keep: Callable[[Attempt], None]
    """An attempt to persist."""
    forget: Callable[[str, str], None]
    """An attempt (app, subject) that is over."""
    images: Images
    room: Room
    make_room: Callable[[], bool]
    """Remove what nothing wants any more; says whether there is anything to wait for."""
    choose: Callable[[str, WantedApp | None], Choice]
    """Called before an app is planned, with its content where nothing holds it."""
    ask_locks: Callable[[str, tuple[Container, ...]], None]
    """Find out whether these containers of an app may be stopped: `locks_read` is called with the answer."""
    wanted: Wanted = field(default_factory=Wanted)
    unknown: frozenset[str] = frozenset()
    """Scopes whose target was lost."""
    content: Mapping[str, WantedApp] = field(default_factory=dict)
    """The wanted apps, or what they are rolled back to."""
    running: dict[str, WantedApp] = field(default_factory=dict)
    """What is to run: the content, or while that is held what settled before."""
    choices: dict[str, Choice] = field(default_factory=dict)
    """By app, of its newest plan."""
    gated: frozenset[str] = frozenset()
    """Apps whose release has not passed its gate."""
    held: frozenset[str] = frozenset()
    """Apps that are left as they are."""
    settled: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """App → service → spec as last settled."""
    rows: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    observed: Observed | None = None
    away: str = ""
    plans: dict[str, Plan] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    pulls: dict[str, threading.Event] = field(default_factory=dict)
    stopped: bool = False
    _look: _Look = field(default_factory=_Look)
    _outdated: dict[str, int] = field(default_factory=dict)
    """App → the number of the look that was the newest when its last step ended."""
    _deep_at: float = 0.0
    _woke_for: dict[tuple[str, str], datetime] = field(default_factory=dict)

    # What wakes it.

    def want(self, wanted: Wanted, unknown: frozenset[str], content: Mapping[str, WantedApp]) -> None:
        """Something else is wanted now: what is under way for anything else is overtaken."""
        before = dict(self.running)
        self.wanted, self.unknown, self.content = wanted, unknown, content
        for app in before.keys() | content.keys():
            self._choose(app)
        for app, run in self.runs.items():
            if _differs(before.get(app), self.running.get(app)):
                run.draining = True
        apps = (*content.values(), *self.running.values())
        self._cancel_pulls_of({service.image for app in apps for service in app.services.values()})
        self.wake()

    def wake(self, delay_s: float = 0.0, *, stale: frozenset[str] = frozenset(), deep: bool = False) -> None:
        """Look at the engine after `delay_s`, or sooner if that was planned before."""
        at = self.clock.monotonic() + delay_s
        self._look.at = at if self._look.at is None else min(at, self._look.at)
        self._look.stale |= stale
        self._look.deep |= deep

    def engine_event(self, event: EngineEvent) -> None:
        if event.kind == "stream":
            # What was observed before the stream stood may be outdated; the first time, nothing was inspected long ago.
            self.wake(deep=self.observed is not None and bool(self._look.number > 1))
            return
        stale = frozenset({event.id}) if event.kind == "container" else frozenset[str]()
        run = self.runs.get(event.app or "")
        if run is None:
            self.wake(DEBOUNCE_S, stale=stale)
            return
        self._look.stale |= stale
        surprise = event.kind == "container" and event.action.partition(":")[0] in _SURPRISES
        if surprise and not run.touches(event.id):
            run.draining = True

    def next_due(self) -> float | None:
        """Monotonic time of the next thing to do by itself; None while a look is on its way: its end is an event."""
        if self.stopped or self._look.flying:
            return None
        times = [self._deep_at]
        if self._look.at is not None:
            times.append(self._look.at)
        now, wall = self.clock.monotonic(), self.clock.now()
        for attempt in self._not_yet_due():
            left = (attempt.next_at - wall).total_seconds()
            times.append(now + (left if 0 <= left <= CAP_S else 0.0))
        return min(times)

    def tick(self) -> None:
        """Look when it is time to."""
        if self.stopped or self._look.flying:
            return
        now = self.clock.monotonic()
        if now >= self._deep_at:
            self._deep_at = now + DEEP_S
            self.wake(deep=self._look.number > 0)
        for attempt in self._not_yet_due():
            if due(attempt, self.clock.now()):
                self._woke_for[attempt.app, attempt.subject] = attempt.next_at
                self.wake()
        if self._look.at is not None and now >= self._look.at:
            self._look_now()

    def _not_yet_due(self) -> list[Attempt]:
        """Attempts whose time has not woken us yet: one that is due can still have to wait for something else."""
        return [row for key, row in self.rows.items() if self._woke_for.get(key) != row.next_at]

    # Observing.

    def _look_now(self) -> None:
        look = self._look
        number = look.number + 1
        stale = None if look.deep else look.stale
        self._look = _Look(at=None, flying=True, number=number)

        def job() -> None:
            try:
                self.put(Looked(number, self.engine.observe(stale)))
            except (EngineAway, EngineError) as error:
                self.put(Looked(number, None, str(error)))

        self.workers.submit(CALL, job)

    def looked(self, event: Looked) -> list[str]:
        """Plan every app that this look is good for. Returns them."""
        self._look.flying = False
        if event.observed is None:
            if not self.away:
                log.warning("engine away", why=event.why, next="asked again until it answers")
            self.away = event.why
            self.wake(AWAY_S, deep=True)
            return []
        if self.away:
            log.info("engine back")
        self.away = ""
        self.observed = event.observed
        self.images.seen(event.observed.images)
        if self.stopped:
            return []
        planned = [app for app in self._apps(event.observed) if self._plan(app, event.number)]
        self._forget_what_is_over()
        needed = {s.action.image for plan in self.plans.values() for s in plan.steps if isinstance(s.action, Pull)}
        self._cancel_pulls_of(needed)
        if any(plan.blocked or plan.steps for plan in self.plans.values()) and not self.runs:
            self.wake(UNSETTLED_S)
        now = self.clock.now()
        refresh_at = next_refresh(self.running.values(), self.images.pulled, now)
        if refresh_at:
            self.wake((refresh_at - now).total_seconds())
        return planned

    def _apps(self, observed: Observed) -> Iterator[str]:
        there = own_apps(observed)
        for gone in self.plans.keys() - there - self.wanted.apps.keys():
            del self.plans[gone]
        yield from sorted(there | self.wanted.apps.keys())

    def left_alone(self) -> frozenset[str]:
        """Own apps about which nothing may be concluded, because what they were made for is not known here."""
        if self.observed is None:
            return frozenset()
        if not self.wanted.targets:
            return frozenset(c.app for c in self.observed.containers)
        return adopted_apps(self.observed, self.unknown)

    @property
    def may_conclude(self) -> bool:
        """Whether it is known what is wanted here, and what there is."""
        return self.observed is not None and not self.away and bool(self.wanted.targets) and not self.unknown

    @property
    def at_rest(self) -> bool:
        """Whether everything that is to run has proved good, and nothing is under way."""
        busy = self.runs or self.pulls or self.gated
        left = (only_leftovers(plan, self.running.get(app)) for app, plan in self.plans.items())
        return self.may_conclude and not busy and all(left)

    def _plan(self, app: str, look: int) -> bool:
        if app in self.runs or self._outdated.get(app, 0) >= look:
            return False
        observed = self.observed or Observed()
        if app in self.left_alone() or (not self.wanted.targets and app not in self.wanted.apps):
            self.plans.pop(app, None)
            return True
        self.plans[app] = self._planned(app, self._choose(app), observed)
        return True

    def _choose(self, app: str) -> Choice:
        choice = self.choices[app] = self.choose(app, self.content.get(app))
        if choice.content is None:
            self.running.pop(app, None)
        else:
            self.running[app] = choice.content
        return choice

    def _planned(self, app: str, choice: Choice, observed: Observed) -> Plan:
        attempts, content = self.attempts(), choice.content
        if app in self.held or choice.idle:
            plan = Plan(app)
        elif content:
            gated = app in self.gated and content is self.content.get(app)
            specs, pulled = self.settled.get(app, {}), self.images.pulled
            plan = plan_app(content, observed, attempts, specs, gated=gated, pulled=pulled)
        else:
            plan = plan_removal(app, observed, attempts)
        planned = {step.id for step in plan.steps}
        fetch = (step for step in choice.ahead if step.id not in planned)
        return keep_running(replace(plan, steps=(*fetch, *plan.steps)), choice.locked)

    def forget_attempts(self, app: str, subjects: Collection[str]) -> int:
        """Try these subjects of an app, and its images among them, without waiting any longer. How many there were."""
        keys = [key for key in self.rows if key[0] in ("", app) and key[1] in subjects]
        for key in keys:
            del self.rows[key]
            self._woke_for.pop(key, None)
            self.forget(*key)
        return len(keys)

    def attempts(self) -> Attempts:
        return Attempts(self.clock.now(), self.rows)

    def _forget_what_is_over(self) -> None:
        """An attempt is over when nothing of it is planned any more and its next time has passed: its probation."""
        now = self.clock.now()
        active = {(plan.app, step.subject) for plan in self.plans.values() for step in plan.steps if not _kept(step)}
        active |= {("", s.subject) for plan in self.plans.values() for s in plan.steps if isinstance(s.action, Pull)}
        for key, attempt in list(self.rows.items()):
            if key in active or attempt.app in self.runs or self._on_probation(attempt, now):
                continue
            if due(attempt, now):
                del self.rows[key]
                self._woke_for.pop(key, None)
                self.forget(*key)

    def _on_probation(self, attempt: Attempt, now: datetime) -> bool:
        """A one-shot that runs is not good yet: it may fail again in a moment, and then waits longer than before."""
        wanted = self.wanted.apps.get(attempt.app)
        service = wanted.services.get(attempt.subject) if wanted else None
        if service is None or not service.service.one_shot or now >= attempt.next_at + CAP:
            return False
        containers = self.observed.containers if self.observed else ()
        return any(c.up and c.spec == attempt.spec and c.app == attempt.app for c in containers)

    # Acting.

    def act(self, planned: list[str]) -> None:
        """Start what the fresh plans of these apps say can be done now."""
        for app in planned:
            plan = self.plans.get(app, Plan(app))
            for step in plan.steps:
                if isinstance(step.action, Pull) and not step.until and not step.after:
                    self._pull(step.action)
            ask = {container.id for container in self.choices[app].ask} if app in self.choices else set[str]()
            guarded = (s.id for s in plan.steps if isinstance(s.action, Stop) and s.action.id in ask)
            run = Run(plan, guarded=frozenset(guarded))
            if not run.over:
                self.runs[app] = run
                self._go_on(app, run)

    def _go_on(self, app: str, run: Run) -> None:
        """Everything of a run that can go now; when nothing more can, it is looked again."""
        for step in run.ready():
            self._dispatch(app, run, step)
        if run.must_ask():
            run.asking = True
            self.ask_locks(app, self.choices[app].ask)
        if run.over:
            del self.runs[app]
            self._outdated[app] = self._look.number
            self.wake()

    def locks_read(self, app: str, *, free: bool) -> None:
        """Whether what a run waits to stop may be stopped. If not, nothing more of it is."""
        run = self.runs.get(app)
        if run is None:
            return
        run.asking = False
        if free:
            run.guarded = frozenset()
        else:
            run.draining = True
        self._go_on(app, run)

    def _dispatch(self, app: str, run: Run, step: Step) -> None:
        run.flying[step.id] = step
        log.info("step", app=app, step=step.id, cause=step.cause)

        def job() -> None:
            try:
                execute(step.action, self.engine, self.stopping)
            except EngineAway:
                self.put(StepEnded(app, step, away=True))
            except EngineError as error:
                self.put(StepEnded(app, step, error))
            else:
                self.put(StepEnded(app, step))

        self.workers.submit(lane(step.action), job)

    def step_ended(self, event: StepEnded) -> None:
        """Go on with the run, or end it and look again."""
        run = self.runs[event.app]
        del run.flying[event.step.id]
        if event.away:
            run.failed.add(event.step.id)
            run.draining = True
        elif event.error:
            run.failed.add(event.step.id)
            self._failed(event.app, event.step.subject, event.step.spec, event.error)
        else:
            run.done.add(event.step.id)
            if event.step.again:
                ended = EngineError("exited", event.step.cause, Kind.OUTSIDE)
                self._failed(event.app, event.step.subject, event.step.spec, ended)
        self._go_on(event.app, run)

    def _failed(self, app: str, subject: str, spec: str, error: EngineError) -> None:
        before = self.rows.get((app, subject))
        count = before.count + 1 if before and before.spec == spec else 1
        now = self.clock.now()
        next_at = now + timedelta(seconds=delay_s(count, error.kind))
        attempt = Attempt(app, subject, spec, count, error.code, error.message, next_at, now)
        self.rows[app, subject] = attempt
        self.keep(attempt)
        log.warning(
            "attempt",
            app=app or None,
            subject=subject,
            code=error.code,
            message=error.message,
            attempt=count,
            next_try_at=next_at.isoformat(timespec="milliseconds"),
        )

    def _pull(self, pull: Pull) -> None:
        image = pull.image
        if image in self.pulls:
            return
        cancel = self.pulls[image] = threading.Event()
        log.info("pull", image=image, platform=pull.platform)
        revisions = {printed_revision(scope, target.version) for scope, target in self.wanted.targets.items()}
        self.images.begin(pull, self.observed.images if self.observed else {}, frozenset(revisions))

        def told(progress: PullProgress) -> None:
            self.room.progress(progress)
            self.put(progress)

        def job() -> None:
            try:
                self.room.claim(pull)
                ended = PullEnded(image, self.engine.pull(image, pull.platform, told, cancel))
            except Cancelled:
                self.put(PullEnded(image, cancelled=True))
            except EngineAway:
                self.put(PullEnded(image, away=True))
            except EngineError as error:
                self.put(PullEnded(image, error=error))
            else:
                self.put(ended)
            finally:
                self.room.leave(image)

        self.workers.submit(PULL, job)

    def pull_ended(self, event: PullEnded) -> None:
        self.pulls.pop(event.image, None)
        self.images.ended(event)
        if event.error and event.error.code == DISK_SHORT and self.make_room():
            log.info("pull waits", image=event.image, why=event.error.message, next="what nothing wants is removed")
            return  # the end of the removal wakes
        if event.error:
            self._failed("", image_subject(event.image), event.image, event.error)
        self.wake(AWAY_S if event.away else 0.0)

    def _cancel_pulls_of(self, needed: set[str]) -> None:
        for image, cancel in self.pulls.items():
            if image not in needed:
                cancel.set()

    # Ending.

    def stop(self) -> None:
        """No new step; what is in the middle of a replacement is finished."""
        self.stopped = True
        for run in self.runs.values():
            run.draining = True
        for cancel in self.pulls.values():
            cancel.set()

    def hurry(self) -> None:
        """There is no time left for a stop in the middle to end by itself: it ends now, for its replacement to run."""
        for run in self.runs.values():
            awaited = {id_ for step in run.plan.steps if step.commits for id_ in step.after}
            for step in run.flying.values():
                # One that is only to go has all of its grace: the engine sees to it without us.
                if isinstance(step.action, Stop) and step.id in awaited:
                    self.workers.submit(CALL, partial(self._kill, step.action.id))

    def _kill(self, container_id: str) -> None:
        # What becomes of it is told by the stop that is under way.
        with suppress(EngineAway, EngineError):
            self.engine.stop(container_id, 0.0)

    @property
    def busy(self) -> bool:
        return any(run.flying for run in self.runs.values())


def _differs(before: WantedApp | None, after: WantedApp | None) -> bool:
    """Whether what is under way for the one is of no use for the other."""
    if before is None or after is None:
        return True
    said = ([(s.stopped, s.anew) for s in app.services.values()] for app in (before, after))
    return before.digest != after.digest or next(said) != next(said)


def _kept(step: Step) -> bool:
    """What was replaced is kept until its replacement is good: nothing is being tried with it."""
    return isinstance(step.action, Remove) and bool(step.until)
