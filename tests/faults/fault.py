"""What a fault is: what is done to a device, and how its recovery is told apart from everybody else's.

A fault's function breaks something, mends it, and returns; from then on the device has to come right by itself. What it
expects besides that, it asserts itself.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.faults.bench import Bench

Injection: TypeAlias = Callable[[Bench], bool | None]
GAP_S = 15.0
"""A stop may take the 10 s that a container is given, and an agent that is started anew a few more."""


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    group: str
    inject: Injection
    """Called once a run, on a device that has converged and with `bench.random` seeded for the run."""
    fast: bool
    """Also a test of `make test`."""
    within_s: float
    """How long the device may take to come right once the cause is gone."""
    fresh: bool
    """It changes its bench for good: no other run may have it."""
    sweep: bool
    """It comes at the `bench.turn`-th occasion, and says False when there was none: then it has come at all of them."""
    own_engine: bool
    """It stops the engine: it needs one of its own."""
    engine_disk: str
    """The size of the disk of that engine of its own; empty: whatever there is."""
    ends: int
    """How often the agent may end by itself: what it cannot go on with has happened. If ever, it may log exceptions."""
    gap_s: float
    """For how long at most no `api` may run."""
    root: bool
    """It mounts, traces system calls or drops packets: nobody else may."""

    @property
    def may_be_tried(self) -> bool:
        return not self.root or os.geteuid() == 0

    @property
    def mild(self) -> bool:
        """Whether its bench is as good as before, and needs no engine of its own: what a soak can have."""
        return not (self.fresh or self.sweep or self.own_engine)


FAULTS: dict[str, Fault] = {}
"""By name, in the order in which they are told."""


def fault(
    name: str,
    group: str,
    *,
    fast: bool = False,
    within_s: float = 30.0,
    fresh: bool = False,
    sweep: bool = False,
    own_engine: bool = False,
    engine_disk: str = "",
    ends: int = 0,
    gap_s: float = GAP_S,
    root: bool = False,
) -> Callable[[Injection], Injection]:
    """Register an injection under its name."""

    def register(inject: Injection) -> Injection:
        if name in FAULTS:
            raise ValueError(f"two faults are named {name}")
        privileged = root or sweep or own_engine
        FAULTS[name] = Fault(
            name, group, inject, fast, within_s, fresh, sweep, own_engine, engine_disk, ends, gap_s, privileged
        )
        return inject

    return register


def matching(words: Sequence[str], faults: Sequence[Fault]) -> list[Fault]:
    """Those with one of the words in the name or as the group, in any case; without words, all.

    Raises ValueError for words that no fault has.
    """
    found = {word: [each for each in faults if _has(each, word.strip().lower())] for word in words}
    if strange := [word for word in found if not found[word]]:
        raise ValueError(f"no fault has {', '.join(map(repr, strange))} in its name or as its group")
    return [each for each in faults if not words or any(each in having for having in found.values())]


def _has(fault: Fault, word: str) -> bool:
    return bool(word) and (word in fault.name.lower() or word == fault.group.lower())
