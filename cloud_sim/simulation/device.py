"""One simulated device: the real agent, with a store in memory, a simulated engine and a real MQTT connection.

It has no thread: the fleet's calls `react` when something has arrived, and the timers when something is due.
"""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_world import World
from cloud_sim.simulation.faults import HEALTH, Dice, EveryImage
from cloud_sim.simulation.sharing import Shared, SharedDocuments
from cloud_sim.simulation.store import MemoryStore
from cloud_sim.simulation.timers import Timers
from device_agent.core.intake import Wanted
from device_agent.core.wanted import Naming
from device_agent.model.host import Disk, HostFigures
from device_agent.model.observed import EngineEvent
from device_agent.model.target import Identity
from device_agent.ports import Clock, Received, Transport
from device_agent.runtime.agent import Agent
from device_agent.runtime.inbox import Event, StopRequested
from device_agent.runtime.intake import Intake
from device_agent.runtime.options import Options
from device_agent.wire.topics import Topics

FIGURES = HostFigures(
    cpu_percent=5,
    memory_mib=512,
    memory_total_mib=2048,
    disk_free_mib=8192,
    disk_total_mib=16384,
    temperature_c=None,
    uptime_s=86400,
)


class PatientAgent(Agent):
    """Plans what follows from a target with its next tick: first every device of the fleet answers."""

    answering = False
    _waits: Wanted | None = None

    def want(self, wanted: Wanted) -> None:
        if self.answering and self._waits is None:
            self._waits = wanted
        else:
            self._waits = None
            super().want(wanted)

    def go_on(self) -> None:
        """Want what has waited."""
        wanted, self._waits = self._waits, None
        if wanted is not None:
            super().want(wanted)


OWNER = "simulated"
"""Each engine belongs to one device, so that all may bear the same label, and share what follows from it."""
STARTED = "start.done"
"""As the simulated engine's hook names it."""


class Machine:
    """The port `Host`: always the same figures, so that nothing is sent for their sake."""

    @staticmethod
    def figures() -> HostFigures:
        return FIGURES

    @staticmethod
    def disk() -> Disk | None:
        """Unknown: no pull looks for space."""
        return None


class SimulatedDevice:
    """`transport` carries it. `clock` and `timers` agree on the time."""

    __slots__ = ("_dice", "_due", "_inbox", "_later", "_ticking", "_timers", "agent", "engine", "id", "transport")

    def __init__(
        self,
        topics: Topics,
        transport: Transport,
        *,
        shared: Shared,
        dice: Dice,
        registry: EveryImage,
        timers: Timers,
        later: Callable[[Callable[[], None]], None],
        clock: Clock,
    ) -> None:
        """`later` calls back soon, in the same thread."""
        self.id = topics.device
        self.transport = transport
        self._dice, self._timers, self._later = dice, timers, later
        self._due: float | None = None
        """When the agent is to be woken next."""
        self._ticking = False
        """Whether a tick of the engine's world is under way."""
        world = World()
        world.registry = registry
        world.listeners.append(self._hear)
        self.engine = SimulatedEngine(OWNER, world, self._engine_call)
        self._inbox = _Inbox(self)
        self.agent = PatientAgent(
            Options(Identity(topics.fleet, topics.device), topics, Naming(OWNER)),
            store=MemoryStore(clock.now()),
            engine=self.engine,
            transport=transport,
            workers=self,
            clock=clock,
            host=Machine(),
            inbox=self._inbox,
            beat=_alive,
        )
        self.agent.intake = Intake(self.agent, SharedDocuments(self.agent, shared))
        self.agent.stopping = self.agent.reconciler.acting.stopping = _Impatience()

    def start(self) -> None:
        self._inbox.put(EngineEvent("stream", "open", ""))
        self.agent.start()
        self._come_back()

    def stop(self) -> None:
        """As at SIGTERM: what is in the middle is finished, and the farewell is said."""
        self._empty_inbox()
        self.agent.handle(StopRequested())
        self.agent.tick()
        self._come_back()

    def submit(self, lane: str, job: Callable[[], None]) -> None:
        """The port `Workers`: a job ends after the time that such a thing takes."""
        self._timers.after(self._dice.takes_s(lane), job)

    def arrived(self, event: Event) -> None:
        """Something is in the inbox. A target is answered at once; for the rest the agent is woken in its turn."""
        if isinstance(event, Received):
            self._later(self._react)
        else:
            self._wake_at(self._timers.now())

    def _react(self) -> None:
        """Judge what has arrived and answer it, no more: what follows from it comes with the next tick."""
        agent = self.agent
        self._empty_inbox()
        agent.answering = True
        agent.intake.tick()
        agent.answering = False
        agent.journal.flush()
        agent.link.pump()
        self._wake_at(self._timers.now())

    def _empty_inbox(self) -> None:
        self.agent.go_on()
        for event in self._inbox.take():
            self.agent.handle(event)

    def _come_back(self) -> None:
        if self.agent.ending.finished:
            return
        due = self.agent.next_due()
        if due is not None:
            self._wake_at(due)

    def _wake_at(self, due: float) -> None:
        if self._due is None or due < self._due:
            self._due = due
            self._timers.at(due, partial(self._wake, due))

    def _wake(self, due: float) -> None:
        if due != self._due or self.agent.ending.finished:
            # Overtaken by an earlier one.
            return
        self._due = None
        self._empty_inbox()
        self.agent.tick()
        self._come_back()

    # The engine.

    def _hear(self, event: EngineEvent, owner: str | None) -> None:
        if owner in (None, OWNER):
            self._inbox.put(event)
        if event.kind == "container" and event.action in ("start", "die") and not self._ticking:
            self._ticking = True
            self._timers.after(self._dice.takes_s(HEALTH), self._tick)

    def _tick(self) -> None:
        """Checks report, and what the engine restarts runs again: which may end again, and so on."""
        self._ticking = False
        self.engine.world.tick()

    def _engine_call(self, name: str, arguments: tuple[Any, ...]) -> None:
        self._dice.before_call(name, arguments)
        if name == STARTED and (after_s := self._dice.crashes_after_s()) is not None:
            self._timers.after(after_s, partial(self._crash, arguments[0]))

    def _crash(self, container: str) -> None:
        found = self.engine.world.find(container)
        if found is not None and found.up:
            self.engine.world.exit(found.id, 1)


class _Inbox(SimpleQueue[Event]):
    """The agent's, whose owner does not wait for it but is called."""

    def __init__(self, device: SimulatedDevice) -> None:
        self._device = device

    def put(self, item: Event, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002
        super().put(item, block, timeout)
        self._device.arrived(item)

    def take(self) -> Iterator[Event]:
        """Until it is empty, what comes meanwhile included."""
        while not self.empty():
            yield self.get_nowait()


class _Impatience(threading.Event):
    """What waits for a hiccup of the engine to pass would hold up all devices: here it is tried again at once."""

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - an Event's
        return self.is_set()


def _alive() -> None:
    """Nobody looks at a simulated device's heartbeat."""
