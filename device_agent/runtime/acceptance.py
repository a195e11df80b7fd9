"""A target that is accepted: one transaction with it, its floor, and what is told of it. Then the world may know."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from device_agent.core.intake import Wanted, changed_apps
from device_agent.model.memory import AcceptedTarget, Floor
from device_agent.model.report import MOST_PLACES
from device_agent.model.target import FLEET, Target
from device_agent.ports import Transaction
from device_agent.runtime.documents import Opened
from device_agent.runtime.rollout import transition
from device_agent.wire.target import ignored_keys

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()


def accept(agent: "Agent", wanted: Wanted, *arriving: Opened) -> None:
    """`wanted`: what is, with all that arrive. Raises `StoreFull`: then nothing has changed."""
    forgiven = frozenset[str]().union(*(agent.releases.forgiven(each.scope, wanted) for each in arriving))
    writes: list[Callable[[Transaction], None]] = [_forgive(app) for app in sorted(forgiven)]
    accepted = [_accepted(agent, each.target, wanted, forgiven, alone=len(arriving) == 1) for each in arriving]
    for each, new in zip(arriving, accepted, strict=True):
        writes.append(_put(new))
        unfinished = agent.rollout.unfinished(each.scope)
        if unfinished:
            writes.append(agent.journal.queue_ack(transition(unfinished.target, "superseded")))
        warnings = (*wanted.warnings, *ignored_keys(each.body))[:MOST_PLACES]
        writes.append(agent.journal.queue_ack(transition(each.target, "accepted", warnings=warnings)))
    agent.journal.commit(*writes)
    for new in accepted:
        target = new.target
        log.info(
            "accepted",
            scope=target.scope,
            version=str(target.version),
            release=target.release,
            awaited=sorted(new.awaited),
        )
        agent.rollout.accept(new)
        agent.floors[target.scope] = Floor(target.version, target.digest)
    for app in forgiven:
        del agent.releases.bad[app]
    agent.want(wanted)
    agent.state_changed()
    for each in arriving:
        agent.journal.acknowledge(each.token)


def _accepted(
    agent: "Agent", target: Target, wanted: Wanted, forgiven: frozenset[str], *, alone: bool
) -> AcceptedTarget:
    """With the apps that must have reached their end before the target has. Of two together each has its own."""
    observed = agent.reconciler.observed
    awaited = changed_apps(agent.reconciler.wanted, wanted)
    if not alone:
        owners = {app: wanted.apps[app].scope if app in wanted.apps else FLEET for app in awaited}
        awaited = frozenset(app for app in awaited if owners[app] == target.scope)
    if observed and not agent.reconciler.wanted.targets:
        awaited |= {c.app for c in observed.containers if c.revision.startswith(target.scope)}
    unfinished = agent.rollout.unfinished(target.scope)
    if unfinished:
        awaited |= unfinished.awaited
    return AcceptedTarget(target, agent.clock.now(), awaited | (forgiven & wanted.apps.keys()))


def _put(accepted: AcceptedTarget) -> Callable[[Transaction], None]:
    return lambda tx: tx.put_target(accepted)


def _forgive(app: str) -> Callable[[Transaction], None]:
    return lambda tx: tx.drop_bad(app)
