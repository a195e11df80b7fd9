"""The whole truth, as it is published and shown: what the device has, what runs, and what stands in the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from device_agent.core.status import (
    Activity,
    orphan_volumes,
    report_adopted,
    report_app,
    report_removal,
)
from device_agent.core.wanted import WantedApp
from device_agent.model.memory import AppRecord, BadRelease
from device_agent.model.observed import Observed
from device_agent.model.report import AppReport, Have, State
from device_agent.model.steps import Plan
from device_agent.model.target import SCOPES

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent


@dataclass(slots=True)
class CurrentState:
    """Read from the other parts each time it is asked for."""

    agent: "Agent"
    _since: tuple[bool, datetime] | None = None
    """Whether it was converged when it was read last, and since when that is so."""

    def have(self) -> dict[str, Have | None]:
        targets = self.agent.rollout.targets
        return {
            scope: Have(targets[scope].target.version, targets[scope].target.digest) if scope in targets else None
            for scope in SCOPES
        }

    def read(self) -> State:
        reconciler = self.agent.reconciler
        observed = reconciler.observed or Observed()
        apps: dict[str, AppReport] = {}
        left_alone = reconciler.left_alone()
        for name in sorted(left_alone):
            apps[name] = report_adopted(name, observed)
        for name, wanted in reconciler.running.items():
            if name not in left_alone:
                record = self.agent.rollout.apps.get(name)
                activity = self.activity(reconciler.plans.get(name, Plan(name)))
                notes = tuple(p for p in reconciler.wanted.warnings if p.pointer.startswith(f"/apps/{name}/"))
                apps[name] = report_app(wanted, observed, activity, _previous(record, wanted), notes)
        unwanted = {c.app for c in observed.containers} - reconciler.running.keys() - left_alone
        going = unwanted | {name for name, plan in reconciler.plans.items() if plan.steps}
        for name in going - apps.keys():
            apps[name] = report_removal(name, observed, self.activity(reconciler.plans.get(name, Plan(name))))
        converged = not left_alone and not unwanted and self._converged(apps)
        if self._since is None or self._since[0] != converged:
            self._since = (converged, self.agent.clock.now())
        return State(
            have=self.have(),
            effective_digest=reconciler.wanted.digest,
            converged=converged,
            since=self._since[1],
            apps=dict(sorted(apps.items())),
            orphan_volumes=orphan_volumes(reconciler.wanted.apps, observed) if reconciler.wanted.targets else (),
            store=self.agent.journal.status,
            engine="away" if reconciler.away else "ok",
        )

    def _converged(self, apps: Mapping[str, AppReport]) -> bool:
        reconciler = self.agent.reconciler
        return (
            reconciler.observed is not None
            and not reconciler.away
            and not self.agent.holds.held
            and not any(self._failed_release(name) for name in reconciler.wanted.apps)
            and all(app.phase == "settled" for name, app in apps.items() if name in reconciler.wanted.apps)
            and all(reconciler.only_leftovers(app) for app in reconciler.plans)
        )

    def activity(self, plan: Plan) -> Activity:
        """What goes on in the app of a plan."""
        reconciler = self.agent.reconciler
        run = reconciler.acting.runs.get(plan.app)
        flying = frozenset(run.flying) if run else frozenset[str]()
        gated, held = plan.app in reconciler.gated, plan.app in reconciler.held
        bad = self._failed_release(plan.app)
        hold = self.agent.holds.held.get(plan.app)
        return Activity(plan, reconciler.retries.attempts(), flying, self.agent.tails.texts, gated, held, hold, bad)

    def _failed_release(self, app: str) -> BadRelease | None:
        wanted, releases = self.agent.reconciler.wanted.apps.get(app), self.agent.releases
        return (releases.rolled_back(wanted) or releases.held(wanted)) if wanted else None


def _previous(record: AppRecord | None, wanted: WantedApp) -> str | None:
    if record is None:
        return None
    return record.release if record.release != wanted.release else record.previous
