"""`make bench`: every figure beside its peer, measured in one run; medians and the range.

ARGS="downtime drift" runs these parts alone. ARGS="--runs 3 --idle 30" goes to the
program too, and so do --json FILE, --markdown FILE and --png FILE.

After Ctrl-C the parts that had come to their end are shown and written; the exit code is 130 then.
"""

import signal
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from benchmarks import calls, downtime, fleet, history, idle, install, messages, passes
from benchmarks.containers import NotStarted
from benchmarks.options import parse
from benchmarks.rows import Row, draw, show, write, write_markdown
from benchmarks.world import Agent, agent, app, broker, restarted

SERVICES = 10
AGENT, RAW = "agent", "raw API"
USAGE, INTERRUPTED = 2, 130
"""Exit codes: where it cannot be measured here; after Ctrl-C, as a shell tells it."""
FEW = 3
"""Runs at most of what takes its time: hundreds of containers, thousands of devices."""


@dataclass(frozen=True)
class Bench:
    """What a part works with."""

    agent: Agent
    runs: int
    idle_s: float
    devices: int
    say: Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments, about=__doc__ or "", parts=PARTS)
    # SIGTERM as Ctrl-C, also where a shell has had Ctrl-C ignored: what was made is removed.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    rows: list[Row] = []
    code = 0
    console = Console(stderr=True)
    try:
        with broker() as port, agent(port) as running:
            bench = Bench(running, options.runs, options.idle, options.devices, console.print)
            for part in options.parts or PARTS:
                rows += PARTS[part](bench)
                running.publish({})
                running.converged()
    except KeyboardInterrupt:
        told = "these parts were measured to their end" if rows else "nothing was measured to its end"
        console.print(f"interrupted: {told}, and what was made is removed")
        code = INTERRUPTED
    except NotStarted as error:
        console.print(str(error), markup=False, soft_wrap=True)
        code = USAGE
    if not rows:
        # A file of an earlier run stays as it is: it is not replaced by one with nothing in it.
        return code
    show(rows)
    if options.json:
        write(rows, options.json)
    if options.markdown:
        write_markdown(rows, options.markdown)
    if options.png:
        draw(rows, options.png)
    return code


def _installs(bench: Bench) -> list[Row]:
    ways = {
        AGENT: lambda: install.by_agent(bench.agent, SERVICES),
        RAW: lambda: install.by_engine(SERVICES),
        **{_name(each): partial(install.by_compose, each, SERVICES) for each in install.composes()},
    }
    bench.say(f"{SERVICES} services, {bench.runs} runs of {', '.join(ways)} in turn ...")
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for number in range(bench.runs):
        for name, way in ways.items():
            runs[name].append(way())
        bench.say(f"  {number + 1}: " + ", ".join(f"{name} {took[-1][0]:.2f} s" for name, took in runs.items()))
    rows = []
    for index, (what, goal) in enumerate(
        (
            (f"{SERVICES} services: published → running", "≤ 1.15 x raw, < compose"),
            (f"all {SERVICES} changed → replaced", "< compose"),
        )
    ):
        took = {name: [run[index] for run in column] for name, column in runs.items()}
        rows.append(Row(what, "s", took.pop(AGENT), took, goal))
    return rows


def _name(compose: install.Compose) -> str:
    return f"compose {compose.version}"


def _scaling(bench: Bench) -> list[Row]:
    rows = []
    for count in (1, 50, 100):
        bench.say(f"an install of {count} ...")
        ours, raw = [], []
        for _ in range(min(bench.runs, FEW)):
            ours.append(install.by_agent(bench.agent, count)[0])
            raw.append(install.by_engine(count)[0])
        rows.append(Row(f"{count} services: published → running", "s", ours, {RAW: raw}))
    return rows


def _passes(bench: Bench) -> list[Row]:
    rows = []
    for count in (SERVICES, 5 * SERVICES):
        bench.say(f"a pass with nothing to do, {count} services ...")
        took, bare = passes.nothing_to_do(bench.agent, count)
        what = f"pass with nothing to do, {count} services"
        rows.append(Row(what, "ms", [took * 1e3], {"list call": [bare * 1e3]}, "≤ 3 x"))
    return rows


def _drift(bench: Bench) -> list[Row]:
    bench.say("a container removed by hand ...")
    drifts = [passes.removed_by_hand(bench.agent) for _ in range(bench.runs)]
    raw = [each.raw for each in drifts]
    beside = {"raw create + start": raw, "raw API that hears of it": [each.hearing for each in drifts]}
    limit = 1.2 * statistics.median(raw) + 0.05
    return [
        Row("removed by hand → running", "s", [each.repaired for each in drifts], beside, f"≤ {limit:.3f} s"),
        Row("change → retained state at the broker", "s", [each.told for each in drifts], goal="≤ 0.5 s"),
    ]


