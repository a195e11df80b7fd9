"""`make faults`: break a device in every way there is here, and see it come right. ARGS="--list" names the ways.

Each fault is carried out several times, a sweep once for each call that it hits, with seeds of their own, on a real
engine and a real broker, and judged by one oracle (tests/faults/oracle.py). ARGS="--runs 20 'kill -9'" runs the faults
with that in their names 20 times; ARGS="--compound" brings a second fault into the recovery from each;
ARGS="--soak 3600" mixes them for an hour.
"""

import argparse
import contextlib
import io
import json
import os
import secrets
import signal
import statistics
import sys
from collections.abc import Callable, Sequence

import docker.errors
from rich.console import Console
from rich.table import Table

from tests.arguments import count, duration, writable
from tests.e2e.host import DEFAULT_URL, Host
from tests.faults.fault import Fault, matching
from tests.faults.groups import FAULTS, GROUPS
from tests.faults.run import Outcome, Wish, carry_out
from tests.faults.soak import soak

CANNOT = 2
"""The exit code when nothing could be tried, as argparse has it for a wrong word."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell tells it."""
STOPPING = b"interrupted: no other run begins; it ends with those under way, and clears up (a few minutes at most)\n"
SECONDS = (
    "kill -9 at a random moment of an apply",
    "cable pulled in the middle of an apply",
    "engine unreachable in the middle of an apply",
    "docker rm -f",
    "docker stop in the middle of an apply",
)


def main() -> int:
    options, chosen = _asked_for()
    if options.list:
        for each in chosen:
            print(f"{each.group:9} {each.name}")
        return 0
    console = Console(stderr=True, markup=False, highlight=False)
    chosen = _fit(chosen, lambda each: each.may_be_tried, "only root may do them", console)
    sweeps = sum(each.sweep for each in chosen)
    plan = f"{options.runs} runs each" + (f" ({sweeps} sweeps: one for each call)" if sweeps else "")
    if options.soak is not None:
        chosen = _fit(chosen, lambda each: each.mild, "they spoil a device or need an engine of their own", console)
        plan = f"a soak of {options.soak:g} s"
    if not chosen:
        console.print("no fault is left to be tried")
        return CANNOT
    url = os.environ.get("DOCKER_HOST") or DEFAULT_URL
    try:
        host = Host(url, f"faults-{secrets.token_hex(3)}")
    except docker.errors.DockerException as error:
        console.print(f"no container engine answers at {url}: `make setup` starts one\n({error})")
        return CANNOT
    seconds = [FAULTS[name] for name in SECONDS] if options.compound else []
    wish = Wish(host, options.runs, options.seed, seconds, options.step)
    _stop_at_a_signal(wish)
    console.print(f"seed {options.seed}: {len(chosen)} faults, {plan}")
    finished: list[Outcome] = []

    def told(done: Outcome) -> None:
        console.print(_line(done))
        finished.append(done)
        _write(options, finished, console)  # a run that is stopped has told what it found

    # What devices print at their end is for pytest; here it is in the files that `run` keeps.
    with contextlib.closing(host), contextlib.redirect_stdout(io.StringIO()):
        if options.soak is None:
            carry_out(wish, chosen, options.hands, told)
        else:
            soak(wish, chosen, options.soak, console.print, finished)
    finished.sort(key=lambda outcome: chosen.index(outcome.fault))
    Console(width=None if sys.stdout.isatty() else 180, markup=False).print(table(finished))
    written = _write(options, finished, console)
    if wish.stop.is_set():
        console.print("interrupted: these are the runs that came to their end")
        return INTERRUPTED
    return 1 if any(each.broken for each in finished) or not written else 0


