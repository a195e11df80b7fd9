"""The commands that people type. They ask the running agent; only when none runs they open the database themselves.

Exit codes: 0 done, 1 failed, 2 usage or configuration.
"""

import base64
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from device_agent import __version__
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.control_socket import NoAgent, ask
from device_agent.adapters.store import StoreLocked
from device_agent.cli.finding import Health
from device_agent.cli.settings import BadSetting, Settings, load, sources
from device_agent.cli.show import history_lines, show_status
from device_agent.model.errors import StoreBroken, StoreFull

STALE_S = 90
"""A heartbeat older than this is no agent. The image's HEALTHCHECK says the same."""
_STDIO = "-"

app = typer.Typer(
    name="device-agent",
    help="Runs this device's target state: received over MQTT, kept on the volume, made true by the container engine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Document = Annotated[str, typer.Argument(metavar="FILE", help="A target, plain or signed; - reads standard input.")]


def main() -> int:
    """Run the command that was typed; the exit code."""
    try:
        # Not standalone, it returns the code of a `typer.Exit`, and None after a command that just ended.
        return int(app(prog_name="device-agent", standalone_mode=False) or 0)
    except typer.Exit as end:
        return int(end.exit_code)
    except BadSetting as bad:
        return _say(str(bad), 2)
    except StoreLocked:
        return _say("an agent runs on this data folder, but does not listen at DEVICE_AGENT_CONTROL_SOCKET", 1)
    except (StoreBroken, StoreFull, OSError, ValueError, TypeError) as error:
        return _say(str(error), 1)
    except typer.Abort:
        return 1
    except Exception as error:
        # typer brings its own copy of click: a usage error is told by what it can do, not by its class.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return 2


def _say(message: str, code: int) -> int:
    print(f"device-agent: {message}", file=sys.stderr)
    return code


def _fail(message: str, code: int = 1) -> NoReturn:
    raise typer.Exit(_say(message, code))


def _ask(settings: Settings, verb: str, args: dict[str, Any] | None = None) -> Any:
    """The result of a command, from the agent or, when none runs, from here."""
    try:
        answer = ask(settings.control_socket, verb, args or {})
    except NoAgent:
        from device_agent.cli.offline import answer_offline  # noqa: PLC0415 - loads the whole agent

        answer = answer_offline(settings, verb, args or {})
    if "note" in answer:
        # Beside the answer, which may be JSON or a backup.
        _say(answer["note"], 0)
    if answer["status"] == "ok":
        return answer["result"]
    error = answer["error"]
    for problem in error.get("errors", ()):
        print(f"  {problem['pointer']}: {problem['message']}", file=sys.stderr)
    return _fail(f"{error['code']}: {error['message']}")


def _print(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _read(file: str) -> bytes:
    if file == _STDIO:
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        _fail(f"{file}: {error.strerror}", 2)


@app.command()
def run() -> None:
    """Run the agent until SIGTERM. Settings come from DEVICE_AGENT_* and, if named there, a TOML file."""
    from device_agent.cli.run import run as start  # noqa: PLC0415 - loads the whole agent

    raise typer.Exit(start())


@app.command()
def status(as_json: Json = False) -> None:
    """What runs here, what is wanted, and why the two differ."""
    result = _ask(load(), "status")
    if as_json:
        _print(result)
    else:
        show_status(result, Console())


@app.command()
def plan(file: Document, as_json: Json = False) -> None:
    """What a target would do here, step by step. Nothing is changed."""
    result = _ask(load(), "plan", {"target": _read(file).decode("utf-8", "surrogateescape")})
    if as_json:
        _print(result)
        return
    print(result["text"])
    for name, blocked in result["blocked"].items():
        for each in blocked:
            print(f"{name}: {each['subject']} is blocked ({each['code']}): {each['message']}")


@app.command()
def explain(
    name: Annotated[str, typer.Argument(metavar="SERVICE", help="APP/SERVICE, SERVICE where one app has it, or APP.")],
    as_json: Json = False,
) -> None:
    """Why a service is as it is: what is wanted, what is, what was tried, what it waits for, what comes next."""
    result = _ask(load(), "explain", _place(name))
    if as_json:
        _print(result)
    else:
        print(result["text"])


@app.command()
def apply(file: Document, as_json: Json = False) -> None:
    """Accept a target from a file: the same checks and the same version floor as from the broker."""
    result = _ask(load(), "apply", {"target": _read(file).decode("utf-8", "surrogateescape")})
    if as_json:
        _print(result)
    else:
        version = f"{result['scope']} {result['epoch']}.{result['revision']}"
        note = result.get("note", "see device-agent status")
        print(f"{result['verdict']}: {version}; {note}")


Where = Annotated[str, typer.Argument(metavar="APP[/SERVICE]", help="A service, or an app for all of its services.")]
App = Annotated[str, typer.Argument(metavar="APP")]


def _place(name: str) -> dict[str, str]:
    app_name, _, service = name.partition("/")
    return {"app": app_name, "service": service} if service else {"app": app_name}


def _order(verb: str, name: str, done: str, as_json: bool) -> None:
    result = _ask(load(), verb, _place(name))
    if as_json:
        _print(result)
    else:
        names = ", ".join(f"{result['app']}/{service}" for service in result["services"])
        print(f"{done}: {names}; see device-agent status")


@app.command()
def stop(name: Where, as_json: Json = False) -> None:
    """Stop a service and keep it stopped, across restarts too, until it is started or its definition changes."""
    _order("stop", name, "to be stopped", as_json)


@app.command()
def start(name: Where, as_json: Json = False) -> None:
    """Start a service that was stopped."""
    _order("start", name, "to run", as_json)


@app.command()
def restart(name: Where, as_json: Json = False) -> None:
    """Stop a service and start the same container again."""
    _order("restart", name, "to be restarted", as_json)


@app.command()
def retry(name: App, as_json: Json = False) -> None:
    """Try an app again now: without waiting after failures, and its release although it failed its gate."""
    result = _ask(load(), "retry", {"app": name})
    if as_json:
        _print(result)
        return
    release = result["release"] and (result["release"]["release"] or result["release"]["revision"])
    print(f"{name}: {result['attempts']} failures forgotten" + (f", release {release} tried again" if release else ""))


@app.command()
def unlock(name: App, as_json: Json = False) -> None:
    """Let a release begin now that waits for an update lock or for its maintenance window."""
    result = _ask(load(), "unlock", {"app": name})
    if as_json:
        _print(result)
    else:
        print(f"{name}: it no longer waits ({result['cause']})")


@app.command()
def purge(
    name: App,
    volumes: Annotated[list[str], typer.Argument(metavar="VOLUME...", help="As status lists them, or their keys.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete volumes of an app, with everything in them: those that nothing uses and no target wants any more."""
    if not yes:
        if not sys.stdin.isatty():
            _fail("this deletes data: say --yes where nobody can be asked", 2)
        typer.confirm(f"Delete {', '.join(volumes)} of {name} with everything in it?", abort=True, err=True)
    result = _ask(load(), "purge", {"app": name, "volumes": volumes})
    if as_json:
        _print(result)
    else:
        print(f"deleted: {', '.join(result['volumes'])}")


@app.command()
def prune(as_json: Json = False) -> None:
    """Remove the images that the agent has pulled and that nothing wants any more."""
    result = _ask(load(), "prune")
    if as_json:
        _print(result)
    else:
        print("\n".join(f"being removed: {image}" for image in result["images"]) or "nothing to remove")


@app.command()
def history(as_json: Json = False) -> None:
    """What this device remembers: its targets, the releases that settled and failed, attempts, operators' orders."""
    result = _ask(load(), "history")
    if as_json:
        _print(result)
    else:
        print("\n".join(history_lines(result)) or "nothing yet: no target was ever accepted here")


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="APP/SERVICE", help="The service.")],
    tail: Annotated[int, typer.Option(metavar="LINES", help="So many of the last lines.")] = 100,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="From then on: a time, or 10m.")] = None,
    as_json: Json = False,
) -> None:
    """The last lines that a service has written."""
    app_name, _, service = name.partition("/")
    args = {"app": app_name, "service": service, "tail": tail, "since": since}
    result = _ask(load(), "logs", {key: value for key, value in args.items() if value is not None})
    if as_json:
        _print(result)
        return
    for line in result["lines"]:
        print(f"{line['container']}  {line['text']}" if "container" in line else line["text"])
    if result["dropped"]:
        print(f"{result['dropped']} older lines are left out", file=sys.stderr)


