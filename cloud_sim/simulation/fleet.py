"""A simulated fleet: its devices, the thread that carries them, and what happens to all of them at once."""

import gc
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from cloud_sim import clock
from cloud_sim.connection import Broker, Misconfigured
from cloud_sim.simulation.device import SimulatedDevice
from cloud_sim.simulation.faults import Behaviour, Dice, EveryImage
from cloud_sim.simulation.figures import Figures, resident_mib
from cloud_sim.simulation.link import Link
from cloud_sim.simulation.network import PACE, Network, make_room
from cloud_sim.simulation.sharing import Shared
from cloud_sim.simulation.timers import Timers
from device_agent.model.target import FLEET, Version
from device_agent.wire.topics import DEFAULT_ROOT, Topics

FAREWELL_S = 15.0
"""How long a clean end may take. An agent gives its engine 8 s; thousands need a while to say farewell."""
TURN_S = 0.25
TROUBLES = 3
RARELY = (100_000, 20, 20)
"""How often garbage is looked for. What devices leave behind is hardly ever a cycle."""


@dataclass(frozen=True, slots=True)
class Storm:
    """So many connections break at once, so many seconds after the beginning."""

    devices: int
    at_s: float


class Outcome(StrEnum):
    """Of what the devices have taken, all together."""

    PENDING = "pending"
    APPLIED = "applied"
    ROLLED_BACK = "rolled_back"


class Clock:
    """The port `Clock`."""

    def now(self) -> datetime:
        return clock.now()

    def monotonic(self) -> float:
        return clock.monotonic()


class Fleet:
    """`run` it in the thread that made it."""

    def __init__(
        self,
        broker: Broker,
        fleet: str,
        devices: int,
        *,
        first: int = 1,
        of: int | None = None,
        root: str = DEFAULT_ROOT,
        prefix: str = "sim-",
        behaviour: Behaviour | None = None,
        storms: Sequence[Storm] = (),
        pace: float = PACE,
    ) -> None:
        """`devices` of them, named `{prefix}00001` and so on, or a part of `of`, from `first` on.

        Raises `Misconfigured`.
        """
        make_room(devices)
        behaviour = behaviour or Behaviour()
        self.figures = Figures()
        self.timers = Timers()
        self.network = Network(broker, self.figures, self.timers, pace=pace)
        self.started_at = clock.monotonic()
        self._gc = gc.get_threshold()
        self._storms = storms
        self._random = random.Random(f"{behaviour.seed} {first}")
        digits = max(5, len(str(of or devices)))
        shared, registry, hands = Shared(), EveryImage(), Clock()
        self.devices: list[SimulatedDevice] = []
        self.links: list[Link] = []
        for number in range(first, first + devices):
            try:
                topics = Topics(root, fleet, f"{prefix}{number:0{digits}}")
            except ValueError as error:
                raise Misconfigured(str(error)) from error
            link = Link(self.network, f"{fleet}.{topics.device}")
            self.links.append(link)
            self.devices.append(
                SimulatedDevice(
                    topics,
                    link,
                    shared=shared,
                    dice=Dice(behaviour, topics.device),
                    registry=registry,
                    timers=self.timers,
                    later=self.network.later,
                    clock=hands,
                )
            )

    def start(self) -> None:
        """Every device begins to look at its engine, and to connect. Storms count from here."""
        self.started_at = clock.monotonic()
        for device in self.devices:
            device.start()
        for storm in self._storms:
            self.timers.after(storm.at_s, lambda storm=storm: self.storm(storm.devices))  # type: ignore[misc]
        # What has been made by now stays: it need not be looked through for garbage again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*RARELY)

    def run(self, until: Callable[[], bool]) -> None:
        """Until this says so; it is asked several times a second."""
        while not until():
            self.network.turn(TURN_S)

    def storm(self, devices: int) -> None:
        """So many connections break, chosen by chance; each device comes back by its own back-off."""
        up = sorted(self.network.up, key=lambda link: link.client_id)
        for link in self._random.sample(up, min(devices, len(up))):
            link.cut()

    def stop(self) -> None:
        """A clean end of every device, as far as the broker lets it."""
        until = clock.monotonic() + FAREWELL_S
        for device in self.devices:
            device.stop()
        self.run(lambda: self.network.all_gone or clock.monotonic() > until)

    def close(self) -> None:
        self.network.close()
        gc.unfreeze()
        gc.set_threshold(*self._gc)

    @property
    def connected(self) -> int:
        return len(self.network.up)

    @property
    def size(self) -> int:
        return len(self.devices)

    @property
    def resident_mib(self) -> float:
        return resident_mib() or 0.0

    @property
    def version(self) -> Version | None:
        """Of the fleet's target that the first device has."""
        targets = self.devices[0].agent.rollout.targets
        return targets[FLEET].target.version if FLEET in targets else None

    @property
    def converged(self) -> int:
        """How many have said that they run what they are to run."""
        return len(self.figures.converged)

    def outcome(self) -> Outcome:
        """`PENDING` until every device is connected, and has ended the targets it has: at least one, all the same.

        Those that have applied them must have told so in their states too.
        """
        if self.connected < len(self.devices):
            return Outcome.PENDING
        ends: set[str | None] = set()
        versions = set()
        for device in self.devices:
            targets = device.agent.rollout.targets
            ends.update(accepted.ended for accepted in targets.values())
            versions.add(targets[FLEET].target.version if FLEET in targets else None)
            if not targets or None in ends or len(versions) > 1:
                return Outcome.PENDING
        if "rolled_back" in ends:
            return Outcome.ROLLED_BACK
        return Outcome.APPLIED if self.converged == len(self.devices) else Outcome.PENDING

    def troubles(self) -> list[str]:
        """Why devices are not connected: the most frequent reasons, and how many there are of each."""
        return most_frequent(self.reasons())

    def reasons(self) -> Counter[str]:
        """Why devices are not connected."""
        return Counter(link.trouble for link in self.links if link.trouble and not link.up)


def most_frequent(reasons: Counter[str]) -> list[str]:
    return [f"{count:,} devices: {why}" for why, count in reasons.most_common(TROUBLES)]
