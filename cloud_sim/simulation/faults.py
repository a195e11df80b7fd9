"""How simulated engines behave: how long their work takes, and how often it goes wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

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
    """What chance does to a device's engine.

    It follows from the seed, the device, and how often the same was asked before: so it repeats, in whichever order
    the devices of a fleet get on, and however many processes carry them.
    """

    __slots__ = ("_asked", "_behaviour", "_device")

    def __init__(self, behaviour: Behaviour, device: str) -> None:
        self._behaviour = behaviour
        self._device = device
        self._asked: dict[str, int] = {}

    def takes_s(self, what: str) -> float:
        return self._behaviour.latencies[what] * (1 - SPREAD + 2 * SPREAD * self._draw(f"{what} takes"))

    def crashes_after_s(self) -> float | None:
        """What has just been started; None when it does not."""
        return CRASHES_WITHIN_S * self._draw("crashes after") if self._happens(CRASH) else None

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
        return chance > 0 and self._draw(what) < chance

    def _draw(self, what: str) -> float:
        """From 0 up to 1, without it."""
        asked = self._asked[what] = self._asked.get(what, 0) + 1
        drawn = blake2b(f"{self._behaviour.seed} {self._device} {what} {asked}".encode(), digest_size=6).digest()
        return int.from_bytes(drawn) / 2**48


class EveryImage(dict[str, str]):
    """A registry that has whatever it is asked for. One serves all engines."""

    def __contains__(self, reference: object) -> bool:
        return isinstance(reference, str)

    def __missing__(self, reference: str) -> str:
        id_ = self[reference] = image_id(reference)
        return id_