def _asked_for() -> tuple[argparse.Namespace, list[Fault]]:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("words", nargs="*", metavar="WORD", help="only faults with one of these in the name or group")
    parser.add_argument("--list", action="store_true", help="name them, and do nothing")
    parser.add_argument(
        "--runs", type=count, default=3, help="of each fault (default 3); a sweep has one for each call"
    )
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeat the runs of a seed that was told")
    parser.add_argument("--step", type=count, default=1, help="a sweep takes every so manieth call (default 1)")
    parser.add_argument("--hands", type=count, default=4, help="devices broken side by side (default 4)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--compound", action="store_true", help="a second fault during the recovery from each")
    how.add_argument("--soak", type=duration, metavar="SECONDS", help="random faults on one device for so long")
    parser.add_argument("--json", type=writable, help="also write the outcomes to this file")
    parser.add_argument(
        "--markdown", type=writable, help="also write the table to this file, as in docs/reliability.md"
    )
    options = parser.parse_args()
    faults = sorted(FAULTS.values(), key=lambda each: GROUPS.index(each.group))
    try:
        return options, matching(options.words, faults)
    except ValueError as error:
        parser.error(f"{error}: --list names them")


def _fit(faults: Sequence[Fault], fit: Callable[[Fault], bool], why: str, console: Console) -> list[Fault]:
    """Those that are; it is told how many are not, because `why`."""
    left = [each for each in faults if fit(each)]
    if len(left) < len(faults):
        console.print(f"left out, because {why}: {len(faults) - len(left)} of {len(faults)} faults")
    return left


def _stop_at_a_signal(wish: Wish) -> None:
    """Ctrl-C and SIGTERM, also the second one, which must not cut short what clears up after the first."""

    def told_to(*_: object) -> None:
        # Not through the console: this comes in the middle of anything, also of a line of its.
        os.write(sys.stderr.fileno(), STOPPING)
        wish.stop.set()

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, told_to)


def _write(options: argparse.Namespace, outcomes: Sequence[Outcome], console: Console) -> bool:
    """False when a file could not be written, which has been told: the runs go on."""
    try:
        if options.json:
            rows = [_row(each) for each in outcomes]
            options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        if options.markdown:
            options.markdown.write_text(markdown(outcomes), encoding="utf-8")
    except OSError as error:
        console.print(f"the outcomes could not be written: {error}")
        return False
    return True


def _line(done: Outcome) -> str:
    if not done.broken:
        return f"  ok      {done.fault.name}: {done.runs} runs, worst {max(done.took_s, default=0):.1f} s"
    return f"  BROKEN  {done.fault.name}: " + "; ".join(done.broken)


def table(outcomes: Sequence[Outcome]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for column in ("FAULT", "RUNS", "CONVERGED", "MEDIAN S", "WORST S", "LONGEST GAP S", "INVARIANTS BROKEN"):
        shown.add_column(column, justify="left" if column in {"FAULT", "INVARIANTS BROKEN"} else "right")
    for done in outcomes:
        row = _row(done)
        broken = f"{len(done.broken)}: {done.broken[0][:60]}" if done.broken else "none"
        figures = [f"{row[key]:.1f}" if row[key] is not None else "-" for key in ("median_s", "worst_s", "gap_s")]
        shown.add_row(done.fault.name, str(done.runs), str(row["converged"]), *figures, broken)
    return shown


def markdown(outcomes: Sequence[Outcome]) -> str:
    """The same for a page."""
    lines = ["| fault | runs | converged | median s | worst s | longest gap s | invariants broken |"]
    lines.append("|---|--:|--:|--:|--:|--:|---|")
    group = ""
    for done in outcomes:
        row = _row(done)
        if done.fault.group != group:
            group = done.fault.group
            lines.append(f"| **{group}** | | | | | | |")
        figures = [f"{row[key]:.1f}" if row[key] is not None else "-" for key in ("median_s", "worst_s", "gap_s")]
        broken = f"{len(done.broken)} runs" if done.broken else "none"
        cells = [done.fault.name, str(done.runs), str(row["converged"]), *figures, broken]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _row(done: Outcome) -> dict[str, object]:
    return {
        "fault": done.fault.name,
        "group": done.fault.group,
        "runs": done.runs,
        "converged": len(done.took_s),
        "median_s": statistics.median(done.took_s) if done.took_s else None,
        "worst_s": max(done.took_s, default=None),
        "gap_s": max(done.gaps_s, default=None),
        "broken": done.broken,
    }


if __name__ == "__main__":
    sys.exit(main())
