"""From plans to what is told of them: an app begins, fails, proves good, is gone; a target ends."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from device_agent.core.draft import about
from device_agent.core.gate import Failed, Passed, Verdict
from device_agent.core.intake import own_apps
from device_agent.core.orders import outlived
from device_agent.core.status import only_leftovers, report_app, settled, specs
from device_agent.core.wanted import WantedApp
from device_agent.model.memory import AcceptedTarget, Order
from device_agent.model.observed import Observed
from device_agent.model.report import Ack
from device_agent.model.steps import CreateVolume, Plan, Pull, Step
from device_agent.model.target import SCOPES
from device_agent.runtime.rollout import recreated, repair

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()


@dataclass(slots=True)
class Progress:
    agent: "Agent"
    overtaken: set[str] = field(default_factory=set)
    """Apps whose fresh plan is for what is no longer to run."""
    _drifts: dict[tuple[str, str], str] = field(default_factory=dict)
    """(App, subject) of a repair that was told and is not done, or has failed since → its cause."""

    def planned(self, app: str, observed: Observed) -> None:
        """Tell of an app what its fresh plan says."""
        plan = self.agent.reconciler.plans.get(app)
        wanted = self.agent.reconciler.running.get(app)
        if plan is None:
            return
        self._forget_repaired(app, plan)
        if wanted and app in self.agent.reconciler.held:
            self.agent.journal.tell_all(self.agent.rollout.held(app, "release_failed"))
            return
        hold = self.agent.holds.held.get(app)
        if hold:
            self.agent.journal.tell_all(self.agent.rollout.held(app, hold.cause, hold.message, hold.until))
            if not self.agent.reconciler.choices[app].locked:
                self.agent.releases.pause(app)
                if wanted:
                    self._tell_drift(wanted, observed, plan)
                return
        verdict = self._judge(wanted, observed, plan) if wanted else None
        if isinstance(verdict, Failed):
            return
        if isinstance(verdict, Passed) and app in self.agent.reconciler.gated:
            # What waited for this, above all the removal of what was replaced, goes on from the same look.
            self.agent.reconciler.pass_gate(app)
            self.planned(app, observed)
            return
        if wanted is None:
            going = any(container.app == app for container in observed.containers)
            gone = only_leftovers(plan, None, self.agent.reconciler.retries.attempts()) and not going
            self.agent.journal.tell_all(self._gone(app) if gone else self.agent.rollout.begun(app))
        elif isinstance(verdict, Passed) and settled(wanted, observed, plan, self.agent.reconciler.retries.attempts()):
            self._settle(wanted, observed)
        else:
            self._tell_unsettled(wanted, observed, plan)

    def _judge(self, wanted: WantedApp, observed: Observed, plan: Plan) -> Verdict:
        """The gate of its release; a failure is acted on with the next look."""
        held = wanted.name in self.agent.holds.held
        verdict = self.agent.releases.judge(wanted, observed, plan, self.agent.reconciler.retries.attempts(), held=held)
        if isinstance(verdict, Failed):
            bad = self.agent.releases.failed(wanted, verdict)
            self.agent.journal.write(lambda tx: tx.put_bad(bad))
            self.agent.journal.tell_all(self.agent.rollout.failed(wanted.name, bad))
            self.overtaken.add(wanted.name)
            self.agent.want(self.agent.reconciler.wanted)
        return verdict

    def _settle(self, wanted: WantedApp, observed: Observed) -> None:
        """What is to run does, and has proved good."""
        published = self.agent.reconciler.wanted.apps[wanted.name]
        bad = self.agent.releases.rolled_back(published)
        if bad:
            acks, changed = self.agent.rollout.rolled_back(wanted.name, bad, self.agent.rollout.apps[wanted.name])
            self.agent.journal.tell_all(acks)
            self._write_targets(changed)
            return
        self._arrived(wanted.name)
        record = self.agent.rollout.settled(wanted, specs(wanted, observed))
        if record:
            self.agent.journal.write(lambda tx: tx.put_app(record))
            self.agent.forget_orders(o for o in self._orders(wanted.name) if outlived(o, wanted))

    def _tell_unsettled(self, wanted: WantedApp, observed: Observed, plan: Plan) -> None:
        self._tell_drift(wanted, observed, plan)
        if plan.steps or plan.blocked:
            self.agent.journal.tell_all(self.agent.rollout.begun(wanted.name))
        report = report_app(wanted, observed, self.agent.current.activity(plan), None)
        self.agent.journal.tell_all(self.agent.rollout.failing(wanted.name, report))

    def _tell_drift(self, wanted: WantedApp, observed: Observed, plan: Plan) -> None:
        """What had settled has something done to it: whatever has changed was not the target."""
        if not self.agent.rollout.is_repair(wanted.name, wanted.digest):
            return
        ahead = self.agent.reconciler.choices[wanted.name].ahead
        found = [
            step
            for step in plan.steps
            # What is tried again was told: what became of it, and the next try, is in the state.
            if self._drifts.get((wanted.name, step.subject)) != step.cause
            and not (step.until or step in ahead or _asked(wanted, step))
        ]
        # Of what is put right the first step tells; what is lost for good is told each.
        lost = [step for step in found if isinstance(step.action, CreateVolume)]
        for step in (*lost, *[step for step in found if step not in lost][:1]):
            self._drifts[wanted.name, step.subject] = step.cause
            happening = (
                recreated(wanted.name, step.action.name)
                if isinstance(step.action, CreateVolume)
                else repair(wanted, about(step.subject), step.cause, observed)
            )
            log.warning(happening.name, app=wanted.name, subject=step.subject, why=step.cause)
            self.agent.journal.tell(happening)

    def _forget_repaired(self, app: str, plan: Plan) -> None:
        rows = self.agent.reconciler.retries.rows
        planned = {(step.subject, step.cause) for step in plan.steps}
        done = [
            key
            for key, why in self._drifts.items()
            if key[0] == app and (key[1], why) not in planned and key not in rows and ("", key[1]) not in rows
        ]
        for key in done:
            del self._drifts[key]

    def _gone(self, app: str) -> list[Ack]:
        self._arrived(app)
        if app in self.agent.rollout.apps:
            del self.agent.rollout.apps[app]
            self.agent.journal.write(lambda tx: tx.drop_app(app))
        if self.agent.releases.bad.pop(app, None):
            self.agent.journal.write(lambda tx: tx.drop_bad(app))
        self.agent.releases.forget_gate(app)
        self.agent.forget_orders(self._orders(app))
        return []

    def _orders(self, app: str) -> list[Order]:
        return [order for order in self.agent.orders.values() if order.app == app]

    def _arrived(self, app: str) -> None:
        acks, changed = self.agent.rollout.arrived(app)
        self.agent.journal.tell_all(acks)
        self._write_targets(changed)

    def _write_targets(self, changed: list[AcceptedTarget]) -> None:
        for accepted in changed:
            self.agent.journal.write(lambda tx, accepted=accepted: tx.put_target(accepted))  # type: ignore[misc]

    def end_targets(self) -> None:
        """Targets of which nothing is awaited any more have ended."""
        observed = self.agent.reconciler.observed
        there = own_apps(observed) if observed else set()
        for scope in SCOPES:
            accepted = self.agent.rollout.targets.get(scope)
            for app in accepted.awaited if accepted else ():
                if app not in there and app not in self.agent.reconciler.wanted.apps:
                    self._gone(app)
        acks, changed = self.agent.rollout.ended({bad.revision for bad in self.agent.releases.bad.values()})
        if not changed:
            return
        self.agent.journal.tell_all(acks)
        self._write_targets(changed)
        # One that was rolled back is nothing to come back to: what was good before it stays remembered.
        if any(accepted.ended == "applied" for accepted in changed):
            self.agent.journal.chore(lambda: self.agent.store.remember_good(self.agent.rollout.applied))
        self.agent.journal.flush()


def _asked(wanted: WantedApp, step: Step) -> bool:
    """Whether an operator, a `pull_policy` or a `depends_on` has asked for it, or it ends what was told: no drift."""
    if step.follows:
        return True
    if isinstance(step.action, Pull):
        return step.action.policy != "missing"
    service = wanted.services.get(step.subject)
    return service is not None and bool(service.stopped or service.anew)
