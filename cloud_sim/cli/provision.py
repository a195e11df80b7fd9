"""`cloud-sim provision`: a secured broker, its cloud and its devices, in one folder."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cloud_sim.cli.options import ending
from cloud_sim.cli.screen import Screen
from cloud_sim.clock import now
from cloud_sim.provision import BROKER_UID, Provision

FURTHEST_DAYS = 3650


def provision(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where all of it is kept: it holds private keys.")],
    fleet: Annotated[str, typer.Option(envvar="CLOUD_SIM_FLEET", help="The fleet.")],
    broker: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The broker's host name or address, as devices call it; repeatable."),
    ] = None,
    device: Annotated[list[str] | None, typer.Option(metavar="ID", help="A device to add; repeatable.")] = None,
    days: Annotated[int, typer.Option(min=1, max=FURTHEST_DAYS, help="How long new certificates are valid.")] = 365,
    renew: Annotated[bool, typer.Option("--renew", help="Make every certificate anew, for the same keys.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Make a certificate authority, a configured broker, and what the cloud and each device need to connect and sign.

    Run again, it adds what is missing, and writes over nothing (but certificates, with --renew).
    """
    screen = Screen(as_json=as_json)
    with ending():
        made = Provision(folder, fleet, now(), days, renew)
        made.run(broker or (), device or ())
        for file in made.made:
            screen.say(str(file))
        screen.tell("provisioned", files=[str(file) for file in made.made])
        if not made.made:
            screen.say("everything is there already", "dim")
        elif os.geteuid():
            screen.say(f"the broker must be able to read it: sudo chown -R {BROKER_UID} {folder / 'broker'}", "bold")
