"""A simulated device over a fake broker and a clock moved by hand: as `tests/device.py` is for the agent alone."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from cloud_sim.simulation.device import SimulatedDevice
from cloud_sim.simulation.faults import FAILURES, LATENCIES, Behaviour, Dice, EveryImage
from cloud_sim.simulation.sharing import Shared
from cloud_sim.simulation.timers import Timers
from tests.device import MOST_EVENTS, TOPICS, Hands
from tests.fakes_transport import FakeTransport


class Simulated:
    """`shared` is what it decides together with others; `failures` and `latencies` are its engine's."""

    def __init__(
        self,
        shared: Shared | None = None,
        *,
        failures: Mapping[str, float] = FAILURES,
        latencies: Mapping[str, float] = LATENCIES,
    ) -> None:
        self.clock = Hands()
        self.timers = Timers(self.clock.monotonic)
        self.broker = FakeTransport()
        self.soon: deque[Callable[[], None]] = deque()
        self.failures = {**FAILURES, **failures}
        """May be changed at any time."""
        behaviour = Behaviour({**LATENCIES, **latencies}, self.failures)
        self.device = SimulatedDevice(
            TOPICS,
            self.broker,
            shared=shared or Shared(),
            dice=Dice(behaviour, TOPICS.device),
            registry=EveryImage(),
            timers=self.timers,
            later=self.soon.append,
            clock=self.clock,
        )

    @property
    def world(self) -> Any:
        return self.device.engine.world

    def boot(self) -> "Simulated":
        self.device.start()
        self.broker.connect()
        self.settle()
        return self

    def settle(self) -> None:
        """Everything that can happen without time passing."""
        for _ in range(MOST_EVENTS):
            if self.soon:
                self.soon.popleft()()
            elif (due := self.timers.next_due()) is not None and due <= self.clock.monotonic():
                self.timers.run(1.0)
            else:
                return
        raise AssertionError("it never comes to rest")

    def wait(self, seconds: float) -> None:
        """Time passes, from one thing that falls due to the next."""
        end = self.clock.monotonic() + seconds
        for _ in range(MOST_EVENTS):
            self.settle()
            due = self.timers.next_due()
            if self.clock.monotonic() >= end:
                return
            self.clock.pass_(max(0.0, min(end if due is None else due, end) - self.clock.monotonic()))
        raise AssertionError("too much happens")

    def bring(self, content: bytes, *, device: bool = False) -> None:
        self.broker.arrive(TOPICS.device_target if device else TOPICS.fleet_target, content, retain=True)
        self.settle()

    def acks(self) -> list[dict[str, Any]]:
        return [json.loads(sent.payload) for sent in self.broker.on(TOPICS.ack)]

    def told(self) -> list[str]:
        """The acks in short: `applying web`."""
        return [" ".join(filter(None, (ack["verdict"], ack.get("app"), ack.get("code")))) for ack in self.acks()]

    def state(self) -> Any:
        return json.loads(self.broker.retained[TOPICS.state])
