"""What is asked, by local people or (`remote_commands`) over MQTT, answered from the loop.

Every answer is `{"status": "ok", "result": …}` or `{"status": "error", "error": {"code", "message", "errors"}}`. What
takes its time is answered with `{"status": "running", …}` first.
"""

import base64
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from device_agent import __version__
from device_agent.core.planner import plan_app, plan_removal
from device_agent.core.wanted import WantedApp
from device_agent.model.errors import Problem, Refused, StoreFull
from device_agent.model.observed import Observed
from device_agent.model.steps import Plan
from device_agent.model.target import Json
from device_agent.runtime import operator
from device_agent.runtime.arguments import no_more
from device_agent.runtime.explain import explained
from device_agent.wire.commands import LOGS, RUNNING
from device_agent.wire.messages import host_body, state_body, time_text

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()

Reply = Callable[[Mapping[str, Json]], None]
"""Takes an answer: any number that are `running`, and then the last one."""


def run(agent: "Agent", verb: str, args: Mapping[str, Json], reply: Reply, id_: str | None = None) -> None:
    """Carry out a command. Never raises for what is asked: a bad question is an answer too.

    `id_`: the command's, over MQTT.
    """
    if verb != LOGS:
        reply(answer(agent, verb, args))
        return
    try:
        agent.logs.begin(args, reply, id_)
    except Refused as refused:
        reply(refusal(refused))


def last_only(reply: Reply) -> Reply:
    """For one who is told once."""
    return lambda told: None if told["status"] == RUNNING else reply(told)


def answer(agent: "Agent", verb: str, args: Mapping[str, Json]) -> dict[str, Json]:
    """The answer to what is answered at once."""
    handler = HANDLERS.get(verb)
    if handler is None:
        return unknown(verb)
    try:
        return {"status": "ok", "result": handler(agent, args)}
    except Refused as refused:
        return refusal(refused)
    except StoreFull as full:
        return error("disk_full", f"{full}: free some space and try again")
    except OSError as failed:
        return error("file", f"{failed.strerror or failed}: {failed.filename or ''}".rstrip(": "))


def is_known(verb: str) -> bool:
    return verb == LOGS or verb in HANDLERS


def unknown(verb: str) -> dict[str, Json]:
    return error("unknown", f"there is no command {verb!r}: {', '.join((*HANDLERS, LOGS))}")


def refusal(refused: Refused) -> dict[str, Json]:
    return error(refused.code, refused.message, refused.problems)


def error(code: str, message: str, problems: tuple[Problem, ...] = ()) -> dict[str, Json]:
    errors = [{"pointer": problem.pointer, "message": problem.message} for problem in problems]
    return {"status": "error", "error": {"code": code, "message": message, "errors": errors}}


def _status(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """The state as it is published, and what is the agent's own."""
    no_more(args)
    body = state_body(agent.state())
    return {
        **body,
        "device": agent.options.identity.device,
        "fleet": agent.options.identity.fleet,
        "at": time_text(agent.clock.now()),
        "connected": agent.link.session is not None,
        "session": agent.link.session,
        "outbox": _outbox(agent),
        **({"host": host_body(agent.host.figures)} if agent.host.figures else {}),
    }


def _outbox(agent: "Agent") -> Json:
    counts = agent.link.outbox()
    return {"rows": counts.rows, "dropped": counts.dropped}


def _version(_agent: "Agent", args: Mapping[str, Json]) -> Json:
    no_more(args)
    return {"version": __version__}


def _plan(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """What a target would do here. Nothing is changed; a repetition of what the device has is planned all the same."""
    payload = _document(args)
    no_more(args, "target")
    wanted = agent.intake.would_want(payload)
    observed = agent.reconciler.observed
    if observed is None:
        raise Refused("engine_away", "the engine has not answered yet: nothing can be planned")
    names = sorted({c.app for c in observed.containers} | wanted.apps.keys())
    plans = [_plan_of(agent, name, wanted.apps.get(name), observed) for name in names]
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
        "text": "\n".join(f"{plan.app}:\n" + _indented(str(plan)) for plan in plans if plan.steps) or "nothing to do",
    }


def _plan_of(agent: "Agent", name: str, wanted: WantedApp | None, observed: Observed) -> Plan:
    attempts = agent.reconciler.attempts()
    if wanted is None:
        return plan_removal(name, observed, attempts)
    settled = agent.reconciler.settled.get(name, {})
    return plan_app(wanted, observed, attempts, settled, gated=agent.releases.gated(wanted), pulled=agent.images.pulled)


def _explain(agent: "Agent", args: Mapping[str, Json]) -> Json:
    no_more(args, "app", "service")
    return explained(agent, args.get("app"), args.get("service"))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _apply(agent: "Agent", args: Mapping[str, Json]) -> Json:
    """A target from a file: the same checks and the same floor as from the broker."""
    payload = _document(args)
    no_more(args, "target")
    verdict, target = agent.intake.apply(payload)
    return {
        "verdict": verdict,
        "scope": target.scope,
        "epoch": target.version.epoch,
        "revision": target.version.revision,
    }


def _document(args: Mapping[str, Json]) -> bytes:
    """A target, or an envelope around one: as text, or as it is in JSON."""
    document = args.get("target")
    if isinstance(document, dict):
        document = json.dumps(document, ensure_ascii=False)
    if not isinstance(document, str):
        raise Refused("malformed", "the argument target is the document, or its text")
    try:
        # As the command line wrote its bytes as text, for what is no UTF-8: a compressed target.
        return document.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Refused("malformed", "the argument target is not Unicode: a lone surrogate") from error


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
    **operator.HANDLERS,
}
"""Verb → what answers it, or raises `Refused`. What comes over MQTT is those of `wire.commands`."""
