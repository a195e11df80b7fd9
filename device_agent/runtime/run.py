"""One plan being carried out: which of its steps can go now, and when nothing more can."""

from dataclasses import dataclass, field

from device_agent.model.steps import Plan, Pull, Step, Stop


@dataclass(slots=True)
class Run:
    """A plan of one app. Pulls are not of the run: they are shared between apps and outlive a plan."""

    plan: Plan
    done: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    flying: dict[str, Step] = field(default_factory=dict)
    draining: bool = False
    """Overtaken: nothing new is started, but what is in the middle of a replacement is finished."""
    guarded: frozenset[str] = frozenset()
    """Stops that wait until their containers have been asked for their update locks."""
    asking: bool = False
    going: frozenset[str] = frozenset()
    """Ids of the containers that were on their way out when it was planned."""

    def ready(self) -> list[Step]:
        return [step for step in self._possible() if step.id not in self.guarded]

    def must_ask(self) -> bool:
        """Something could be stopped now, but for the update locks."""
        possible = any(step.id in self.guarded for step in self._possible())
        return possible and not self.asking and not self.draining

    def _possible(self) -> list[Step]:
        finishing = self._to_finish() if self.draining else None
        return [
            step
            for step in self.plan.steps
            if step.id not in self.done
            and step.id not in self.failed
            and step.id not in self.flying
            and not step.until
            and not isinstance(step.action, Pull)
            and step.after <= self.done
            and (finishing is None or step.id in finishing)
        ]

    @property
    def over(self) -> bool:
        return not self.flying and not self.asking and not self.ready() and not self.must_ask()

    def touches(self, container_id: str) -> bool:
        """Whether this run itself stops or removes the container, or counts it as gone: then its end is no surprise."""
        return container_id in self.going or any(
            getattr(step.action, "id", None) == container_id for step in self.plan.steps if not step.until
        )

    def _to_finish(self) -> set[str]:
        """The second halves whose first half has stopped something, with all that they still need."""
        begun = {step.id for step in self.plan.steps if isinstance(step.action, Stop) and self._has_begun(step)}
        followers: set[str] = set()
        for step in self.plan.steps:
            if step.after & (begun | followers):
                followers.add(step.id)
        needed: set[str] = set()
        for step in reversed(self.plan.steps):
            if step.id in needed or (step.commits and step.id in followers):
                needed |= {step.id, *step.after}
        return needed - self.done

    def _has_begun(self, step: Step) -> bool:
        return step.id in self.done or step.id in self.flying