def _downtime(bench: Bench) -> list[Row]:
    bench.say("a service that is asked while it is replaced ...")
    recreated, started_first = [], []
    peers: dict[str, list[float]] = {name: [] for name in (RAW, *map(_name, install.composes()))}
    for _ in range(bench.runs):
        recreated.append(downtime.by_agent(bench.agent, "recreate"))
        started_first.append(downtime.by_agent(bench.agent, "start-first"))
        peers[RAW].append(downtime.by_engine())
        for compose in install.composes():
            peers[_name(compose)].append(downtime.by_compose(compose))
    what = "longest time without an answer,"
    return [
        Row(f"{what} recreate", "s", recreated, peers, "≤ 1.1 x raw"),
        Row(f"{what} start-first", "s", started_first, goal="a question's time"),
    ]


def _messages(bench: Bench) -> list[Row]:
    rows = []
    for size in (1_000, 10_000, 100_000, 1_000_000):
        bench.say(f"a target of {size} bytes ...")
        acked, heard = messages.to_ack(bench.agent, size, bench.runs)
        what = f"target of {size // 1000} kB: published → ack accepted"
        rows.append(Row(what, "s", acked, {"bare subscriber": heard}))
    count, size = messages.of_an_update(bench.agent, SERVICES)
    what = f"said of an update of {SERVICES} services"
    return [*rows, Row(what, "messages", [count]), Row(what, "kB", [size / 1e3])]


def _calls(bench: Bench) -> list[Row]:
    bench.say(f"the engine's calls for {SERVICES} services ...")
    rows = []
    for counted in calls.of_updates(bench.agent.port, SERVICES, bench.runs, bench.idle_s):
        totals, changes = ([count(run) for run in counted.runs] for count in (Counter.total, calls.changing))
        beside = {"that change something": changes, "minimum": [counted.minimum]}
        kinds = [kind for kind, _ in sum(counted.runs, Counter()).most_common()]
        of = {kind: [run[kind] for run in counted.runs] for kind in kinds}
        rows.append(Row(f"engine, {counted.what}", "calls", totals, beside, of=of))
    return rows


def _history(bench: Bench) -> list[Row]:
    rows = []
    for revisions in (1, 10_000):
        bench.say(f"a database after {revisions} revisions ...")
        took, size = history.after(revisions, bench.runs)
        what = f"database after {revisions} revisions"
        rows += [Row(f"{what}: to open and read", "ms", took), Row(f"{what}: its size", "kB", [size / 1e3])]
    return rows


def _written(bench: Bench) -> list[Row]:
    bench.say(f"what an install of {SERVICES} services writes ...")
    written = []
    for _ in range(bench.runs):
        written.append(idle.written_for_install(bench.agent, SERVICES) / 1e3)
        bench.agent.publish({})
        bench.agent.converged()
    return [Row(f"written to disk, install of {SERVICES}", "kB", written, goal="≤ 60 kB")]


def _rest(bench: Bench) -> list[Row]:
    bench.say(f"at rest for {bench.idle_s:g} s ...")
    found = idle.at_rest(bench.agent.port, SERVICES, bench.idle_s)
    return [
        Row("at rest: PSS", "MiB", [found.pss_mib], goal="≤ 60 MiB"),
        Row("at rest: CPU", "% of a core", [found.cpu * 100], goal="≤ 0.05 %"),
        Row("at rest: written", "bytes", [found.written], goal="0"),
        Row("at rest: said", "messages", [found.messages], goal="0"),
        Row("at rest: on the connection, both ways", "bytes a minute", [found.carried], goal="keep-alives only"),
        Row("at rest: wake-ups of all threads", "a minute", [found.wake_ups]),
    ]


def _start(bench: Bench) -> list[Row]:
    bench.agent.publish({"bench": app(SERVICES)})
    bench.agent.converged()
    bench.say("a start without a network ...")
    with restarted(bench.agent) as environment:
        took = idle.first_pass(environment, bench.runs)
    libraries: Sequence[float] = idle.libraries_alone(bench.runs)
    return [Row("start → first pass, offline", "s", took, {"libraries alone": libraries}, "≤ 0.4 s")]


def _fleet(bench: Bench) -> list[Row]:
    bench.say(f"{bench.devices:,} simulated devices, and as many bare subscribers ...")
    found = fleet.fan_out(bench.devices, min(bench.runs, FEW))
    what = f"{bench.devices:,} devices, one target: published →"
    memory = found.broker_mib
    return [
        Row(
            f"{what} the last `accepted`",
            "s",
            found.accepted,
            {"bare subscribers": found.bare, "that answer": found.answering},
            "≤ 3 x bare",
        ),
        Row(f"{what} the last `applied`", "s", found.applied),
        Row("a device's last such release: messages", "messages", [found.messages]),
        Row("a device's last such release: topics and bodies", "bytes", [found.bytes_]),
        Row(f"memory of the simulator, {bench.devices:,} devices", "MiB", [found.simulator_mib]),
        # None: a process that cannot be looked at from here.
        *([Row(f"memory of Mosquitto, {2 * bench.devices:,} connections", "MiB", [memory])] if memory else []),
    ]


PARTS = {
    "install": _installs,
    "scaling": _scaling,
    "pass": _passes,
    "drift": _drift,
    "downtime": _downtime,
    "messages": _messages,
    "calls": _calls,
    "history": _history,
    "written": _written,
    "rest": _rest,
    "start": _start,
    "fleet": _fleet,
}


if __name__ == "__main__":
    sys.exit(main())
