"""`purge`: the only way in which a volume is deleted. An operator names each, and what is in use is refused."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import structlog

from device_agent.model.errors import EngineAway, EngineError, Problem, Refused
from device_agent.model.observed import Volume
from device_agent.model.report import Happening
from device_agent.model.target import Json
from device_agent.runtime.arguments import no_more, text
from device_agent.runtime.inbox import VolumesPurged
from device_agent.runtime.workers import CALL
from device_agent.wire.commands import ERROR, OK

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()

Reply = Callable[[Mapping[str, Json]], None]


def begin(agent: "Agent", args: Mapping[str, Json], reply: Reply) -> None:
    """Delete the named volumes of an app, all or none as far as can be told before. Raises `Refused`."""
    no_more(args, "app", "volumes")
    app = text(args, "app")
    names = args.get("volumes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise Refused("malformed", "the argument volumes is a list of names: each volume is named, or none is deleted")
    observed = agent.reconciler.observed
    if observed is None or agent.reconciler.away:
        raise Refused("engine_away", "the engine does not answer: nothing can be deleted")
    if app in agent.reconciler.left_alone():
        raise Refused("target_unknown", f"the target of {app} is not known here: it is left as it is")
    mine = [volume for volume in observed.volumes if volume.app == app and volume.service is None]
    found = {name: volume for name in names for volume in mine if name in (volume.name, volume.key)}
    problems = tuple(_problems(agent, app, names, found))
    if problems:
        raise Refused("not_purged", "nothing was deleted: " + "; ".join(p.message for p in problems), problems)
    _delete(agent, app, tuple(dict.fromkeys(volume.name for volume in found.values())), reply)


def _problems(agent: "Agent", app: str, names: list[str], found: Mapping[str, Volume]) -> Iterator[Problem]:
    reconciler = agent.reconciler
    # Of any app: a volume of one can be external to another. What settled last is what a release that fails is rolled
    # back to: its data must be there then.
    last = (agent.releases.last_good(name) for name in agent.rollout.apps)
    wanted = [c for c in (*reconciler.content.values(), *reconciler.running.values(), *last) if c]
    used = {
        c.volumes[key].name: f"{c.name}/{name}" for c in wanted for name, s in c.services.items() for key in s.volumes
    }
    for index, name in enumerate(names):
        if name not in found:
            yield Problem(f"/volumes/{index}", f"{app} has no volume {name} here that is the agent's")
        elif found[name].name in used:
            user = used[found[name].name]
            yield Problem(f"/volumes/{index}", f"{name} is wanted by {user}: publish a target without it first")


def _delete(agent: "Agent", app: str, names: tuple[str, ...], reply: Reply) -> None:
    engine, put = agent.reconciler.engine, agent.reconciler.put
    log.warning("purge", app=app, volumes=names)

    def job() -> None:
        gone: list[str] = []
        try:
            for name in names:
                engine.remove_volume(name)
                gone.append(name)
        except (EngineAway, EngineError) as error:
            put(VolumesPurged(app, tuple(gone), reply, error))
        else:
            put(VolumesPurged(app, tuple(gone), reply))

    agent.reconciler.workers.submit(CALL, job)


def ended(agent: "Agent", event: VolumesPurged) -> None:
    """Tell what is gone, and answer."""
    result = {"app": event.app, "volumes": list(event.gone)}
    if event.gone:
        agent.journal.tell(Happening("volumes_purged", {**result, "message": "an operator deleted them"}))
        agent.reconciler.wake()
    if event.error is None:
        event.reply({"status": OK, "result": result})
        return
    code = event.error.code if isinstance(event.error, EngineError) else "engine_away"
    done = f"; deleted before: {', '.join(event.gone)}" if event.gone else ""
    event.reply({"status": ERROR, "error": {"code": code, "message": f"{event.error}{done}", "errors": []}})
