"""Random targets and random faults on one device, one after the other, for as long as you like; and what has grown."""

import random
import time
import traceback
from collections.abc import Callable, Sequence
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


def soak(
    wish: Wish, faults: Sequence[Fault], seconds: float, told: Callable[[str], None], finished: list[Outcome]
) -> None:
    """Of mild faults. One outcome a fault, in `finished` from its first run on.

    What breaks an invariant is noted, and it goes on with another device, until the time is over or it is stopped.
    """
    _Soak(wish, faults, told, finished).run(seconds)


class _Soak:
    def __init__(
        self, wish: Wish, faults: Sequence[Fault], told: Callable[[str], None], finished: list[Outcome]
    ) -> None:
        self._wish = wish
        self._told = told
        self._finished = finished
        self._outcomes = [Outcome(each) for each in faults]
        self._random = random.Random(wish.seed)
        self._until = 0.0
        self._turn = 0
        self._targets = 0
        self._starts = 0
        self._memory_mib: list[float] = []
        self._files: list[int] = []
        self._data_kib: list[float] = []

    def run(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        while self._goes_on():
            try:
                with Bench(self._wish.host) as bench:
                    self._one_device(bench)
            except Exception as error:  # noqa: BLE001 - it is noted; another device may do better
                self._told(f"  another device, after {type(error).__name__}: {str(error)[:300]}")
        self._told(self._tally())

    def _goes_on(self) -> bool:
        return time.monotonic() < self._until and not self._wish.stop.is_set()

    def _one_device(self, bench: Bench) -> None:
        """Until the time is over; what breaks is noted, and raised."""
        pid, grown = 0, 0.0
        try:
            while self._goes_on():
                self._turn += 1
                outcome = self._random.choice(self._outcomes)
                name = outcome.fault.name
                try:
                    with keeping_its_log(bench, f"soak {self._turn} {name}"):
                        self._break_and_judge(bench, outcome)
                        rss = self._measure(bench)
                        if bench.pid != pid:
                            pid, grown = bench.pid, rss
                        assert rss - grown <= GROWTH_MIB, f"bounded: {rss - grown:.0f} MiB grown since its start"
                except Exception as error:
                    where = traceback.extract_tb(error.__traceback__)[-1]
                    outcome.broken.append(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
                    self._told(f"  {self._turn:4} BROKEN {name}")
                    raise
                finally:
                    if outcome.runs and outcome not in self._finished:
                        self._finished.append(outcome)
                self._told(f"  {self._turn:4} {outcome.took_s[-1]:5.1f} s  {rss:4.0f} MiB  {name}")
        finally:
            self._targets += bench.number
            self._starts += bench.device.log().count(STARTED)

    def _break_and_judge(self, bench: Bench, outcome: Outcome) -> None:
        """A random target, which the fault's own may follow or replace; then the fault, and the judge."""
        bench.begin(f"{self._wish.seed}/soak/{self._turn}", self._turn)
        bench.beside = random_services(bench.random)
        if bench.random.random() < 0.5:
            bench.publish()
            bench.converge(60)
        outcome.fault.inject(bench)
        outcome.took_s.append(bench.converge(outcome.fault.within_s + 15))
        gap = examine(bench, ends=outcome.fault.ends, gap_s=outcome.fault.gap_s)
        outcome.gaps_s += [] if gap is None else [gap]

    def _measure(self, bench: Bench) -> float:
        process = psutil.Process(bench.pid)
        rss = process.memory_info().rss / 2**20
        files = [each for each in bench.device.data.rglob("*") if each.is_file()]
        self._memory_mib.append(rss)
        self._files.append(process.num_fds())
        self._data_kib.append(sum(each.stat().st_size for each in files) / 1024)
        return rss

    def _tally(self) -> str:
        figures = (("MiB", self._memory_mib), ("descriptors", self._files), ("KiB of data", self._data_kib))
        grown = "; ".join(
            f"{unit}: first {each[0]:.0f}, last {each[-1]:.0f}, most {max(each):.0f}" for unit, each in figures if each
        )
        return f"{self._targets} targets, {self._starts} starts of the agent; {grown}"


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
