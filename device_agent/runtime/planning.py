"""`plan`: what a target would do here, and what it would cost. Nothing is changed.

Sizes are asked of the registry by a worker, so the answer comes a moment later where something would be fetched.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_agent.core.cost import Fetched, interruptions, pulls
from device_agent.core.holds import Held, change_to
from device_agent.core.planner import plan_app, plan_removal
from device_agent.core.wanted import WantedApp
from device_agent.model.errors import EngineAway, EngineError, Refused
from device_agent.model.observed import Observed
from device_agent.model.steps import Plan, Pull
from device_agent.model.target import Json
from device_agent.ports import Engine
from device_agent.runtime.arguments import document, no_more
from device_agent.runtime.inbox import SizesRead
from device_agent.runtime.workers import CALL, Workers
from device_agent.wire.messages import time_text

if TYPE_CHECKING:
    from device_agent.core.intake import Wanted
    from device_agent.runtime.agent import Agent

ASKING_S = 5.0
"""How long registries are asked for sizes; of what is left then they are not known."""

Sizes = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Planned:
    wanted: "Wanted"
    plans: tuple[Plan, ...]
    observed: Observed


def planned(agent: "Agent", args: Mapping[str, Json]) -> Planned:
    """A repetition of what the device has is planned all the same. Raises `Refused`, as the target would be."""
    payload = document(args)
    no_more(args, "target")
    wanted = agent.intake.judging.would_want(payload)
    observed = agent.reconciler.observed
    if observed is None:
        raise Refused("engine_away", "the engine has not answered yet: nothing can be planned")
    names = sorted({c.app for c in observed.containers} | wanted.apps.keys())
    return Planned(wanted, tuple(_plan_of(agent, name, wanted.apps.get(name), observed) for name in names), observed)


@dataclass(slots=True)
class Planning:
    agent: "Agent"
    engine: Engine
    workers: Workers

    def begin(self, args: Mapping[str, Json], reply: Callable[[Mapping[str, Json]], None]) -> None:
        """Answer now, or when sizes are known. Raises `Refused`."""
        found = planned(self.agent, args)
        wanted = pulls(found.plans)

        def then(sizes: Sizes) -> None:
            reply({"status": "ok", "result": plan_body(self.agent, found, sizes)})

        if wanted:
            self.workers.submit(CALL, self._asking(wanted, then))
        else:
            then({})

    def _asking(self, wanted: tuple[Pull, ...], then: Callable[[Sizes], None]) -> Callable[[], None]:
        until = self.agent.clock.monotonic() + ASKING_S

        def job() -> None:
            sizes: dict[str, int | None] = {}
            for pull in wanted:
                sizes[pull.image] = None
                if self.agent.clock.monotonic() < until:
                    try:
                        sizes[pull.image] = self.engine.missing_bytes(pull.image, pull.platform)
                    except (EngineAway, EngineError):
                        continue
            self.agent.reconciler.put(SizesRead(sizes, then))

        return job


def plan_body(agent: "Agent", found: Planned, sizes: Sizes) -> Json:
    """The answer, the same over MQTT and on the device."""
    plans = found.plans
    fetched = Fetched(sizes, agent.host.host.disk())
    stopped = [each for plan in plans for each in interruptions(plan, found.wanted.apps.get(plan.app), found.observed)]
    text = [f"{plan.app}:\n" + _indented(str(plan)) for plan in plans if plan.steps]
    text += [str(fetched)] if sizes else []
    text += ["downtime:\n" + _indented("\n".join(map(str, stopped)))] if stopped else []
    held = dict(_held(agent, found))
    text += ["held:\n" + _indented("\n".join(f"{app}: {why.message}" for app, why in held.items()))] if held else []
    return {
        "apps": {
            plan.app: [{"step": step.id, "cause": step.cause, "until": step.until or None} for step in plan.steps]
            for plan in plans
        },
        "blocked": {
            plan.app: [{"subject": b.subject, "code": b.code, "message": b.message} for b in plan.blocked]
            for plan in plans
            if plan.blocked
        },
        "pull": {"images": dict(sizes), "bytes": fetched.bytes},
        "disk": {"free": fetched.disk.free if fetched.disk else None, "after": fetched.free_after},
        "downtime": {
            each.service: {"strategy": each.strategy, "down": each.down, "message": each.message} for each in stopped
        },
        "held": {
            app: {"cause": why.cause, "message": why.message, "until": why.until and time_text(why.until)}
            for app, why in held.items()
        },
        "policy": "allowed",
        "text": "\n".join(text) or "nothing to do",
    }


def _held(agent: "Agent", found: Planned) -> Iterator[tuple[str, Held]]:
    """The apps whose change would wait."""
    for plan in found.plans:
        change = change_to(found.wanted.apps.get(plan.app), plan, found.observed, agent.rollout.apps.get(plan.app))
        why = agent.holds.would_hold(change, plan.app, found.wanted.targets)
        if why:
            yield plan.app, why


def _plan_of(agent: "Agent", name: str, wanted: WantedApp | None, observed: Observed) -> Plan:
    attempts = agent.reconciler.retries.attempts()
    if wanted is None:
        return plan_removal(name, observed, attempts)
    settled = agent.reconciler.settled.get(name, {})
    return plan_app(wanted, observed, attempts, settled, gated=agent.releases.gated(wanted), pulled=agent.images.pulled)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
