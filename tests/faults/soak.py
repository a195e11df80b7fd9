"""Random faults on one device, one after the other, for as long as you like; and what has grown meanwhile."""

import random
import time
from collections.abc import Callable, Sequence

import psutil

from tests.faults.bench import Bench
from tests.faults.fault import Fault
from tests.faults.oracle import examine
from tests.faults.run import Outcome, Wish

GROWTH_MIB = 16
"""Of resident memory, from a tenth of the time to its end; a fault that restarts the agent begins anew."""


def soak(wish: Wish, faults: Sequence[Fault], seconds: float, told: Callable[[str], None]) -> list[Outcome]:
    """One outcome a fault. Those that spoil a bench or need an engine of their own are left out."""
    usable = [each for each in faults if not (each.fresh or each.sweep or each.own_engine)]
    outcomes = {each.name: Outcome(each) for each in usable}
    rng = random.Random(wish.seed)
    until = time.monotonic() + seconds
    with Bench(wish.host) as bench:
        turn, grown, pid = 0, 0.0, 0
        while time.monotonic() < until:
            turn += 1
            each = rng.choice(usable)
            bench.begin(f"{wish.seed}/soak/{turn}", turn)
            each.inject(bench)
            outcome = outcomes[each.name]
            outcome.took_s.append(bench.converge(each.within_s + 15))
            outcome.gaps_s.append(examine(bench))
            rss = psutil.Process(bench.pid).memory_info().rss / 2**20
            if bench.pid != pid:
                pid, grown = bench.pid, rss
            assert rss - grown <= GROWTH_MIB, f"bounded: {rss - grown:.0f} MiB grown since the agent was started"
            told(f"  {turn:4} {outcome.took_s[-1]:5.1f} s  {rss:4.0f} MiB  {each.name}")
    return [outcome for outcome in outcomes.values() if outcome.runs]
