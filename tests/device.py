"""A whole device in one thread: the real `Agent` over fakes, with jobs and a clock that the test moves.

`settle` lets everything happen that can happen now; `wait` lets time pass, and what falls due with it. `fuse` counts
the calls of all ports, and can cut the power at one of them; what is on the engine, in the store and at the broker
outlives the agent: `boot` starts the next one.
"""

import json
import queue
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_parts import SimContainer
from cloud_sim.engine_world import World
from device_agent.core.policy import Policy
from device_agent.model.host import Disk, HostFigures
from device_agent.model.observed import EngineEvent
from device_agent.ports import Received
from device_agent.runtime.agent import Agent
from device_agent.runtime.inbox import Event, Request, StopRequested
from device_agent.runtime.intake import SETTLE_S
from device_agent.runtime.options import Options
from device_agent.wire.payload import DEFAULT_LIMITS, Limits
from device_agent.wire.topics import DEFAULT_ROOT, Topics
from tests.builders import IDENTITY, NAMING, NOW, OPEN, payload
from tests.fakes_store import FakeStore
from tests.fakes_transport import FakeTransport

TOPICS = Topics(DEFAULT_ROOT, IDENTITY.fleet, IDENTITY.device)
OWNER = str(IDENTITY)
REPLY = f"{DEFAULT_ROOT}/{IDENTITY.fleet}/reply/cloud-sim.1"
MOST_EVENTS = 5000


FIGURES = HostFigures(
    cpu_percent=10,
    memory_mib=800,
    memory_total_mib=4000,
    disk_free_mib=10240,
    disk_total_mib=30000,
    temperature_c=None,
    uptime_s=86400,
)


class PowerCut(BaseException):
    """No `except Exception` stops it."""


@dataclass
class Hands:
    """A clock moved by hand."""

    time: datetime = NOW
    seconds: float = 1000.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds
        self.time += timedelta(seconds=seconds)


@dataclass
class Machine:
    """`Host`: figures as the test sets them."""

    now: HostFigures = FIGURES
    space: Disk | None = None
    taken: int = 0

    def disk(self) -> Disk | None:
        return self.space

    def figures(self) -> HostFigures:
        self.taken += 1
        return self.now


@dataclass
class Fuse:
    """Counts calls of ports; the one with the number `at` (from 1) is the last thing that happens."""

    at: int | None = None
    calls: list[str] = field(default_factory=list)

    def call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.at:
            raise PowerCut(name)

    def reset(self, at: int | None = None) -> None:
        self.at, self.calls = at, []


@dataclass
class Jobs:
    """`Workers` whose jobs run when the test says so, `mixed` in any order. Those of a lane in `held` wait."""

    mixed: bool = False
    held: set[str] = field(default_factory=set)
    waiting: deque[tuple[str, Callable[[], None]]] = field(default_factory=deque)

    def submit(self, lane: str, job: Callable[[], None]) -> None:
        self.waiting.append((lane, job))

    def run_one(self) -> bool:
        may_run = [each for each in self.waiting if each[0] not in self.held]
        if not may_run:
            return False
        chosen = random.choice(may_run) if self.mixed else may_run[0]
        self.waiting.remove(chosen)
        chosen[1]()
        return True


class Broker(FakeTransport):
    """Its calls pass through the fuse, and a new agent may start on it."""

    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self.fuse = fuse
        self.unanswered: set[int] = set()
        """Handles of what was published while PUBACKs were held back."""

    def start(self, **keys: Any) -> None:
        self.stopped = False
        super().start(**keys)

    def publish(self, topic: str, payload: bytes, **keys: Any) -> int | None:
        self.fuse.call(f"publish {topic.rpartition('/')[2]}")
        handle = super().publish(topic, payload, **keys)
        if self.hold_pubacks and handle is not None:
            self.unanswered.add(handle)
        self.fuse.call(f"published {topic.rpartition('/')[2]}")
        return handle

    def acknowledge(self, token: object) -> None:
        self.fuse.call("puback")
        super().acknowledge(token)
        self.fuse.call("puback.done")

    def subscribe_again(self) -> None:
        self.fuse.call("subscribe")
        super().subscribe_again()
        self.fuse.call("subscribe.done")

    def lose_unanswered(self) -> None:
        """What the broker has not answered never reached it: `hold_pubacks` was on, and the connection breaks."""
        if self.hold_pubacks:
            self.sent = [sent for sent in self.sent if sent.handle not in self.unanswered]
        self.unanswered.clear()

    def power_lost(self) -> None:
        self.lose_unanswered()
        self.connected = False
        if self.will is not None:
            self.retained[self.will.topic] = self.will.payload
        self.will = None


