"""Observe → plan → act, for all apps: the part of the owner loop that drives the engine.

Its parts: `looks` observe, `acting` carries the plans out, `pulls` fetch images for all of them, `retries` remember
what failed.

Threads: every method runs in the owner loop. Engine calls run on workers and come back as events.

Invariants
1. An app is planned only from an observation that began after its last step ended, and never while a step of it flies:
   so there is one writer to each container, and no step is planned from what its own predecessor has outdated.
2. Nothing is concluded from an engine that is away, and nothing is removed before a target is known.
3. Apps do not wait for each other: each has its own run, its own attempts, and its share of the workers.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import InitVar, dataclass, field, replace

import structlog

from device_agent.core.draft import image_subject
from device_agent.core.holds import keep_running
from device_agent.core.images import next_refresh
from device_agent.core.intake import Wanted, adopted_apps, own_apps
from device_agent.core.planner import plan_app, plan_removal
from device_agent.core.probation import over
from device_agent.core.status import only_leftovers
from device_agent.core.wanted import WantedApp
from device_agent.model.memory import Attempt
from device_agent.model.observed import Container, EngineEvent, Observed, Status
from device_agent.model.steps import Plan, Pull
from device_agent.model.target import printed_revision
from device_agent.ports import Clock, Engine
from device_agent.runtime.acting import Acting
from device_agent.runtime.holds import Choice
from device_agent.runtime.images import Images
from device_agent.runtime.inbox import Looked, PullEnded, Put
from device_agent.runtime.looks import Looks
from device_agent.runtime.pulls import Pulls
from device_agent.runtime.retries import Retries
from device_agent.runtime.room import Room
from device_agent.runtime.workers import Workers

DEBOUNCE_S = 0.025
"""Engine events that come together are one pass."""
UNSETTLED_S = 60.0
"""How often it is looked again while something is blocked by what sends no event."""
BUSY_S = 5.0
"""How often it is looked while every app is being worked at: a long stop must not hide what happens meanwhile."""
AWAY_S = 2.0
_GOING = (Status.REMOVING, Status.DEAD)

log = structlog.get_logger()


@dataclass(slots=True)
class Reconciler:
    engine: Engine
    workers: Workers
    clock: Clock
    put: Put
    stopping: InitVar[threading.Event]
    keep: InitVar[Callable[[Attempt], None]]
    forget: InitVar[Callable[[str, str], None]]
    """See `Retries`."""
    images: Images
    room: InitVar[Room]
    make_room: InitVar[Callable[[], bool]]
    """See `Pulls`."""
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
    observed: Observed | None = None
    away: str = ""
    plans: dict[str, Plan] = field(default_factory=dict)
    stopped: bool = False
    looks: Looks = field(init=False)
    retries: Retries = field(init=False)
    pulls: Pulls = field(init=False)
    acting: Acting = field(init=False)
    _outdated: dict[str, int] = field(default_factory=dict)
    """App → the number of the look that was the newest when its last step ended."""

    def __post_init__(
        self,
        stopping: threading.Event,
        keep: Callable[[Attempt], None],
        forget: Callable[[str, str], None],
        room: Room,
        make_room: Callable[[], bool],
    ) -> None:
        engine, workers, put = self.engine, self.workers, self.put
        self.looks = Looks(engine, workers, self.clock, put)
        self.retries = Retries(self.clock, keep, forget)
        self.pulls = Pulls(engine, workers, put, self.images, room, make_room)
        self.acting = Acting(engine, workers, put, stopping, self.retries, self._ask_locks, self._run_over)

    # What wakes it.

    def want(self, wanted: Wanted, unknown: frozenset[str], content: Mapping[str, WantedApp]) -> None:
        """Something else is wanted now: what is under way for anything else is overtaken."""
        before = dict(self.running)
        self.wanted, self.unknown, self.content = wanted, unknown, content
        for app in before.keys() | content.keys():
            self._choose(app)
        differ = (app for app in self.acting.runs if _differs(before.get(app), self.running.get(app)))
        self.acting.overtake(frozenset(differ))
        apps = (*content.values(), *self.running.values())
        self.pulls.cancel_all_but({service.image for app in apps for service in app.services.values()})
        self.wake()

    def wake(self, delay_s: float = 0.0) -> None:
        """Look at the engine after `delay_s`, or sooner if that was planned before."""
        self.looks.wake(delay_s)

    def engine_event(self, event: EngineEvent) -> None:
        if event.kind == "stream":
            # What was observed before the stream stood may be outdated; the first time, nothing was inspected long ago.
            self.looks.wake(deep=self.observed is not None and self.looks.number > 1)
            return
        stale = frozenset({event.id}) if event.kind == "container" else frozenset[str]()
        if event.app in self.acting.runs:
            self.looks.wake(BUSY_S, stale=stale)
            self.acting.surprised(event)
        else:
            self.looks.wake(DEBOUNCE_S, stale=stale)

    def next_due(self) -> float | None:
        """Monotonic time of the next thing to do by itself; None while a look is on its way: its end is an event."""
        if self.stopped or self.looks.flying:
            return None
        retry = self.retries.next_due()
        due = self.looks.next_due() if retry is None else min(retry, self.looks.next_due())
        return max(due, self._not_before)

    def tick(self) -> None:
        """Look when it is time to."""
        if self.stopped or self.looks.flying or self.clock.monotonic() < self._not_before:
            return
        if self.retries.come_due():
            self.wake()
        self.looks.tick()

    @property
    def _not_before(self) -> float:
        """While every app is being worked at no look could plan one: only now and then one is made, to tell of it.

        The end of each run asks for one.
        """
        if not self.acting.runs or self.observed is None or self.away:
            return 0.0
        busy = own_apps(self.observed) | self.wanted.apps.keys() <= self.acting.runs.keys()
        return self.looks.begun_at + BUSY_S if busy else 0.0

    # Observing.

    def looked(self, event: Looked) -> list[str]:
        """Plan every app that this look is good for. Returns them."""
        self.looks.flying = False
        if event.observed is None:
            if not self.away:
                log.warning("engine away", why=event.why, next="asked again until it answers")
            self.away = event.why
            self.looks.wake(AWAY_S, deep=True)
            return []
        if self.away:
            log.info("engine back")
        self.away = ""
        self.observed = event.observed
        self.images.seen(event.observed.images)
        if self.stopped:
            return []
        planned = [app for app in self._apps(event.observed) if self._plan(app, event.number)]
        plans, busy, apps = self.plans.values(), self.acting.runs.keys(), self.wanted.apps
        self.retries.drop(over(self.retries.attempts(), plans, busy, apps, event.observed))
        needed = {s.action.image for plan in self.plans.values() for s in plan.steps if isinstance(s.action, Pull)}
        self.pulls.cancel_all_but(needed)
        unsettled = any(plan.blocked or not self.only_leftovers(app) for app, plan in self.plans.items())
        if unsettled and not self.acting.runs:
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
        busy = self.acting.runs or self.pulls.under_way or self.gated
        return self.may_conclude and not busy and all(map(self.only_leftovers, self.plans))

    def only_leftovers(self, app: str) -> bool:
        """Whether all that there is to do for an app, or is being done, holds nothing up."""
        return only_leftovers(self.plans[app], self.running.get(app), self.retries.attempts())

    def _plan(self, app: str, look: int) -> bool:
        if app in self.acting.runs or self._outdated.get(app, 0) >= look:
            return False
        if app in self.left_alone() or (not self.wanted.targets and app not in self.wanted.apps):
            self.plans.pop(app, None)
            return True
        self.plans[app] = self._planned(app)
        return True

    def pass_gate(self, app: str) -> None:
        """Its release has proved good: it is planned again, from the same look, by what may be done now."""
        self.gated -= {app}
        self.plans[app] = self._planned(app)

    def _choose(self, app: str) -> Choice:
        choice = self.choices[app] = self.choose(app, self.content.get(app))
        if choice.content is None:
            self.running.pop(app, None)
        else:
            self.running[app] = choice.content
        return choice

    def _planned(self, app: str) -> Plan:
        choice, observed = self._choose(app), self.observed or Observed()
        attempts, content = self.retries.attempts(), choice.content
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
        keys = [key for key in self.retries.rows if key[0] in ("", app) and key[1] in subjects]
        self.retries.drop(keys)
        return len(keys)

    # Acting.

    def act(self, planned: list[str]) -> None:
        """Start what the fresh plans of these apps say can be done now."""
        seen = self.observed.containers if self.observed else ()
        going = frozenset(container.id for container in seen if container.status in _GOING)
        for app in planned:
            plan = self.plans.get(app, Plan(app))
            for step in plan.steps:
                if isinstance(step.action, Pull) and not step.until and not step.after:
                    self._pull(step.action)
            asked = self.choices[app].ask if app in self.choices else ()
            self.acting.begin(plan, {container.id for container in asked}, going)

    def _ask_locks(self, app: str) -> None:
        self.ask_locks(app, self.choices[app].ask)

    def _run_over(self, app: str) -> None:
        self._outdated[app] = self.looks.number
        self.wake()

    def _pull(self, pull: Pull) -> None:
        revisions = {printed_revision(scope, target.version) for scope, target in self.wanted.targets.items()}
        self.pulls.begin(pull, self.observed.images if self.observed else {}, frozenset(revisions))

    def pull_ended(self, event: PullEnded) -> None:
        if not self.pulls.ended(event):
            return
        if event.error:
            self.retries.failed("", image_subject(event.image), event.image, event.error)
        self.wake(AWAY_S if event.away else 0.0)

    def stop(self) -> None:
        """No new step; what is in the middle of a replacement is finished."""
        self.stopped = True
        self.acting.overtake(self.acting.runs.keys())
        self.pulls.cancel_all_but()


def _differs(before: WantedApp | None, after: WantedApp | None) -> bool:
    """Whether what is under way for the one is of no use for the other."""
    if before is None or after is None:
        return True
    said = ([(s.stopped, s.anew) for s in app.services.values()] for app in (before, after))
    return before.digest != after.digest or next(said) != next(said)
