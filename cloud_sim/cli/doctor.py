"""`cloud-sim doctor`: what a broker's settings break, and which setting mends it."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from cloud_sim.cli.options import DONE, FAILED, TOO_LATE, Settings, complain
from cloud_sim.cli.screen import Screen
from cloud_sim.connection import Broker, Denied, Misconfigured, Unreachable
from cloud_sim.doctor import Doctor, Finding, Restart, Status
from device_agent.wire.topics import check_root

_STYLES = {Status.OK: "green", Status.WARNING: "yellow", Status.BROKEN: "red", Status.UNKNOWN: "dim"}


def doctor(
    settings: Settings,
    mark: Annotated[
        bool, typer.Option("--mark", help="Leave a retained marker, to see after a restart whether it is still there.")
    ] = False,
    restarted: Annotated[
        bool, typer.Option("--restarted", help="The broker was restarted since --mark: look for the marker, remove it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> int:
    """Try at the broker what devices rely on: retained messages, Will, sessions, sizes. Takes about 15 seconds.

    Exit codes: 0 all good (there may be warnings), 1 something is broken, 2 usage or configuration, 3 not reached.
    """
    if mark and restarted:
        raise Misconfigured("--mark is for before the restart, --restarted for after it: one of them")
    restart = Restart.MARK if mark else Restart.RESTARTED if restarted else Restart.NOT_ASKED
    try:
        root = check_root(settings.topic_root)
    except ValueError as error:
        raise Misconfigured(str(error)) from error
    broker = Broker.of(
        settings.url,
        version=settings.mqtt_version.value,
        username=settings.username,
        password_file=settings.password_file,
        ca_file=settings.ca_file,
        cert_file=settings.cert_file,
        key_file=settings.key_file,
    )
    screen = Screen(as_json=as_json)
    try:
        findings = tuple(_told(screen, Doctor(broker, root).examine(restart)))
    except (Unreachable, Denied) as error:
        complain(str(error))
        return TOO_LATE
    if screen.live:
        screen.console.print(_table(broker, findings))
    return FAILED if any(finding.status is Status.BROKEN for finding in findings) else DONE


def _told(screen: Screen, findings: Iterator[Finding]) -> Iterator[Finding]:
    for finding in findings:
        screen.tell("finding", **asdict(finding))
        if not screen.live:
            screen.say(f"{finding.status}  {finding.probe}: {finding.asked}: {finding.seen}")
            if finding.status in (Status.WARNING, Status.BROKEN):
                screen.say(f"  breaks: {finding.breaks}")
                screen.say(f"  mend: {finding.mend}")
        yield finding


def _table(broker: Broker, findings: tuple[Finding, ...]) -> Table:
    table = Table("", "what is asked", "what was seen", title=f"{broker}, MQTT {broker.version}", title_justify="left")
    for finding in findings:
        seen = Text(finding.seen)
        if finding.status in (Status.WARNING, Status.BROKEN):
            seen.append(f"\nbreaks: {finding.breaks}", "bold")
            seen.append(f"\nmend: {finding.mend}")
        table.add_row(Text(finding.status, _STYLES[finding.status]), finding.asked, seen)
    return table
