"""Random targets and random faults on one device, one after the other, for as long as you like; and what has grown."""

import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.e2e.device import service
from tests.faults.bench import CANARY, Bench
from tests.faults.fault import Fault
from tests.faults.oracle import examine
from tests.faults.run import Outcome, Wish, keeping_its_log

GROWTH_MIB = 16
"""Of resident memory, from an agent's start to its end; a fault that restarts the agent begins anew."""
MOST_BESIDE = 5
"""Services of the random app."""
STARTED = '"event": "starting"'


@dataclass(slots=True)
class _Tally:
    targets: int = 0
    starts: int = 0
    memory_mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    data_kib: list[float] = field(default_factory=list)

    def measure(self, bench: Bench) -> float:
        process = psutil.Process(bench.pid)
        rss = process.memory_info().rss / 2**20
        self.memory_mib.append(rss)
        self.files.append(process.num_fds())
        self.data_kib.append(sum(each.stat().st_size for each in bench.device.data.rglob("*") if each.is_file()) / 1024)
        return rss

    def told(self) -> str:
        figures = (("MiB", self.memory_mib), ("descriptors", self.files), ("KiB of data", self.data_kib))
        grown = "; ".join(
            f"{unit}: first {each[0]:.0f}, last {each[-1]:.0f}, most {max(each):.0f}" for unit, each in figures if each
        )
        return f"{self.targets} targets, {self.starts} starts of the agent; {grown}"


def soak(wish: Wish, faults: Sequence[Fault], seconds: float, told: Callable[[str], None]) -> list[Outcome]:
    """One outcome a fault. Those that spoil a bench or need an engine of their own are left out.

    What breaks an invariant is noted, and the soak goes on with another device.
    """
    usable = [each for each in faults if not (each.fresh or each.sweep or each.own_engine)]
    outcomes = {each.name: Outcome(each) for each in usable}
    rng = random.Random(wish.seed)
    until = time.monotonic() + seconds
    tally, turn = _Tally(), 0
    while time.monotonic() < until:
        with Bench(wish.host) as bench:
            pid, grown = 0, 0.0
            while time.monotonic() < until:
                turn += 1
                each = rng.choice(usable)
                outcome = outcomes[each.name]
                try:
                    with keeping_its_log(bench, f"soak {turn} {each.name}"):
                        _turn(wish, bench, turn, outcome)
                        rss = tally.measure(bench)
                        if bench.pid != pid:
                            pid, grown = bench.pid, rss
                        assert rss - grown <= GROWTH_MIB, f"bounded: {rss - grown:.0f} MiB grown since its start"
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the turn's result
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    outcome.broken.append(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
                    told(f"  {turn:4} BROKEN {each.name}: {outcome.broken[-1]}")
                    break
                told(f"  {turn:4} {outcome.took_s[-1]:5.1f} s  {rss:4.0f} MiB  {each.name}")
            tally.targets += bench.number
            tally.starts += bench.device.log().count(STARTED)
    told(tally.told())
    return [outcome for outcome in outcomes.values() if outcome.runs]


def _turn(wish: Wish, bench: Bench, turn: int, outcome: Outcome) -> None:
    """A random target, which the fault's own may follow or replace; then the fault, and the judge."""
    bench.begin(f"{wish.seed}/soak/{turn}", turn)
    bench.beside = random_services(bench.random)
    if bench.random.random() < 0.5:
        bench.publish()
        bench.converge(60)
    outcome.fault.inject(bench)
    outcome.took_s.append(bench.converge(outcome.fault.within_s + 15))
    outcome.gaps_s.append(examine(bench))


def random_services(rng: random.Random) -> dict[str, Any]:
    """Up to five, of which some stay as they were, some wait for others, and some are replaced without a pause."""
    made: dict[str, Any] = {}
    for number in range(rng.randint(0, MOST_BESIDE)):
        keys: dict[str, Any] = {"environment": {"DRAWN": str(rng.randint(1, 3)), "SECRET": CANARY}}
        if rng.random() < 0.3 and made:
            keys["depends_on"] = [rng.choice(sorted(made))]
        if rng.random() < 0.3:
            keys["mem_limit"] = rng.choice(("32m", "64m"))
        if rng.random() < 0.3:
            keys["x-update"] = {"strategy": rng.choice(("recreate", "start-first", "stop-first"))}
        made[f"s{number}"] = service(rng.randint(1, 2), **keys)
    return made
