"""The gates of the releases under way, and what is run in place of one that failed.

A release that failed its gate is remembered in the database, and until a newer revision comes the content with which
the app last settled is wanted in its place: the planner brings exactly that back, from the containers that were kept or
from their specs. How long something has been good is only in memory: a restart of the agent counts anew.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from device_agent.core.backoff import Attempts
from device_agent.core.gate import Failed, Open, Passed, Verdict, judge
from device_agent.core.intake import Wanted
from device_agent.core.matching import good
from device_agent.core.scopes import EffectiveApp
from device_agent.core.status import label_revision
from device_agent.core.wanted import Naming, WantedApp, wanted_app
from device_agent.model.errors import Refused
from device_agent.model.memory import AppRecord, BadRelease
from device_agent.model.observed import Observed
from device_agent.model.steps import Plan
from device_agent.model.validate import validate_apps
from device_agent.ports import Clock

LEAST_S = 0.001
"""What is left of a gate is a difference of floats, and can be too little to be added to a clock."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Clock:
    """A gate's own: it stands still while something outside holds the release up."""

    digest: str
    elapsed_s: float = 0.0
    counted_at: float | None = None
    """When `elapsed_s` was last brought up to date; None while it stands still."""
    judged_at: float = 0.0


@dataclass(slots=True)
class Releases:
    clock: Clock
    naming: Naming
    apps: Mapping[str, AppRecord]
    """By app: what last settled."""
    bad: dict[str, BadRelease] = field(default_factory=dict)
    """By app."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """By app under a gate."""
    _understood: dict[str, tuple[AppRecord, WantedApp]] = field(default_factory=dict)
    """By app: the content of what last settled, as it was read from its record."""
    _good_since: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Container → its restarts, and since when it is good."""
    _clocks: dict[str, _Clock] = field(default_factory=dict)

    def running(self, wanted: Wanted) -> dict[str, WantedApp]:
        """What is to run: the apps as wanted, or what they are rolled back to."""
        return {
            name: (self.last_good(name) or app) if self.rolled_back(app) else app for name, app in wanted.apps.items()
        }

    def last_good(self, app: str) -> WantedApp | None:
        """The content with which an app last settled; None where there is none that is understood."""
        record = self.apps.get(app)
        if record is None or record.document is None:
            return None
        try:
            return self._good(app)
        except (Refused, ValueError) as error:
            log.warning("what settled last is not understood", app=app, why=str(error))
            return None

    def rolled_back(self, wanted: WantedApp) -> BadRelease | None:
        """The failure for which this content is not run, when there is another to run in its place."""
        bad = self.bad.get(wanted.name)
        if bad is None or bad.digest != wanted.digest or wanted.gate.on_failure == "hold":
            return None
        return bad

    def held(self, wanted: WantedApp) -> BadRelease | None:
        """The failure for which this app is left as it is."""
        bad = self.bad.get(wanted.name)
        return bad if bad and bad.digest == wanted.digest and wanted.gate.on_failure == "hold" else None

    def _good(self, app: str) -> WantedApp:
        record = self.apps[app]
        known = self._understood.get(app)
        if known and known[0] is record:
            return known[1]
        told = label_revision(record.revision)
        scope = record.revision.partition(":")[0]
        if told is None:
            raise ValueError(f"the record of {app} has no revision")
        effective = EffectiveApp(app, record.document, scope, told[1], record.release)
        content = validate_apps({app: record.document}).apps[app]
        good = wanted_app(effective, content, self.naming)
        self._understood[app] = record, good
        return good

    def _may_fail(self, wanted: WantedApp) -> bool:
        """Where there is nothing to go back to, or the target wants it so, a release is retried until it is good."""
        match wanted.gate.on_failure:
            case "hold":
                return True
            case "retry":
                return False
        record = self.apps.get(wanted.name)
        return record is not None and record.digest != wanted.digest and self.last_good(wanted.name) is not None

    def gated(self, wanted: WantedApp) -> bool:
        """Whether its release still has to prove good."""
        record = self.apps.get(wanted.name)
        return (record is None or record.digest != wanted.digest) and not self._has_passed(wanted)

    def _has_passed(self, wanted: WantedApp) -> bool:
        clock = self._clocks.get(wanted.name)
        passed = isinstance(self.verdicts.get(wanted.name), Passed)
        return passed and clock is not None and clock.digest == wanted.digest

    def forgiven(self, scope: str, wanted: Wanted) -> frozenset[str]:
        """Apps whose failed release is tried again, or of no account any more, with a newer target of this scope."""
        return frozenset(
            app
            for app, bad in self.bad.items()
            if bad.revision.startswith(f"{scope}:") or app not in wanted.apps or wanted.apps[app].digest != bad.digest
        )

    def observe(self, observed: Observed) -> None:
        """Note since when each container has been good without a restart."""
        now = self.clock.monotonic()
        seen = {}
        for container in observed.containers:
            if good(container, one_shot=container.one_shot):
                restarts, since = self._good_since.get(container.id, (container.restarts, now))
                seen[container.id] = (container.restarts, since if restarts == container.restarts else now)
        self._good_since = seen

    def judge(
        self, wanted: WantedApp, observed: Observed, plan: Plan, attempts: Attempts, *, held: bool = False
    ) -> Verdict:
        """The verdict on the release of an app as it is observed and planned now. `held`: by an update lock."""
        record = self.apps.get(wanted.name)
        if record and record.digest == wanted.digest:
            self._clocks.pop(wanted.name, None)
            self.verdicts.pop(wanted.name, None)
            return Passed()
        if self._has_passed(wanted):
            return Passed()
        now = self.clock.monotonic()
        clock = self._clocks.get(wanted.name)
        if clock is None or clock.digest != wanted.digest:
            clock = self._clocks[wanted.name] = _Clock(wanted.digest)
        clock.judged_at = now
        if clock.counted_at is not None:
            clock.elapsed_s += now - clock.counted_at
        steady = {id_: now - since for id_, (_, since) in self._good_since.items()}
        settled = record.specs if record else {}
        verdict = judge(
            wanted,
            observed,
            plan,
            attempts,
            settled,
            steady_s=steady,
            elapsed_s=clock.elapsed_s,
            lenient=not self._may_fail(wanted),
            held=held,
        )
        clock.counted_at = now if isinstance(verdict, Open) and verdict.counting else None
        self.verdicts[wanted.name] = verdict
        return verdict

    def next_wait_s(self, judged: Iterable[str]) -> float | None:
        """Seconds until time alone can decide the gate of one of these apps, which have just been judged."""
        verdicts = (self.verdicts.get(app) for app in judged)
        waits = (max(v.wait_s, LEAST_S) for v in verdicts if isinstance(v, Open) and v.wait_s is not None)
        return min(waits, default=None)

    def decided_in_s(self, app: str) -> float | None:
        """Seconds from now until time alone can decide the gate of an app."""
        verdict, clock = self.verdicts.get(app), self._clocks.get(app)
        if not isinstance(verdict, Open) or verdict.wait_s is None or clock is None:
            return None
        return max(0.0, verdict.wait_s - (self.clock.monotonic() - clock.judged_at))

    def failed(self, wanted: WantedApp, failure: Failed) -> BadRelease:
        """Remember it."""
        message = f"{failure.service}: {failure.message}" if failure.service else failure.message
        bad = BadRelease(wanted.name, wanted.digest, wanted.revision, wanted.release, failure.code, message)
        self.bad[wanted.name] = bad
        self.forget_gate(wanted.name)
        log.warning("release failed", app=wanted.name, release=wanted.release, code=failure.code, why=message)
        return bad

    def pause(self, app: str) -> None:
        """Its release waits without having begun: the deadline does not come nearer meanwhile, and nobody need look."""
        if app in self._clocks:
            self._clocks[app].counted_at = None
        if isinstance(self.verdicts.get(app), Open):
            del self.verdicts[app]

    def forget_gate(self, app: str) -> None:
        self.verdicts.pop(app, None)
        self._clocks.pop(app, None)