@app.command()
def backup(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; - writes to standard output.")],
) -> None:
    """Write a consistent copy of the database, also while the agent runs."""
    result = _ask(load(), "backup")
    content = base64.b64decode(result["content"])
    if file == _STDIO:
        sys.stdout.buffer.write(content)
        return
    target = Path(file)
    partial = target.with_name(target.name + ".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(target)
    print(f"{len(content)} bytes written to {file}")


@app.command()
def restore(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A backup; - reads standard input.")],
) -> None:
    """Replace the database by a backup. The highest versions ever accepted stay the floor."""
    result = _ask(load(), "restore", {"content": base64.b64encode(_read(file)).decode()})
    targets = ", ".join(f"{scope} {epoch}.{revision}" for scope, (epoch, revision) in result["targets"].items())
    print(f"restored: {targets or 'no target'}")


@app.command()
def config(as_json: Json = False) -> None:
    """Every setting, its value, and where it comes from."""
    table = sources(load())
    if as_json:
        _print({name: {"value": value, "source": source} for name, (value, source) in table.items()})
        return
    width = max(map(len, table))
    for name, (value, source) in table.items():
        print(f"{name:<{width}}  {value or '-'}  ({source})")


@app.command()
def doctor(as_json: Json = False) -> None:
    """Look at what this device needs (engine, database, broker, disk, files, clock) and say what to do."""
    from device_agent.cli.doctor import examine  # noqa: PLC0415 - loads the whole agent

    findings = []
    for finding in examine(load()):
        findings.append(finding)
        if not as_json:
            print(f"{finding.status:<7}  {finding.check}: {finding.seen}")
            if finding.mend:
                print(f"         {finding.mend}")
    if as_json:
        _print([asdict(finding) for finding in findings])
    if any(finding.status == Health.BROKEN for finding in findings):
        raise typer.Exit(1)


@app.command()
def healthcheck() -> None:
    """Whether the agent's loop is alive: its heartbeat is younger than 90 s."""
    from device_agent.cli.serve import HEARTBEAT  # noqa: PLC0415 - loads the whole agent

    heartbeat = load().control_socket.parent / HEARTBEAT
    try:
        age = SystemClock().now().timestamp() - heartbeat.stat().st_mtime
    except FileNotFoundError:
        _fail(f"no heartbeat at {heartbeat}: no agent runs")
    if age > STALE_S:
        _fail(f"the last heartbeat is {age:.0f} s old: the agent hangs")
    print(f"alive: the last heartbeat is {age:.0f} s old")


@app.command()
def version() -> None:
    """The version of this program."""
    print(__version__)
