"""What an operator tells this device to do with an app: stop, start, restart, retry.

What has to outlive the agent is on disk before it is answered and before anything is done.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

import structlog

from device_agent.core.draft import image_subject
from device_agent.core.holds import HOLD
from device_agent.core.matching import as_asked, match_services
from device_agent.core.orders import RESTART, START, STOP, UNLOCK, orders_for, restarted_with
from device_agent.core.wanted import WantedApp
from device_agent.model.errors import Refused
from device_agent.model.memory import BadRelease, Order
from device_agent.model.observed import Observed, service_of
from device_agent.model.target import Json
from device_agent.ports import Transaction
from device_agent.runtime.arguments import no_more, optional_text, text
from device_agent.runtime.journal import Write

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()


def _stop(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """Kept stopped until it is started, or until its definition changes."""
    return _order(agent, args, STOP)


def _start(agent: "Agent", args: Mapping[str, Json]) -> Json:
    return _order(agent, args, START)


def _restart(agent: "Agent", args: Mapping[str, Json]) -> Json:
    return _order(agent, args, RESTART)


def _order(agent: "Agent", args: Mapping[str, Json], verb: str) -> Json:
    no_more(args, "app", "service")
    app = _app(agent, text(args, "app"))
    names = _services(app, optional_text(args, "service"), verb)
    observed = agent.reconciler.observed
    if observed is None and verb != STOP:
        raise Refused("engine_away", "the engine has not answered yet: nothing can be done with containers")
    if observed and verb == RESTART:
        names += restarted_with(app, names, observed)
    stopping = agent.reconciler.acting.being_stopped(app.name)
    new = [order for name in names for order in orders_for(verb, app, name, observed or Observed(), stopping)]
    old = [order for order in agent.orders.values() if order.app == app.name and service_of(order.service) in names]
    _replace(agent, old, new)
    log.info(verb, app=app.name, services=names)
    if verb != STOP:
        agent.reconciler.forget_attempts(app.name, [each for name in names for each in app.instances(name)])
    agent.want(agent.reconciler.wanted)
    return {"app": app.name, "services": names}


def _replace(agent: "Agent", old: Collection[Order], new: Collection[Order], *more: Write) -> None:
    """On disk first: one order in the place of others. Raises `StoreFull`; then nothing has changed."""

    def write(tx: Transaction) -> None:
        for order in old:
            tx.drop_order(order.app, order.service)
        for order in new:
            tx.put_order(order)

    agent.journal.commit(write, *more)
    for order in old:
        agent.orders.pop((order.app, order.service), None)
    agent.orders.update({(order.app, order.service): order for order in new})


def _app(agent: "Agent", name: str) -> WantedApp:
    """What is to run of an app. Raises `Refused` where nothing may be done with it."""
    running = agent.reconciler.running
    if name in agent.reconciler.left_alone():
        raise Refused("target_unknown", f"the target of {name} is not known here: it is left as it is")
    if name not in running:
        there = ", ".join(sorted(running)) or "none"
        raise Refused("not_found", f"no app {name} is wanted here: there is {there}")
    if name in agent.reconciler.held:
        raise Refused("release_failed", f"the release of {name} failed and it is left as it is: retry it first")
    return running[name]


def _services(app: WantedApp, named: str | None, verb: str) -> list[str]:
    there = list(dict.fromkeys(map(service_of, app.services)))
    if named is not None and named not in there:
        raise Refused("not_found", f"the app {app.name} has no service {named}: there is {', '.join(there) or 'none'}")
    names = there if named is None else [named]
    if verb == STOP:
        return names
    free = [name for name in names if app.services[name].service.state != "stopped"]
    if not free:
        what = app.name if named is None else f"{app.name}/{named}"
        raise Refused("kept_stopped", f"the target keeps {what} stopped: publish it without x-state: stopped")
    return free


def _retry(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """Forget what is waited for after failures of an app, and that its release failed its gate."""
    no_more(args, "app")
    name = text(args, "app")
    wanted = agent.reconciler.wanted.apps.get(name)
    subjects = {subject for app, subject in agent.reconciler.retries.rows if app == name}
    if wanted is None and not subjects:
        raise Refused("not_found", f"no app {name} is wanted here, and nothing of it is waited for")
    bad = agent.releases.bad.get(name)
    images = {image_subject(service.image) for service in wanted.services.values()} if wanted else set[str]()
    if bad:
        _forgive(agent, bad)
    forgotten = agent.reconciler.forget_attempts(name, subjects | images)
    log.info("retry", app=name, attempts=forgotten, release=bad and (bad.release or bad.revision))
    agent.want(agent.reconciler.wanted)
    return {"app": name, "attempts": forgotten, "release": bad and {"revision": bad.revision, "release": bad.release}}


def _forgive(agent: "Agent", bad: BadRelease) -> None:
    """Its release gets another gate, and its target goes on until it has ended once more."""
    _replace(agent, (), _restarts(agent, bad.app), lambda tx: tx.drop_bad(bad.app))
    del agent.releases.bad[bad.app]
    agent.releases.forget_gate(bad.app)
    reopened = agent.rollout.reopen(bad.app, bad.revision.partition(":")[0])
    if reopened:
        agent.journal.write(lambda tx: tx.put_target(reopened))


def _restarts(agent: "Agent", app: str) -> list[Order]:
    """What failed and was held still has its failure in it: it is started anew, or it would fail its gate by that."""
    wanted, observed = agent.reconciler.wanted.apps.get(app), agent.reconciler.observed
    if wanted is None or observed is None:
        return []
    matches = match_services(wanted, observed)
    return [
        Order(app, name, RESTART, match.winner.run)
        for name, match in matches.items()
        if match.winner and (match.winner.restarts or not as_asked(wanted.services[name], match.winner))
    ]


def _prune(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """Remove the images of the agent's own pulls that nothing wants any more, without waiting for the next update."""
    no_more(args)
    observed = agent.reconciler.observed
    if observed is None or agent.reconciler.away:
        raise Refused("engine_away", "the engine does not answer: nothing can be removed")
    if not agent.reconciler.at_rest:
        raise Refused("busy", "something is being done: images are removed by themselves when it has ended")
    return {"images": agent.garbage.prune(observed, agent.wanted_images())}


def _unlock(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """Let a release that waits for an update lock or for its window begin now. For its content alone."""
    no_more(args, "app")
    name = text(args, "app")
    why = agent.holds.held.get(name)
    if why is None:
        raise Refused("not_held", f"nothing of {name} waits for an update lock or a window")
    if why.cause == HOLD:
        raise Refused("held", f"{name} is not to be unlocked: {why.message}")
    wanted = agent.reconciler.content.get(name)
    _replace(agent, (), [Order(name, "", UNLOCK, wanted.digest if wanted else "")])
    log.info("unlock", app=name, cause=why.cause)
    agent.want(agent.reconciler.wanted)
    return {"app": name, "cause": why.cause}


Handler = Callable[["Agent", Mapping[str, Json]], Json]
HANDLERS: Mapping[str, Handler] = {
    "stop": _stop,
    "start": _start,
    "restart": _restart,
    "retry": _retry,
    "unlock": _unlock,
    "prune": _prune,
}
