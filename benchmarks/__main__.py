"""`make bench`: every figure beside its peer, measured in one run; medians and the range. ARGS="--runs 3 --idle 30"."""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import idle, install, passes
from benchmarks.world import Agent, agent, broker, start

SERVICES = 10


@dataclass(frozen=True)
class Row:
    what: str
    agent: str
    peers: str
    goal: str


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--idle", type=float, default=60, help="seconds at rest")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    console = Console(stderr=True)
    rows: list[Row] = []
    with broker() as port, agent(port) as running:
        console.print(f"{SERVICES} services, {options.runs} runs of agent, raw API and compose in turn ...")
        rows += _installs(running, options.runs, console)
        for count in (SERVICES, 5 * SERVICES):
            console.print(f"a pass with nothing to do, {count} services ...")
            took, bare = passes.nothing_to_do(running, count)
            what = f"pass with nothing to do, {count} services"
            rows.append(
                Row(what, f"{took * 1e3:.1f} ms", f"list call {bare * 1e3:.1f} ms: {took / bare:.2f} x", "≤ 3 x")
            )
        console.print("a container removed by hand ...")
        drifts = [passes.removed_by_hand(running) for _ in range(options.runs)]
        repaired, raw, told = (tuple(column) for column in zip(*drifts, strict=True))
        limit = 1.2 * statistics.median(raw) + 0.05
        rows.append(Row("removed by hand → running", _seconds(repaired), f"raw {_seconds(raw)}", f"≤ {limit:.3f} s"))
        rows.append(Row("change → retained state at the broker", _seconds(told), "", "≤ 0.5 s"))
        running.publish({})
        running.converged()
        written = idle.written_for_install(running, SERVICES)
        rows.append(Row(f"written to disk, install of {SERVICES}", f"{written / 1000:.0f} kB", "", "≤ 60 kB"))
        console.print(f"at rest for {options.idle:g} s ...")
        pss, cpu, idle_bytes, states = idle.at_rest(running, options.idle)
        rows.append(Row("at rest: PSS", f"{pss:.1f} MiB", "", "≤ 60 MiB"))
        rows.append(Row("at rest: CPU", f"{cpu:.3%} of a core", "", "≤ 0.05 %"))
        rows.append(Row("at rest: written, states sent", f"{idle_bytes} bytes, {states}", "", "0, 0"))
        environment = idle.environment_of(running)
        running.process.terminate()
        running.process.wait(timeout=20)
        rows.append(
            Row(
                "start → first pass, offline",
                _seconds(idle.first_pass(environment, options.runs)),
                f"libraries alone {_seconds(idle.libraries_alone(options.runs))}",
                "≤ 0.4 s",
            )
        )
        # Once more, to clean up with.
        running.process = start(
            environment["DEVICE_AGENT_FLEET"], port, Path(environment["DEVICE_AGENT_DATA_DIR"]).parent
        )
    _show(rows)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n")
    return 0


def _installs(running: Agent, runs: int, console: Console) -> list[Row]:
    by_agent, raw, compose = [], [], []
    for number in range(runs):
        by_agent.append(install.by_agent(running, SERVICES))
        raw.append(install.by_engine(SERVICES))
        compose.append(install.by_compose(SERVICES))
        console.print(
            f"  {number + 1}: agent {by_agent[-1][0]:.2f} s, raw {raw[-1][0]:.2f} s, compose {compose[-1][0]:.2f} s"
        )
    rows = []
    for index, what in enumerate((f"{SERVICES} services: published → running", f"all {SERVICES} changed → replaced")):
        ours, bare, peer = ([run[index] for run in column] for column in (by_agent, raw, compose))
        to_raw = statistics.median(ours) / statistics.median(bare)
        to_compose = statistics.median(ours) / statistics.median(peer)
        peers = f"raw {_seconds(bare)} ({to_raw:.2f} x), compose {_seconds(peer)} ({to_compose:.2f} x)"
        rows.append(Row(what, _seconds(ours), peers, "≤ 1.15 x raw, < compose" if index == 0 else "< compose"))
    return rows


def _seconds(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3f} s ({min(values):.3f}-{max(values):.3f})"


def _show(rows: list[Row]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("WHAT", "AGENT", "BESIDE", "TO REACH"):
        table.add_column(column)
    for row in rows:
        table.add_row(row.what, row.agent, row.peers, row.goal)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    sys.exit(main())