class Device:
    def __init__(
        self,
        policy: Policy = OPEN,
        limits: Limits = DEFAULT_LIMITS,
        images: tuple[str, ...] = (),
        seed: int | None = 1,
        **options: Any,
    ) -> None:
        """`seed` is of the jitter: a test that fails, fails again. Hypothesis has its own."""
        if seed is not None:
            random.seed(seed)
        self.clock = Hands()
        self.machine = Machine()
        self.fuse = Fuse()
        self.world = World()
        self.engine = SimulatedEngine(OWNER, self.world, self._engine_call)
        self.watch: Callable[[], None] = lambda: None
        """Called after each engine call has taken effect."""
        self.trouble: Callable[[str], None] = lambda _name: None
        """Called before each engine call: raises what the engine is to answer."""
        self.store = FakeStore(self.clock, self._store_call)
        self.broker = Broker(self.fuse)
        self.options = Options(IDENTITY, TOPICS, NAMING, policy=policy, limits=limits, **options)
        self.beats = 0
        self.mixed = False
        """Jobs run in any order, and some of them while a look is being taken: as threads do."""
        for image in images:
            self.world.add_image(image)
        self.world.listeners.append(self._hear)

    # The agent's life.

    def boot(self, *, connect: bool = True) -> "Device":
        """A new agent on what there is, until nothing more happens by itself."""
        self.inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.jobs = Jobs(self.mixed)
        self.agent = Agent(
            self.options,
            store=self.store,
            engine=self.engine,
            transport=self.broker,
            workers=self.jobs,
            clock=self.clock,
            host=self.machine,
            inbox=self.inbox,
            beat=self._beat,
        )
        self.agent.stopping.wait = self._no_time
        self.inbox.put(EngineEvent("stream", "open", ""))
        self.agent.start()
        if connect:
            self.broker.connect()
        self.settle()
        return self

    def cut_power(self, *, world_too: bool = False) -> None:
        """The agent is gone in this moment."""
        self.fuse.reset()
        self.broker.power_lost()
        self.inbox, self.jobs = queue.SimpleQueue(), Jobs()
        if world_too:
            self.world.reboot()

    def stop(self) -> None:
        """SIGTERM."""
        self.inbox.put(StopRequested())
        self.settle()

    # Time.

    def settle(self) -> None:
        """Everything that can happen without time passing."""
        for _ in range(MOST_EVENTS):
            if not self.step():
                return
        raise AssertionError(f"it never comes to rest: {self.fuse.calls[-40:]}")

    def step(self) -> bool:
        """What has arrived, and one job. False when there is nothing more to do now."""
        while not self.inbox.empty():
            self.agent.handle(self.inbox.get_nowait())
        if self.agent.ending.finished:
            return False
        self.agent.tick()
        return self.jobs.run_one() or not self.inbox.empty() or self._due_now()

    def _due_now(self) -> bool:
        due = self.agent.next_due()
        return due is not None and due <= self.clock.monotonic()

    def wait(self, seconds: float) -> None:
        """Time passes, from one thing that falls due to the next."""
        end = self.clock.monotonic() + seconds
        for _ in range(MOST_EVENTS):
            self.settle()
            if self.agent.ending.finished:
                return
            due = self.agent.next_due()
            self.clock.pass_(max(0.0, min(end if due is None else due, end) - self.clock.monotonic()))
            self.world.tick()
            if self.clock.monotonic() >= end:
                self.settle()
                return
        raise AssertionError(f"too much happens: {self.fuse.calls[-40:]}")

    def converge(self, most_s: float = 3600.0) -> None:
        """Wait until the device says that it has converged, and has nothing to answer and nothing to tell."""
        self.wait(SETTLE_S)
        waited = SETTLE_S
        while not self.at_rest:
            assert waited < most_s, f"not converged: {self.agent.current.read()}"
            self.wait(5.0)
            waited += 5.0

    @property
    def at_rest(self) -> bool:
        told = not self.agent._changed and not self.agent.journal.pending and not self.agent.link.outbox().rows
        return self.agent.current.read().converged and told and not self.broker.unacknowledged

    # What arrives.

    def publish(self, apps: Mapping[str, Any] | None = None, **keys: Any) -> None:
        """A target, retained, on the topic of its scope."""
        self.bring(payload(apps, **keys), device="device" in keys)

    def bring(self, content: bytes, *, device: bool = False, **keys: Any) -> None:
        """Bytes on a target topic."""
        self.broker.arrive(TOPICS.device_target if device else TOPICS.fleet_target, content, retain=True, **keys)
        self.settle()

    def ask(self, verb: str, **args: Any) -> Any:
        answers: list[Any] = []
        self.inbox.put(Request(verb, args, answers.append))
        self.settle()
        assert len(answers) == 1
        return answers[0]

    def command(self, verb: str, id_: str = "c1", *, to_all: bool = False, **args: Any) -> None:
        """A command over MQTT, as `cloud-sim` sends it."""
        self.order(TOPICS.broadcast(verb) if to_all else TOPICS.command(verb), {"id": id_, "args": args})

    def order(self, topic: str, body: Any, *, reply_to: str | None = REPLY, **keys: Any) -> None:
        """Bytes, or JSON, on a command's topic."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.broker.arrive(topic, content, response_topic=reply_to, **keys)
        self.settle()

    def answers(self, topic: str = "") -> list[dict[str, Any]]:
        """What the device has answered there, by default where cloud-sim listens."""
        return [json.loads(sent.payload) for sent in self.broker.on(topic or REPLY)]

    # What there is.

    def containers(self, app: str | None = None) -> dict[str, SimContainer]:
        """Service → its only container."""
        mine = [c for c in self.world.containers.values() if c.owned_by(OWNER) and app in (None, c.app)]
        found = {f"{c.app}/{c.service}": c for c in mine}
        assert len(found) == len(mine), f"doubles: {[c.name for c in mine]}"
        return found

    def ups(self) -> set[str]:
        """`app/service` of what runs."""
        return {f"{c.app}/{c.service}" for c in self.world.containers.values() if c.owned_by(OWNER) and c.up}

    def acks(self) -> list[dict[str, Any]]:
        """Every ack that the broker has got, in order."""
        return [json.loads(sent.payload) for sent in self.broker.on(TOPICS.ack)]

    def told(self) -> list[str]:
        """The acks in short: `accepted 1.1`, `applying 1.1 web`, `rejected 1.1 stale`."""
        return [_short(ack) for ack in self.acks()]

    def events(self) -> list[str]:
        return [json.loads(sent.payload)["event"] for sent in self.broker.on(TOPICS.event)]

    def state(self) -> Any:
        """The retained state at the broker."""
        return json.loads(self.broker.retained[TOPICS.state])

    def pubacked(self) -> list[Received]:
        return self.broker.acknowledged

    # Fakes' hooks.

    def _engine_call(self, name: str, _arguments: tuple[Any, ...]) -> None:
        if name.endswith(".done"):
            self.watch()
        self.fuse.call(name)
        if not name.endswith(".done"):
            self.trouble(name)
        elif name == "observe.done" and self.mixed:
            while random.random() < 0.7 and self.jobs.run_one():
                pass

    def _store_call(self, where: str) -> None:
        if where in ("commit", "committed", "remember_good", "spare", "spared"):
            self.fuse.call(where)

    def _hear(self, event: EngineEvent, owner: str | None) -> None:
        if owner in (None, OWNER) and hasattr(self, "inbox"):
            self.inbox.put(event)

    def _no_time(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - an Event's
        """What waits for a hiccup to pass does not wait here."""
        return self.agent.stopping.is_set()

    def _beat(self) -> None:
        self.beats += 1


def _short(ack: dict[str, Any]) -> str:
    version = f"{ack['epoch']}.{ack['revision']}" if "epoch" in ack else None
    words = (ack["verdict"], version, ack.get("app"), ack.get("service"), ack.get("code"))
    return " ".join(word for word in words if word)


def online(*images: str) -> Device:
    """Connected, with nothing to do yet."""
    return Device(images=images or ("api:1", "api:2", "db:1", "db:2")).boot()


def settled(apps: Mapping[str, Any] | None = None, **keys: Any) -> Device:
    """It runs a first target (by default `web` with `api`), and has told so."""
    device = online()
    device.publish(apps, **keys)
    device.converge()
    return device
