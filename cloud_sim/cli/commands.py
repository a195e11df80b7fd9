"""What people type: `cloud-sim publish`, `watch`, `devices`, `command`, `doctor`, `wait`, `simulate`, `version`."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live

from cloud_sim.cli import keys as keys_commands
from cloud_sim.cli.ask import PATIENCE_S, ask_all, ask_one, command
from cloud_sim.cli.doctor import doctor
from cloud_sim.cli.options import DONE, FAILED, TOO_LATE, Keys, Settings, complain, note, seconds, with_settings
from cloud_sim.cli.provision import provision
from cloud_sim.cli.screen import Screen, summary
from cloud_sim.cli.simulate import simulate
from cloud_sim.clock import monotonic, now
from cloud_sim.cloud import Cloud, Published
from cloud_sim.connection import Misconfigured
from cloud_sim.following import Following, Outcome
from cloud_sim.keys import read_signing_keys
from cloud_sim.source import check, combined, holds, read_files
from device_agent import __version__
from device_agent.model.target import Json
from device_agent.wire.commands import SPREAD_S

app = typer.Typer(
    name="cloud-sim",
    help="The other end of device-agent: publish targets to a fleet, and see what becomes of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not reached in time.",
)
app.add_typer(keys_commands.app)
app.command()(provision)
app.command()(with_settings(command))
app.command()(simulate)
app.command()(with_settings(doctor))

REFRESH_S = 0.2
_HELD = "the device is held: it stays as it runs now, whatever is published, until --no-hold"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Timeout = Annotated[
    float, typer.Option(parser=seconds, metavar="TIME", help="How long to wait: 90s, 5m, 2h.", show_default="5m")
]


@app.command()
@with_settings
def publish(
    settings: Settings,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="Compose files, or one target document.", show_default=False),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Publish to this device alone.")] = None,
    app_name: Annotated[
        str | None, typer.Option("--app", help="The app's name; else the Compose file's or folder's.")
    ] = None,
    profile: Annotated[list[str] | None, typer.Option(help="A profile of the Compose file to include.")] = None,
    remove: Annotated[list[str] | None, typer.Option(metavar="APP", help="Take an app out of the target.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="The target has these apps and no others.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Devices may be left without any app.")] = False,
    hold: Annotated[
        bool | None,
        typer.Option("--hold/--no-hold", help="With --device: it stays as it runs now, until --no-hold."),
    ] = None,
    release: Annotated[str | None, typer.Option(help="A name for what is published; else the time.")] = None,
    key: Keys = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Publish nothing: ask the devices what they would do, and show it.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it until the devices have converged.")] = True,
    timeout: Timeout = 300.0,
    as_json: AsJson = False,
) -> int:
    """Publish Compose files, or a target document, and follow it until all devices that are online have converged.

    A Compose file becomes one app of the target; the other apps stay as they are (see --replace and --remove).
    A target document is published whole; its version is counted up. What has not changed is not published again.
    """
    if not files and not remove and hold is None:
        raise Misconfigured("what is to be published? Name a Compose file or a target document, or --remove an app")
    source = read_files(files or [], app=app_name, profiles=profile or [])
    named = source.scope.get("fleet")
    if settings.fleet and named not in (None, settings.fleet):
        raise Misconfigured(f"the document is for the fleet {named}, and --fleet is {settings.fleet}")
    whose = device or source.scope.get("device")
    screen = Screen(as_json=as_json)
    with settings.cloud(named, keys=read_signing_keys(key or [])) as cloud:
        last = cloud.last(whose)
        apps = combined(source, last.apps if last else {}, removed=remove or [], replace=replace)
        held = holds(source, last, asked=hold, device=whose)
        more = {**source.more, **({"hold": True} if held else {})}
        if not (apps or allow_empty or source.allow_empty or whose):
            raise Misconfigured("this leaves no app at all, and devices refuse that: say --allow-empty if it is meant")
        for warning in (*source.warnings, *check(apps, fleet=cloud.last() if whose else None), *held * (_HELD,)):
            note(warning)
        if last and not key and cloud.is_signed(last):
            note(f"the last target, {last.version}, was signed, this one is not (--key): devices with keys refuse it")
        wanted = release or source.release
        if dry_run:
            target = cloud.draft(
                apps,
                device=whose,
                release=wanted,
                expires_at=source.expires_at,
                allow_empty=allow_empty or source.allow_empty,
                more=more,
            )
            return _ask_for_plans(cloud, screen, whose, {"target": target})
        same = last and not cloud.diff(apps, device=whose) and source.expires_at == last.expires_at and not source.more
        same = same and last is not None and last.hold == held
        if last and same and wanted in (None, last.release) and cloud.owns(whose) and cloud.signs(last):
            screen.say(f"nothing has changed: the target stays {last.version}, release {last.release}", "dim")
            published = cloud.again(last)
            screen.tell_published(published)
        else:
            published = cloud.publish(
                apps,
                device=whose,
                release=wanted or f"{now():%Y-%m-%d.%H%M%S}",
                expires_at=source.expires_at,
                allow_empty=allow_empty or source.allow_empty,
                more=more,
            )
            screen.changes(published.changes, f"the last target, {last.version}" if last else "nothing")
            screen.published(published)
        if not wait or held:
            return DONE
        try:
            return _follow(cloud, screen, published, timeout)
        except KeyboardInterrupt:
            note("no longer followed; the target stays published")
            raise


@app.command()
@with_settings
def watch(settings: Settings, as_json: AsJson = False) -> int:
    """Watch the fleet: a live table; piped, a line for every change."""
    screen = Screen(as_json=as_json)
    with settings.cloud() as cloud:
        if screen.live:
            with Live(console=screen.console, auto_refresh=False, screen=False) as live:
                _endless(cloud, lambda: live.update(_fleet(cloud, screen), refresh=True))
            return DONE
        shown: dict[str, object] = {}

        def changes() -> None:
            shortfalls = cloud.shortfalls()
            for device in cloud.devices():
                missing = shortfalls.get(device.id)
                seen = (cloud.presence(device), missing, device.releases, device.services, device.worst)
                if shown.get(device.id) != seen:
                    shown[device.id] = seen
                    screen.device(cloud, device, missing)

        _endless(cloud, changes)
    return DONE


@app.command()
@with_settings
def devices(settings: Settings, as_json: AsJson = False) -> int:
    """Show every device of the fleet that was ever heard of, once."""
    screen = Screen(as_json=as_json)
    with settings.cloud() as cloud:
        if screen.live:
            screen.console.print(_fleet(cloud, screen))
            return DONE
        shortfalls = cloud.shortfalls()
        for device in cloud.devices():
            screen.device(cloud, device, shortfalls.get(device.id))
        if not cloud.devices():
            note(f"no device of the fleet {cloud.fleet} has been heard of yet")
    return DONE


@app.command()
@with_settings
def wait(
    settings: Settings,
    converged: Annotated[  # noqa: ARG001 - the one thing there is to wait for: it may be said
        bool, typer.Option("--converged", help="What to wait for: all is as published.")
    ] = True,
    device: Annotated[list[str] | None, typer.Option(help="A device to wait for; else all that are online.")] = None,
    timeout: Timeout = 300.0,
) -> int:
    """Wait until devices have converged: they run exactly what was published last, proven by digest."""
    with settings.cloud() as cloud:
        cloud.wait_converged(timeout, device)
    return DONE


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(f"cloud-sim {__version__}")


def _ask_for_plans(cloud: Cloud, screen: Screen, device: str | None, args: Mapping[str, Json]) -> int:
    """Who would do what."""
    if device:
        return ask_one(cloud, screen, "plan", args, device, PATIENCE_S, named=True)
    return ask_all(cloud, screen, "plan", args, PATIENCE_S + SPREAD_S)


def _follow(cloud: Cloud, screen: Screen, published: Published, timeout: float) -> int:
    """Until all devices that are online have ended, or time is over."""
    following = Following(cloud, published)
    following.update()
    if following.outcome is Outcome.NOBODY:
        whom = f"device {published.device}" if published.device else f"no device of the fleet {cloud.fleet}"
        note(f"{whom} is {'not ' if published.device else ''}online: the broker keeps the target for when it connects")
        screen.say(f"waiting up to {timeout:.0f} s for it; Ctrl-C ends the waiting, not the target", "dim")
    ended: set[str] = set()
    until, tick = monotonic() + timeout, 0

    def step() -> bool:
        nonlocal tick
        began = monotonic()
        for entry in following.update():
            screen.ack(entry)
        for row in following.rows:
            if row.outcome in (Outcome.CONVERGED, Outcome.FAILED) and row.device not in ended:
                ended.add(row.device)
                screen.row(row)
        if following.outcome in (Outcome.CONVERGED, Outcome.FAILED) or monotonic() > until:
            return True
        _rest(cloud, began)
        tick = cloud.wait_for_news(tick, REFRESH_S)
        return False

    following = Following(cloud, published)
    if screen.live:
        with Live(console=screen.console, auto_refresh=False) as live:
            while not step():
                live.update(screen.following(following, max(0.0, until - monotonic())), refresh=True)
            live.update(screen.following(following), refresh=True)
    else:
        while not step():
            pass
    return _result(screen, following)


def _result(screen: Screen, following: Following) -> int:
    outcome = following.outcome
    told = {row.device: row.reason for row in following.rows if row.outcome is not Outcome.CONVERGED}
    screen.tell("result", outcome=outcome.value, summary=summary(following), devices=told)
    if outcome is Outcome.CONVERGED:
        screen.say(summary(following), "green")
        return DONE
    places = [
        f"{row.device}: {row.reason}" for row in following.rows if row.outcome in (Outcome.FAILED, Outcome.PENDING)
    ]
    complain(summary(following) + ("" if outcome is Outcome.FAILED else ", and the time is over"), *places)
    return FAILED if outcome is Outcome.FAILED else TOO_LATE


def _fleet(cloud: Cloud, screen: Screen) -> RenderableType:
    found = cloud.devices()
    if not found:
        return f"no device of the fleet {cloud.fleet} has been heard of yet"
    return screen.fleet(cloud, found, cloud.shortfalls([device.id for device in found]))


def _endless(cloud: Cloud, show: Callable[[], None]) -> None:
    """Show at every change until Ctrl-C, which is how watching is meant to end."""
    tick = 0
    with suppress(KeyboardInterrupt):
        while True:
            began = monotonic()
            show()
            _rest(cloud, began)
            tick = cloud.wait_for_news(tick, 1.0)


def _rest(cloud: Cloud, began: float) -> None:
    """As long as what `began` has taken: who looks at thousands must not keep their messages from being heard."""
    cloud.wait_for(lambda: False, monotonic() - began)
