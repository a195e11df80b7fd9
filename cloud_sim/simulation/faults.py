"""How simulated engines behave: how long their work takes, and how often it goes wrong."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloud_sim.engine_parts import image_id
from device_agent.model.errors import EngineError, Kind
from device_agent.runtime.workers import CALL, PULL, STOP

HEALTH = "health"
"""From a start to what its check reports, or to the next start of what the engine restarts."""
CRASH = "crash"
START = "start"
CRASHES_WITHIN_S = 5.0
SPREAD = 0.5
"""Everything takes between half and one and a half times as long as it takes on average."""

LATENCIES: Mapping[str, float] = {PULL: 2.0, STOP: 0.5, CALL: 0.02, HEALTH: 1.0}
"""Seconds: of a pull, of stopping a container, of any other call of the engine."""
FAILURES: Mapping[str, float] = {PULL: 0.0, START: 0.0, CRASH: 0.0}
"""Probabilities: that a pull does not reach the registry, that a start meets a port that is taken, that what was
started exits within 5 seconds."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Of all engines of a fleet."""

    latencies: Mapping[str, float] = field(default_factory=lambda: LATENCIES)
    failures: Mapping[str, float] = field(default_factory=lambda: FAILURES)
    seed: int = 0


class Dice:
    """What chance does to the engines: the same for the same seed, as long as the devices ask in the same order."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._random = random.Random(behaviour.seed)

    def takes_s(self, what: str) -> float:
        return self._behaviour.latencies[what] * self._random.uniform(1 - SPREAD, 1 + SPREAD)

    def crashes_after_s(self) -> float | None:
        """What has just been started; None when it does not."""
        return self._random.uniform(0, CRASHES_WITHIN_S) if self._happens(CRASH) else None

    def before_call(self, name: str, arguments: tuple[object, ...]) -> None:
        """The hook of a simulated engine: raises what goes wrong."""
        if name == PULL and self._happens(PULL):
            message = f"the registry cannot be reached: {arguments[0]} (simulated)"
            raise EngineError("registry_unreachable", message, Kind.TEMPORARY)
        if name == START and self._happens(START):
            message = f"a host port is taken by something else: {arguments[0]} (simulated)"
            raise EngineError("port_in_use", message, Kind.OUTSIDE)

    def _happens(self, what: str) -> bool:
        chance = self._behaviour.failures[what]
        return chance > 0 and self._random.random() < chance


class EveryImage(dict[str, str]):
    """A registry that has whatever it is asked for. One serves all engines."""

    def __contains__(self, reference: object) -> bool:
        return isinstance(reference, str)

    def __missing__(self, reference: str) -> str:
        id_ = self[reference] = image_id(reference)
        return id_
