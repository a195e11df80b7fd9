"""`cloud-sim command`, and what `publish --dry-run` asks: a command to one device or to all, and its answers."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated

import typer

from cloud_sim.cli.answers import answer_body, heading, paragraphs
from cloud_sim.cli.options import DONE, FAILED, TOO_LATE, Keys, Settings, complain, note, seconds
from cloud_sim.cli.screen import Screen
from cloud_sim.cloud import Cloud
from cloud_sim.connection import Misconfigured
from cloud_sim.keys import read_signing_keys
from cloud_sim.roster import OFFLINE
from device_agent.model.target import Json
from device_agent.wire.commands import LOGS, OK, RUNNING, SPREAD_S, VERBS, Answer
from device_agent.wire.log import LogMessage

PATIENCE_S = 10.0
"""For an answer, beside the time over which those to a broadcast are spread."""

_FOR_ALL = frozenset(("report", "prune"))
"""Verbs that take no name."""


def command(
    settings: Settings,
    verb: Annotated[str, typer.Argument(metavar="VERB", help=", ".join(VERBS) + ".")],
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="APP or APP/SERVICE; of plan the FILE.", show_default=False),
    ] = None,
    device: Annotated[list[str] | None, typer.Option(help="To this device; may be given several times.")] = None,
    to_all: Annotated[bool, typer.Option("--all", help="To every device of the fleet.")] = False,
    volume: Annotated[list[str] | None, typer.Option(metavar="NAME", help="purge: a volume to delete.")] = None,
    tail: Annotated[int | None, typer.Option(metavar="LINES", help="logs: so many of the last lines.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="logs: from then on, a time or 10m.")] = None,
    follow: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="logs: and what is written for so long.")
    ] = None,
    key: Keys = None,
    timeout: Annotated[
        float | None, typer.Option(parser=seconds, metavar="TIME", help="How long to wait.", show_default="15s")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> int:
    """Send a command to devices that are online, and show what they answer.

    What changes something is carried out once, whatever is lost on the way. Exit codes: 0 all have done it, 1 one has
    refused or failed, 3 one has not answered in time.
    """
    if verb not in VERBS:
        raise Misconfigured(f"{verb!r} is no command: {', '.join(VERBS)}")
    if bool(device) == to_all:
        raise Misconfigured("to whom? Say --device NAME, or --all")
    if follow and (to_all or len(device or ()) > 1):
        raise Misconfigured("a log is followed on one device")
    args = _args(verb, name)
    more: dict[str, Json] = {"volumes": list(volume) if volume else None, "tail": tail, "since": since}
    args |= {key: value for key, value in more.items() if value is not None}
    if follow:
        args["follow_s"] = follow
    screen = Screen(as_json=as_json)
    with settings.cloud(keys=read_signing_keys(key or [])) as cloud:
        patience = timeout or PATIENCE_S + (SPREAD_S if to_all else 0.0) + (follow or 0.0)
        if to_all:
            return ask_all(cloud, screen, verb, args, patience)
        codes = [
            ask_one(cloud, screen, verb, args, each, patience, named=len(device or ()) > 1) for each in device or ()
        ]
        return FAILED if FAILED in codes else max(codes)


def _args(verb: str, name: str | None) -> dict[str, Json]:
    if verb in _FOR_ALL:
        if name is not None:
            raise Misconfigured(f"{verb} takes no name")
        return {}
    if name is None:
        what = "the FILE of a target" if verb == "plan" else "APP/SERVICE" if verb == LOGS else "APP or APP/SERVICE"
        raise Misconfigured(f"{verb} of what? Say {what}")
    if verb == "plan":
        return {"target": _target(Path(name))}
    app, _, service = name.partition("/")
    if verb == LOGS and not service:
        raise Misconfigured(f"logs of which service of {app}? Say {app}/SERVICE")
    return {"app": app, "service": service} if service else {"app": app}


def _target(file: Path) -> Json:
    try:
        content: Json = json.loads(file.read_bytes())
    except OSError as error:
        raise Misconfigured(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"{file} is no target in JSON (for a Compose file: publish --dry-run): {error}") from error
    return content


def ask_one(
    cloud: Cloud,
    screen: Screen,
    verb: str,
    args: Mapping[str, Json],
    device: str,
    timeout: float,
    *,
    named: bool = False,
) -> int:
    """One device's answer, and the exit code."""

    def show(log: LogMessage) -> None:
        for line in log.lines:
            screen.tell("line", device=device, at=line.at, stream=line.stream, text=line.text, container=line.container)
            screen.say(f"{line.container}  {line.text}" if line.container else line.text)
        if log.dropped:
            note(f"{log.dropped} lines were left out: it writes faster than a device sends")

    with cloud.ask(verb, args, device=device, expires_s=timeout) as asked:
        answers = asked.wait([device], timeout, show)
    followed = bool(args.get("follow_s")) and any(answer.status == OK for answer in answers.values())
    return _show(screen, verb, answers, [device], named=named, quiet=followed)


def ask_all(cloud: Cloud, screen: Screen, verb: str, args: Mapping[str, Json], timeout: float) -> int:
    """What all devices answer, and the exit code. Those that are offline are not waited for."""
    known = {device.id: cloud.presence(device) for device in cloud.devices()}
    online = sorted(device for device, presence in known.items() if presence != OFFLINE)
    if not online:
        complain(f"no device of the fleet {cloud.fleet} is online")
        return TOO_LATE
    with cloud.ask(verb, args, expires_s=timeout) as asked:
        answers = asked.wait(online, timeout)
    code = _show(screen, verb, answers, online, named=True)
    offline = sorted(known.keys() - set(online))
    if offline:
        screen.tell("offline", devices=list(offline))
        note(f"offline, and not asked: {heading(offline)}")
    return code


def _show(
    screen: Screen,
    verb: str,
    answers: Mapping[str, Answer],
    awaited: Collection[str],
    *,
    named: bool,
    quiet: bool = False,
) -> int:
    for answer in sorted(answers.values(), key=lambda answer: answer.device):
        screen.tell("answer", verb=verb, **answer_body(answer))
    for devices, status, text in paragraphs(verb, answers):
        if named:
            screen.say(f"{heading(devices)}:", "bold")
        if not (quiet and status == OK):
            style = "" if status == OK else "yellow" if status == RUNNING else "red"
            screen.say("\n".join("  " + line for line in text.splitlines()) if named else text, style)
    silent = [device for device in awaited if device not in answers or answers[device].status == RUNNING]
    if silent:
        screen.tell("silent", devices=list(silent))
        complain(f"no answer in time from {heading(silent)}: is it online, and does its agent know the command {verb}?")
    if any(answer.status not in (OK, RUNNING) for answer in answers.values()):
        return FAILED
    return TOO_LATE if silent else DONE
