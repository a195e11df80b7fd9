"""A simulated fleet in several processes, each with a share of the devices: one Python process is one core's work.

A share tells what it is like several times a second; what is asked of all is answered from what was told last. The
times are those of the machine's monotonic clock, which all processes have in common.
"""

import logging
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Self

import structlog

from cloud_sim.clock import monotonic
from cloud_sim.connection import Broker, Misconfigured
from cloud_sim.simulation.faults import Behaviour
from cloud_sim.simulation.figures import Figures, resident_mib, together
from cloud_sim.simulation.fleet import FAREWELL_S, TURN_S, Fleet, Outcome, Storm, most_frequent
from cloud_sim.simulation.network import PACE
from device_agent.model.target import Version
from device_agent.wire.topics import DEFAULT_ROOT

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EACH = 500
"""Devices that are worth a process of their own."""
TELL_S = 0.2
START_S = 60.0
"""How long a process may take until it tells for the first time: it makes all of its devices before."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a process carries: the devices from `first` on, of `of` in all."""

    broker: Broker
    fleet: str
    devices: int
    first: int
    of: int
    root: str
    prefix: str
    behaviour: Behaviour
    storms: Sequence[Storm]
    pace: float


@dataclass(frozen=True, slots=True)
class Told:
    """What a share was like."""

    connected: int
    converged: int
    outcome: Outcome
    version: Version | None
    figures: Figures
    troubles: Counter[str]
    resident_mib: float

    @classmethod
    def of(cls, fleet: Fleet) -> Self:
        return cls(
            fleet.connected,
            fleet.converged,
            fleet.outcome(),
            fleet.version,
            fleet.figures.told(),
            fleet.reasons(),
            resident_mib() or 0.0,
        )


class Ended(Exception):  # noqa: N818 - it names what happened
    """A process of a simulation is no more, or never came to be."""


