"""The status for people: a table and colours at a terminal, plain lines when piped."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

_MIB = 2**20
_GOOD = frozenset(("running", "healthy", "completed"))
_BUSY = frozenset(("waiting", "pulling", "created", "starting", "stopping"))


def show_status(status: Mapping[str, Any], console: Console) -> None:
    console.print(_headline(status), highlight=False, markup=False, soft_wrap=not console.is_terminal)
    for pull in status["pulls"]:
        line = _pulling(pull, datetime.fromisoformat(status["at"]))
        console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    if not status["apps"]:
        console.print("no app is wanted here yet: publish a target, or device-agent apply FILE", highlight=False)
        return
    if console.is_terminal:
        console.print(_table(status))
    else:
        for row in _rows(status):
            console.print("  ".join(cell for cell in row if cell), highlight=False, markup=False, soft_wrap=True)


def _headline(status: Mapping[str, Any]) -> str:
    have = status["have"]
    versions = ", ".join(f"{scope} {target['epoch']}.{target['revision']}" for scope, target in have.items() if target)
    parts = [
        f"{status['fleet']}/{status['device']}",
        "converged" if status["converged"] else "not converged",
        f"target: {versions or 'none'}",
        "connected" if status["connected"] else "not connected",
    ]
    if status["store"]["status"] != "ok":
        parts.append(f"store: {status['store']['status']}")
    if "engine" in status:
        parts.append(f"engine: {status['engine']['status']}")
    if status["outbox"]["rows"]:
        parts.append(f"{status['outbox']['rows']} messages to send")
    return " · ".join(parts)


def _pulling(pull: Mapping[str, Any], now: datetime) -> str:
    """`pulling registry.example/api:2: 10.0 of 40.0 MiB (25 %), 1.2 MiB/s`."""
    done, total = pull["done"], pull["total"]
    if not total:
        return f"pulling {pull['image']}: nothing has arrived yet"
    told = f"pulling {pull['image']}: {done / _MIB:.1f} of {total / _MIB:.1f} MiB ({done * 100 // total} %)"
    seconds = (now - datetime.fromisoformat(pull["since"])).total_seconds()
    return told + (f", {done / _MIB / seconds:.1f} MiB/s" if seconds > 0 else "")


def _rows(status: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str, str]]:
    for name, app in status["apps"].items():
        if app.get("reason"):
            yield name, app["phase"], "", "", _why(app["reason"])
        for service, told in app["services"].items():
            yield (
                f"{name}/{service}",
                told["status"],
                told["container"] or "",
                app["release"] or "",
                _why(told["reason"]),
            )
        for warning in app["warnings"]:
            yield name, "warning", "", "", f"{warning['pointer']}: {warning['message']}"


def _why(reason: Mapping[str, Any] | None) -> str:
    if not reason:
        return ""
    words = f"{reason['code']}: {reason['message']}"
    if "attempt" in reason:
        words += f" (attempt {reason['attempt']}, next try at {reason['next_try_at']})"
    return words


def _table(status: Mapping[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("SERVICE", "STATUS", "CONTAINER", "RELEASE", "WHY"):
        table.add_column(column, overflow="fold")
    for service, condition, container, release, why in _rows(status):
        colour = "green" if condition in _GOOD else "yellow" if condition in _BUSY else "red"
        table.add_row(service, f"[{colour}]{condition}[/]", container, release, why)
    return table


def history_lines(history: Mapping[str, Any]) -> Iterator[str]:
    for scope, target in history["targets"].items():
        release = f" (release {target['release']})" if target["release"] else ""
        awaited = f", awaited: {', '.join(target['awaited'])}" if target["awaited"] else ""
        yield (
            f"{scope} target {target['epoch']}.{target['revision']}{release}: accepted {target['accepted_at']}, "
            f"{target['ended'] or 'under way'}{awaited}"
        )
    for name, app in history["apps"].items():
        if app["settled"]:
            before = f", before: {app['previous']}" if app["previous"] else ""
            yield f"{name}: settled with {_release(app['settled'])}{before}"
        if app["failed"]:
            yield f"{name}: failed with {_release(app['failed'])}: {app['failed']['code']}: {app['failed']['message']}"
    for each in history["attempts"]:
        subject = f"{each['app']}/{each['subject']}" if each["app"] else each["subject"]
        yield f"{subject}: attempt {each['attempt']}, next {each['next_try_at']}: {each['code']}: {each['message']}"
    for each in history["orders"]:
        yield f"{each['app']}{'/' + each['service'] if each['service'] else ''}: {each['verb']}, by an operator"


def _release(of: Mapping[str, Any]) -> str:
    return f"{of['release']} ({of['revision']})" if of["release"] else str(of["revision"])
