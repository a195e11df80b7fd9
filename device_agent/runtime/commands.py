"""What is asked, by local people or (`remote_commands`) over MQTT, answered from the loop.

Every answer is `{"status": "ok", "result": …}` or `{"status": "error", "error": {"code", "message", "errors"}}`. What
takes its time is answered with `{"status": "running", …}` first.
"""

import base64
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from device_agent import __version__
from device_agent.core.cost import pulls
from device_agent.model.errors import Problem, Refused, StoreFull
from device_agent.model.memory import PulledImage
from device_agent.model.target import Json
from device_agent.ports import PullProgress
from device_agent.runtime import operator, purge
from device_agent.runtime.arguments import document, no_more
from device_agent.runtime.history import history
from device_agent.runtime.planning import plan_body, planned
from device_agent.wire.commands import RUNNING
from device_agent.wire.messages import host_body, state_body, time_text

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()

LATER = ("logs", "purge")
"""Verbs that are answered when a worker has ended."""
Reply = Callable[[Mapping[str, Json]], None]
"""Takes an answer: any number that are `running`, and then the last one."""


def run(agent: "Agent", verb: str, args: Mapping[str, Json], reply: Reply, id_: str | None = None) -> None:
    """Carry out a command. Never raises for what is asked: a bad question is an answer too.

    `id_`: the command's, over MQTT.
    """
    try:
        match verb:
            case "logs":
                agent.logs.begin(args, reply, id_)
            case "plan":
                agent.planning.begin(args, reply)
            case "purge":
                purge.begin(agent, args, reply)
            case _:
                reply(answer(agent, verb, args))
    except Refused as refused:
        reply(refusal(refused))


def last_only(reply: Reply) -> Reply:
    """For one who is told once."""
    return lambda told: None if told["status"] == RUNNING else reply(told)


def answer(agent: "Agent", verb: str, args: Mapping[str, Json]) -> dict[str, Json]:
    """The answer to what is answered at once."""
    handler = HANDLERS.get(verb)
    if handler is None:
        return refusal(unknown(verb))
    try:
        return {"status": "ok", "result": handler(agent, args)}
    except Refused as refused:
        return refusal(refused)
    except StoreFull as full:
        return error("disk_full", f"{full}: free some space and try again")
    except OSError as failed:
        return error("file", f"{failed.strerror or failed}: {failed.filename or ''}".rstrip(": "))


def is_known(verb: str) -> bool:
    return verb in (*HANDLERS, *LATER)


def unknown(verb: str) -> Refused:
    return Refused("unknown", f"there is no command {verb!r}: {', '.join((*HANDLERS, *LATER))}")


def refusal(refused: Refused) -> dict[str, Json]:
    return error(refused.code, refused.message, refused.problems)


def error(code: str, message: str, problems: tuple[Problem, ...] = ()) -> dict[str, Json]:
    errors = [{"pointer": problem.pointer, "message": problem.message} for problem in problems]
    return {"status": "error", "error": {"code": code, "message": message, "errors": errors}}


def _status(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """The state as it is published, and what is the agent's own."""
    no_more(args)
    body = state_body(agent.current.read())
    return {
        **body,
        "device": agent.options.identity.device,
        "fleet": agent.options.identity.fleet,
        "at": time_text(agent.clock.now()),
        "connected": agent.link.session is not None,
        "session": agent.link.session,
        "outbox": _outbox(agent),
        "pulls": [_pull(row, progress) for row, progress in agent.images.under_way],
        **({"host": host_body(agent.host.figures)} if agent.host.figures else {}),
    }


def _outbox(agent: "Agent") -> Json:
    counts = agent.link.outbox()
    return {"rows": counts.rows, "dropped": counts.dropped}


def _pull(row: PulledImage, progress: PullProgress | None) -> Json:
    """`done` and `total` are bytes; null while nothing has arrived."""
    return {
        "image": row.image,
        "platform": row.platform,
        "since": time_text(row.pulled_at),
        "done": progress.done if progress else None,
        "total": progress.total if progress else None,
    }


def _version(_agent: "Agent", args: Mapping[str, Json]) -> Json:
    no_more(args)
    return {"version": __version__}


def _plan(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """Where nobody can be asked for sizes."""
    found = planned(agent, args)
    return plan_body(agent, found, {pull.image: None for pull in pulls(found.plans)})


def _explain(agent: "Agent", args: Mapping[str, Json]) -> Json:
    from device_agent.runtime.explain import explained  # noqa: PLC0415 - not loaded before somebody asks

    no_more(args, "app", "service")
    return explained(agent, args.get("app"), args.get("service"))


def _apply(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """A target from a file: the same checks and the same floor as from the broker."""
    payload = document(args)
    no_more(args, "target")
    verdict, target = agent.intake.judging.apply(payload)
    return {
        "verdict": verdict,
        "scope": target.scope,
        "epoch": target.version.epoch,
        "revision": target.version.revision,
    }


def _backup(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """To a file that the agent can write, or, without one, as base64 in the answer."""
    no_more(args, "file")
    agent.journal.flush()
    file = args.get("file")
    if isinstance(file, str):
        agent.store.backup(Path(file))
        return {"file": file, "bytes": Path(file).stat().st_size}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "backup.sqlite")
        agent.store.backup(copy)
        return {"content": base64.b64encode(copy.read_bytes()).decode(), "bytes": copy.stat().st_size}


def _restore(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """From base64: the contents replace the database's, floors stay at the highest known."""
    no_more(args, "content")
    try:
        content = base64.b64decode(str(args.get("content", "")), validate=True)
    except ValueError:
        # binascii.Error is one; what is not even ASCII is another.
        raise Refused("malformed", "the argument content is base64") from None
    agent.journal.flush()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "backup.sqlite")
        copy.write_bytes(content)
        memory = agent.store.restore(copy)
    log.warning("restored", targets={scope: str(a.target.version) for scope, a in memory.targets.items()})
    agent.remember(memory)
    return {"targets": {scope: list(a.target.version) for scope, a in memory.targets.items()}}


HANDLERS: dict[str, Callable[["Agent", Mapping[str, Json]], Json]] = {
    "status": _status,
    "report": _status,
    "plan": _plan,
    "explain": _explain,
    "apply": _apply,
    "backup": _backup,
    "restore": _restore,
    "version": _version,
    "history": history,
    **operator.HANDLERS,
}
"""Verb → what answers it, or raises `Refused`. What comes over MQTT is those of `wire.commands`."""