class Processes:
    """What `Fleet` is, in `count` processes."""

    def __init__(
        self,
        count: int,
        broker: Broker,
        fleet: str,
        devices: int,
        *,
        root: str = DEFAULT_ROOT,
        prefix: str = "sim-",
        behaviour: Behaviour | None = None,
        storms: Sequence[Storm] = (),
        pace: float = PACE,
    ) -> None:
        """Makes the devices. Raises `Misconfigured`, and `Ended`."""
        self.size = devices
        self.started_at = monotonic()
        self._stopping = False
        self._published: dict[tuple[str, Version], float] = {}
        behaviour = behaviour or Behaviour()
        # Not forked: whoever asks for a fleet may have threads.
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        self._told: dict[Connection, Told] = {}
        for number, (first, size) in enumerate(shares(devices, count), 1):
            share = Share(
                broker,
                fleet,
                size,
                first,
                devices,
                root,
                prefix,
                behaviour,
                tuple(Storm(part_of(storm.devices, first, size, devices), storm.at_s) for storm in storms),
                pace / count,
            )
            ours, theirs = context.Pipe()
            process = context.Process(target=_carry, args=(theirs, share), name=f"share {number}", daemon=True)
            _start_undisturbed(process)
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        try:
            self._await_all()
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Every device begins to look at its engine, and to connect. Storms count from here."""
        self.started_at = monotonic()
        self._say("start")

    def run(self, until: Callable[[], bool]) -> None:
        """Until this says so; it is asked several times a second."""
        while not until():
            self._hear(TURN_S)

    def stop(self) -> None:
        """A clean end of every device, as far as the broker lets it."""
        self._stopping = True
        self._say("stop")
        until = monotonic() + FAREWELL_S + START_S
        self.run(lambda: not self._pipes or monotonic() > until)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            # One that is told nothing any more ends by itself, unless it hangs.
            process.join(FAREWELL_S)
            if process.is_alive():
                process.kill()

    @property
    def connected(self) -> int:
        return sum(told.connected for told in self._told.values())

    @property
    def converged(self) -> int:
        """How many have said that they run what they are to run."""
        return sum(told.converged for told in self._told.values())

    @property
    def figures(self) -> Figures:
        figures = together(told.figures for told in self._told.values())
        for name, at in self._published.items():
            if name in figures.answers:
                figures.answers[name].published_at = at
        return figures

    @property
    def resident_mib(self) -> float:
        return (resident_mib() or 0.0) + sum(told.resident_mib for told in self._told.values())

    def published(self, scope: str, version: Version, at: float) -> None:
        """Somebody knows when a target was published."""
        self._published[scope, version] = at

    def outcome(self) -> Outcome:
        """As that of a `Fleet`."""
        outcomes = {told.outcome for told in self._told.values()}
        if Outcome.PENDING in outcomes or len({told.version for told in self._told.values()}) > 1:
            return Outcome.PENDING
        return Outcome.ROLLED_BACK if Outcome.ROLLED_BACK in outcomes else Outcome.APPLIED

    def troubles(self) -> list[str]:
        """As those of a `Fleet`."""
        return most_frequent(sum((told.troubles for told in self._told.values()), Counter()))

    def _await_all(self) -> None:
        until = monotonic() + START_S
        self.run(lambda: len(self._told) == len(self._pipes) or monotonic() > until)
        if len(self._told) < len(self._pipes):
            raise Ended(f"{self.size} devices were not made within {START_S:g} s")

    def _say(self, word: str) -> None:
        for pipe in self._pipes:
            # One that has ended says so itself.
            with suppress(OSError):
                pipe.send(word)

    def _hear(self, at_most_s: float) -> None:
        """Take what was told. Raises `Misconfigured` where a share cannot be made, `Ended` where one broke."""
        ready = wait(self._pipes, at_most_s)
        for pipe in [pipe for pipe in self._pipes if pipe in ready]:
            try:
                told = pipe.recv()
            except EOFError:
                self._pipes.remove(pipe)
                if not self._stopping:
                    raise Ended("a process of the simulation has ended, and its devices with it") from None
                continue
            if isinstance(told, Exception):
                raise told
            self._told[pipe] = told


def processes_for(devices: int) -> int:
    """As many as there are cores, but none for a few devices."""
    return max(1, min(os.cpu_count() or 1, devices // EACH))


def shares(devices: int, count: int) -> list[tuple[int, int]]:
    """Number of the first device, and how many."""
    ends = [devices * number // count for number in range(count + 1)]
    return [(begin + 1, end - begin) for begin, end in pairwise(ends)]


def part_of(whole: int, first: int, size: int, devices: int) -> int:
    """Of something for all devices what falls to a share; the parts of all shares are the whole."""
    return whole * (first - 1 + size) // devices - whole * (first - 1) // devices


def _start_undisturbed(process: BaseProcess) -> None:
    """It has no ear for signals from its first moment on; those that come meanwhile reach this process afterwards."""
    # multiprocessing starts one of its own with the first process, and then lifts the mask.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry(pipe: Connection, share: Share) -> None:
    """A process, from its beginning to its end."""
    # Ctrl-C goes to all processes of a terminal, SIGTERM often to a group: the first one says what is to be done.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=True
    )
    try:
        fleet = Fleet(
            share.broker,
            share.fleet,
            share.devices,
            first=share.first,
            of=share.of,
            root=share.root,
            prefix=share.prefix,
            behaviour=share.behaviour,
            storms=share.storms,
            pace=share.pace,
        )
    except Misconfigured as error:
        pipe.send(error)
        return
    tell_at = 0.0

    def over() -> bool:
        nonlocal tell_at
        now = monotonic()
        if now < tell_at:
            return False
        tell_at = now + TELL_S
        pipe.send(Told.of(fleet))
        return pipe.poll() and pipe.recv() == "stop"

    # Nobody listens any more: the first process is gone, and so are the devices.
    with suppress(EOFError, OSError):
        pipe.send(Told.of(fleet))
        if pipe.recv() == "start":
            fleet.start()
            fleet.run(over)
            fleet.stop()
            pipe.send(Told.of(fleet))
    fleet.close()
