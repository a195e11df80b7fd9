"""Carrying faults out: a bench for each fault, its runs in turn, and what came of each."""

import contextlib
import itertools
import queue
import random
import re
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.host import TEST_IMAGE, Host, OwnEngine
from tests.faults.bench import Bench
from tests.faults.fault import Fault
from tests.faults.oracle import examine

LOGS = Path(".dev/faults")
"""The agents' logs of runs that broke something."""
MOST_TURNS = 400
"""Of a sweep."""


@dataclass(slots=True)
class Outcome:
    """What came of the runs of one fault."""

    fault: Fault
    took_s: list[float] = field(default_factory=list)
    """Of each run that converged: from the end of the cause."""
    gaps_s: list[float] = field(default_factory=list)
    """For how long no container of the service that is replaced ran, of each run in which the engine could tell."""
    broken: list[str] = field(default_factory=list)
    """What was broken, with the run's seed."""

    @property
    def runs(self) -> int:
        return len(self.took_s) + len(self.broken)


@dataclass(frozen=True, slots=True)
class Wish:
    """How faults are to be carried out."""

    host: Host
    runs: int
    seed: str
    seconds: Sequence[Fault] = ()
    """With these, each fault is followed, before the device has recovered, by one of them."""
    step: int = 1
    """Of a sweep."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Once it is set no other run begins: those under way come to their end, and clear up."""


def carry_out(wish: Wish, faults: Sequence[Fault], hands: int, told: Callable[[Outcome], None]) -> list[Outcome]:
    """All of them, so many side by side: most of the time a device waits. `told` gets each when it is done, or stopped
    after a run."""
    outcomes = [Outcome(fault) for fault in faults]
    left: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    for outcome in outcomes:
        left.put(outcome)
    lock = threading.Lock()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not wish.stop.is_set():
                outcome = left.get_nowait()
                _runs(wish, outcome)
                with lock:
                    if outcome.runs:
                        told(outcome)

    with ThreadPoolExecutor(hands) as pool:
        try:
            for done in [pool.submit(work) for _ in range(hands)]:
                done.result()
        except BaseException:
            wish.stop.set()
            raise
    return outcomes


def _runs(wish: Wish, outcome: Outcome) -> None:
    """Until they are done; what breaks a bench is noted, and the next run gets another one."""
    numbers = range(1, MOST_TURNS, wish.step) if outcome.fault.sweep else range(1, wish.runs + 1)
    turns = itertools.takewhile(lambda _: not wish.stop.is_set(), numbers)
    turn = next(turns, None)
    while turn is not None:
        with _engine(wish, outcome.fault) as (host, engine):
            try:
                with Bench(host, engine) as bench, keeping_its_log(bench, outcome.fault.name):
                    while turn is not None:
                        if not _one(wish, outcome, bench, turn):
                            if turn == 1:
                                outcome.broken.append("nothing was injected: not even the first call was hit")
                            return
                        turn = next(turns, None)
                        if outcome.fault.fresh:
                            break
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the run's result
                place = traceback.extract_tb(error.__traceback__)[-1]
                why = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno} {place.line})"
                notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
                outcome.broken.append(f"{why}\n  (turn {turn}, seed {wish.seed}){notes}")
                turn = next(turns, None)
    if outcome.fault.sweep and not wish.stop.is_set():
        outcome.broken.append(f"the sweep has no end: there was still a call to hit after {MOST_TURNS} turns")


@contextlib.contextmanager
def keeping_its_log(bench: Bench, name: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        LOGS.mkdir(parents=True, exist_ok=True)
        (LOGS / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.log").write_text(bench.device.log(), encoding="utf-8")
        raise


def _one(wish: Wish, outcome: Outcome, bench: Bench, turn: int) -> bool:
    """False when a sweep has come to its end."""
    fault = outcome.fault
    seed = f"{wish.seed}/{fault.name}/{turn}"
    bench.begin(seed, turn)
    hit = fault.inject(bench)
    within_s, gap_s = fault.within_s, fault.gap_s
    if wish.seconds:
        second = random.Random(seed).choice(list(wish.seconds))
        second.inject(bench)
        within_s, gap_s = within_s + 30, gap_s + second.gap_s
    took = bench.converge(within_s)
    gap = examine(bench, ends=fault.ends, gap_s=gap_s, same_processes=not fault.own_engine)
    outcome.gaps_s += [] if gap is None else [gap]
    outcome.took_s.append(took)
    return hit is not False


@contextlib.contextmanager
def _engine(wish: Wish, fault: Fault) -> Iterator[tuple[Host, OwnEngine | None]]:
    if not fault.own_engine:
        yield wish.host, None
        return
    engine = OwnEngine(fault.engine_disk)
    try:
        engine.start()
        engine.load(*(f"{TEST_IMAGE}:{version}" for version in (1, 2)))
        host = Host(engine.url, wish.host.mark)
        try:
            yield host, engine
        finally:
            host.close()
    finally:
        engine.close()
