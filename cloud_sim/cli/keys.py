"""`cloud-sim keys`: the keys that targets are signed with."""

from pathlib import Path
from typing import Annotated

import typer

from cloud_sim import keys
from cloud_sim.cli.options import ending
from cloud_sim.cli.screen import Screen

app = typer.Typer(
    name="keys",
    help="Make and show the keys that targets are signed with.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


@app.command()
def generate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes, such as signing.key.")],
    as_json: AsJson = False,
) -> None:
    """Make an Ed25519 key: the private half in FILE (0600), the public half for the devices beside it as *.pem."""
    screen = Screen(as_json=as_json)
    with ending():
        public = keys.generate(file)
        _show(screen, keys.show(public), public)
        screen.say(f"Sign with: cloud-sim publish --key {file} …")
        screen.say(f"Put {public.name} into each device's folder DEVICE_AGENT_TRUSTED_KEYS; {file.name} stays here.")


@app.command()
def show(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Keys, private or public.")],
    as_json: AsJson = False,
) -> None:
    """Show the public half of keys: what devices need, and what an envelope names as keyid."""
    screen = Screen(as_json=as_json)
    with ending():
        for file in files:
            key = keys.show(file)
            _show(screen, key, file)
            screen.say(key.pem.rstrip())


def _show(screen: Screen, key: keys.PublicKey, file: Path) -> None:
    screen.say(f"{file}: keyid {key.keyid}")
    screen.tell("key", file=str(file), keyid=key.keyid, public=key.pem)
