"""Which content of an app is to run now: the newest, or the settled one while the newest waits.

Chosen anew for each plan, from what is observed, what the clock says, and what containers said of their update locks.
Locks are asked for right before the first stop of a release, and again every half minute while one is held. They are
only in memory: after a restart of the agent they are asked for again, before anything is stopped.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from device_agent.core.holds import HOLD, LOCK, LOCK_ASKED_S, Change, Facts, Held, ahead, change_to, held
from device_agent.core.intake import own_apps
from device_agent.core.orders import UNLOCK, with_orders
from device_agent.core.planner import plan_app, plan_removal
from device_agent.core.wanted import WantedApp
from device_agent.model.compose import Window
from device_agent.model.errors import EngineAway, EngineError
from device_agent.model.observed import Container, Observed
from device_agent.model.steps import Step
from device_agent.model.target import DEVICE, Target
from device_agent.runtime.inbox import LocksRead
from device_agent.runtime.workers import CALL

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Choice:
    """What is to be planned for an app."""

    content: WantedApp | None
    """None: it is to go, or (`idle`) to be left as it is."""
    idle: bool = False
    ahead: tuple[Step, ...] = ()
    """Pulls of the release that waits."""
    locked: frozenset[str] = frozenset()
    """Containers that are not stopped now, although the release has begun."""
    ask: tuple[Container, ...] = ()
    """Those to be asked for their update lock before the first of them is stopped."""


@dataclass(slots=True)
class Holds:
    agent: "Agent"
    held: dict[str, Held] = field(default_factory=dict)
    """By app: why its newest content waits."""
    _locks: dict[str, str] = field(default_factory=dict)
    """Container id → why it is not to be stopped, of those that did not say that they may be."""
    _changes: dict[str, Change] = field(default_factory=dict)
    """By app that is held."""
    _ask_at: dict[str, float] = field(default_factory=dict)
    """App → when its containers are asked again."""

    # Choosing.

    def choose(self, app: str, wanted: WantedApp | None) -> Choice:
        """`wanted`: the content that runs where nothing holds it; None: the app is to go."""
        observed = self.agent.reconciler.observed
        change = self._change(app, wanted, observed) if observed else None
        if observed is None or change is None:
            self._let_go(app)
            return Choice(wanted)
        why = held(change, self._facts(app, change, self.agent.reconciler.wanted.targets))
        if why is None:
            self._let_go(app)
            unlocked = self._unlocked(app, wanted)
            return Choice(wanted, ask=() if unlocked else change.stops)
        if self.held.get(app) != why:
            log.info("held", app=app, cause=why.cause, why=why.message)
        self.held[app], self._changes[app] = why, change
        if why.cause == LOCK:
            self._ask_at.setdefault(app, self.agent.clock.monotonic() + LOCK_ASKED_S)
        else:
            self._ask_at.pop(app, None)
        if change.begun:
            locked = frozenset(c.id for c in change.stops if c.id in self._locks)
            # The locked ones are asked at their time: asked with the others they would forbid what they do not hold.
            return Choice(wanted, locked=locked, ask=tuple(c for c in change.stops if c.id not in locked))
        content = self._settled(app)
        fetch: tuple[Step, ...] = ()
        if wanted and why.cause != HOLD:
            fetch = ahead(change.plan)
        return Choice(content or wanted, idle=content is None, ahead=fetch)

    def would_hold(self, change: Change, app: str, targets: Mapping[str, Target]) -> Held | None:
        """Why a release of these targets would wait. Update locks are not asked for: what is known of them counts."""
        if change.wanted and change.settled and change.settled.digest == change.wanted.digest:
            return None
        return held(change, self._facts(app, change, targets))

    def _change(self, app: str, wanted: WantedApp | None, observed: Observed) -> Change | None:
        """None: what is wanted has settled before, or is left as it is for its failure."""
        record = self.agent.rollout.apps.get(app)
        reconciler = self.agent.reconciler
        if wanted and ((record and record.digest == wanted.digest) or app in reconciler.held):
            return None
        attempts = reconciler.retries.attempts()
        if wanted is None:
            plan = plan_removal(app, observed, attempts)
        else:
            specs = reconciler.settled.get(app, {})
            gated, pulled = app in reconciler.gated, self.agent.images.pulled
            plan = plan_app(wanted, observed, attempts, specs, gated=gated, pulled=pulled)
        return change_to(wanted, plan, observed, record)

    def _facts(self, app: str, change: Change, targets: Mapping[str, Target]) -> Facts:
        target = targets.get(DEVICE)
        return Facts(
            now=self.agent.clock.now(),
            windows=self._windows(app, change),
            frozen=str(target.version) if target and target.hold else "",
            unlocked=self._unlocked(app, change.wanted),
            locks=self._locks,
        )

    def _windows(self, app: str, change: Change) -> tuple[Window, ...]:
        """The newest say when. One that is to go has those with which it settled."""
        last = change.wanted or self._settled(app)
        return last.windows if last else ()

    def _settled(self, app: str) -> WantedApp | None:
        content = self.agent.releases.last_good(app)
        return with_orders(content, self.agent.orders.values()) if content else None

    def _unlocked(self, app: str, wanted: WantedApp | None) -> bool:
        order = self.agent.orders.get((app, ""))
        return order is not None and order.verb == UNLOCK and order.content == (wanted.digest if wanted else "")

    def _let_go(self, app: str) -> None:
        if self.held.pop(app, None):
            log.info("no longer held", app=app)
        self._changes.pop(app, None)
        self._ask_at.pop(app, None)

    def forget_gone(self, observed: Observed) -> None:
        """Of an app that is neither wanted nor here nothing is held, and a container that is gone holds nothing."""
        for app in self.held.keys() - self.agent.reconciler.wanted.apps.keys() - own_apps(observed):
            self._let_go(app)
        for gone in self._locks.keys() - {container.id for container in observed.containers}:
            del self._locks[gone]

    # Asking.

    def ask(self, app: str, containers: Iterable[Container], *, before_stopping: bool) -> None:
        """Look for the update locks, on a worker: `LocksRead` tells. An answer that is none is no permission."""
        asked = tuple(containers)
        engine, put = self.agent.reconciler.engine, self.agent.reconciler.put

        def job() -> None:
            locks: dict[str, str | None] = {}
            for container in asked:
                try:
                    there = engine.has_file(container.id, container.update_lock)
                    locks[container.id] = f"it holds its update lock, {container.update_lock}" if there else None
                except (EngineAway, EngineError) as error:
                    locks[container.id] = f"its update lock could not be asked for: {error}"
            put(LocksRead(app, locks, before_stopping=before_stopping))

        self.agent.reconciler.workers.submit(CALL, job)

    def read(self, event: LocksRead) -> None:
        self._keep(event.locks)
        if event.before_stopping:
            self.agent.reconciler.acting.locks_read(event.app, free=not any(event.locks.values()))
        else:
            self.agent.reconciler.wake()

    def _keep(self, locks: Mapping[str, str | None]) -> None:
        for container, why in locks.items():
            if why is None:
                self._locks.pop(container, None)
            else:
                self._locks[container] = why

    # Time.

    def next_due(self) -> float | None:
        clock = self.agent.clock
        now, wall = clock.monotonic(), clock.now()
        opening = (now + (why.until - wall).total_seconds() for why in self.held.values() if why.until)
        return min((*self._ask_at.values(), *opening), default=None)

    def tick(self) -> None:
        if self.agent.reconciler.stopped:
            return
        now, wall = self.agent.clock.monotonic(), self.agent.clock.now()
        for app, at in self._ask_at.items():
            if now >= at:
                self._ask_at[app] = now + LOCK_ASKED_S
                self.ask(app, self._changes[app].stops, before_stopping=False)
        for app, why in self.held.items():
            if why.until and wall >= why.until:
                self.held[app] = replace(why, until=None)  # it is chosen anew at the next look
                self.agent.reconciler.wake()
