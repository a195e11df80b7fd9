"""`make bench`: every figure beside its peer, measured in one run; medians and the range.

ARGS="downtime drift" runs these parts alone; ARGS="--runs 3 --idle 30 --json FILE" goes to the program too.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import downtime, idle, install, passes
from benchmarks.world import Agent, agent, app, broker, restarted

SERVICES = 10


@dataclass(frozen=True)
class Row:
    what: str
    agent: str
    peers: str
    goal: str


@dataclass(frozen=True)
class Bench:
    """What a part works with."""

    agent: Agent
    runs: int
    idle_s: float
    say: Callable[[str], None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all of them by default")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=60, help="seconds at rest")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    unknown = sorted(set(options.parts) - PARTS.keys())
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: {', '.join(PARTS)}")
    console = Console(stderr=True)
    rows: list[Row] = []
    with broker() as port, agent(port) as running:
        bench = Bench(running, options.runs, options.idle, console.print)
        for part in options.parts or PARTS:
            rows += PARTS[part](bench)
            running.publish({})
            running.converged()
    _show(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")
    return 0


def _installs(bench: Bench) -> list[Row]:
    bench.say(f"{SERVICES} services, {bench.runs} runs of agent, raw API and compose in turn ...")
    by_agent, raw, compose = [], [], []
    for number in range(bench.runs):
        by_agent.append(install.by_agent(bench.agent, SERVICES))
        raw.append(install.by_engine(SERVICES))
        compose.append(install.by_compose(SERVICES))
        bench.say(
            f"  {number + 1}: agent {by_agent[-1][0]:.2f} s, raw {raw[-1][0]:.2f} s, compose {compose[-1][0]:.2f} s"
        )
    rows = []
    for index, what in enumerate((f"{SERVICES} services: published → running", f"all {SERVICES} changed → replaced")):
        ours, bare, peer = ([run[index] for run in column] for column in (by_agent, raw, compose))
        peers = f"raw {_beside(ours, bare)}, compose {_beside(ours, peer)}"
        rows.append(Row(what, _seconds(ours), peers, "≤ 1.15 x raw, < compose" if index == 0 else "< compose"))
    return rows


def _passes(bench: Bench) -> list[Row]:
    rows = []
    for count in (SERVICES, 5 * SERVICES):
        bench.say(f"a pass with nothing to do, {count} services ...")
        took, bare = passes.nothing_to_do(bench.agent, count)
        what = f"pass with nothing to do, {count} services"
        rows.append(Row(what, f"{took * 1e3:.1f} ms", f"list call {bare * 1e3:.1f} ms: {took / bare:.2f} x", "≤ 3 x"))
    return rows


def _drift(bench: Bench) -> list[Row]:
    bench.say("a container removed by hand ...")
    drifts = [passes.removed_by_hand(bench.agent) for _ in range(bench.runs)]
    repaired, raw, told = (tuple(column) for column in zip(*drifts, strict=True))
    limit = 1.2 * statistics.median(raw) + 0.05
    return [
        Row("removed by hand → running", _seconds(repaired), f"raw {_seconds(raw)}", f"≤ {limit:.3f} s"),
        Row("change → retained state at the broker", _seconds(told), "", "≤ 0.5 s"),
    ]


def _downtime(bench: Bench) -> list[Row]:
    bench.say("a service that is asked while it is replaced ...")
    recreated, started_first, raw, compose = [], [], [], []
    for _ in range(bench.runs):
        recreated.append(downtime.by_agent(bench.agent, "recreate"))
        started_first.append(downtime.by_agent(bench.agent, "start-first"))
        raw.append(downtime.by_engine())
        compose.append(downtime.by_compose())
    peers = f"raw {_beside(recreated, raw)}, compose {_beside(recreated, compose)}"
    return [
        Row("longest time without an answer, recreate", _seconds(recreated), peers, "≤ 1.1 x raw"),
        Row("longest time without an answer, start-first", _seconds(started_first), "", "a question's time"),
    ]


def _written(bench: Bench) -> list[Row]:
    bench.say(f"what an install of {SERVICES} services writes ...")
    written = idle.written_for_install(bench.agent, SERVICES)
    return [Row(f"written to disk, install of {SERVICES}", f"{written / 1000:.0f} kB", "", "≤ 60 kB")]


def _rest(bench: Bench) -> list[Row]:
    bench.agent.publish({"bench": app(SERVICES)})
    bench.agent.converged()
    bench.say(f"at rest for {bench.idle_s:g} s ...")
    pss, cpu, idle_bytes, states = idle.at_rest(bench.agent, bench.idle_s)
    return [
        Row("at rest: PSS", f"{pss:.1f} MiB", "", "≤ 60 MiB"),
        Row("at rest: CPU", f"{cpu:.3%} of a core", "", "≤ 0.05 %"),
        Row("at rest: written, states sent", f"{idle_bytes} bytes, {states}", "", "0, 0"),
    ]


def _start(bench: Bench) -> list[Row]:
    bench.agent.publish({"bench": app(SERVICES)})
    bench.agent.converged()
    bench.say("a start without a network ...")
    with restarted(bench.agent) as environment:
        took = idle.first_pass(environment, bench.runs)
    peers = f"libraries alone {_seconds(idle.libraries_alone(bench.runs))}"
    return [Row("start → first pass, offline", _seconds(took), peers, "≤ 0.4 s")]


PARTS = {
    "install": _installs,
    "pass": _passes,
    "drift": _drift,
    "downtime": _downtime,
    "written": _written,
    "rest": _rest,
    "start": _start,
}


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} s ({min(values):.3f}-{max(values):.3f})"


def _beside(ours: Sequence[float], peer: Sequence[float]) -> str:
    return f"{_seconds(peer)} ({statistics.median(ours) / statistics.median(peer):.2f} x)"


def _show(rows: list[Row]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("WHAT", "AGENT", "BESIDE", "TO REACH"):
        table.add_column(column)
    for row in rows:
        table.add_row(row.what, row.agent, row.peers, row.goal)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    sys.exit(main())
