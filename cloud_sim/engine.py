"""A container engine in memory, with the agent's port `Engine`: deterministic, and as honest as the real one.

Both pass the same contract suite. Nothing happens by itself: processes end and checks report when they are started, or
when the test says so (`tick`, `exit`, `reboot`, …). `before_call` is called with a call's name and arguments before it
takes effect, and with `NAME.done` after: whoever raises there cuts the power or fails the call. Safe for threads.
"""

from collections.abc import Callable, Iterator, Mapping
from queue import Empty, SimpleQueue
from threading import Event, RLock
from typing import Any

from cloud_sim.engine_parts import Behaviour, Progress, SimContainer, SimNetwork, SimVolume, image_id
from device_agent.model.compose import Port, Service
from device_agent.model.errors import Cancelled, EngineError, Kind
from device_agent.model.image import normalise
from device_agent.model.observed import EngineEvent, Health, Observed, Status
from device_agent.model.steps import Connect, Create, CreateNetwork, CreateVolume

NOTICE_S = 0.1
TAIL_BYTES = 2048
_FIRST_EPHEMERAL = 32768
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def _nothing(name: str, arguments: tuple[object, ...]) -> None:
    """The hook where none is given."""


class SimulatedEngine:
    """`owner` is the value of the label `device-agent.device`; one engine can be shared by passing it on (`shared_with`)."""

    def __init__(self, owner: str, *, before_call: Callable[[str, tuple[Any, ...]], None] = _nothing) -> None:
        self.owner = owner
        self.before_call = before_call
        self.away = False
        self.registry_down = False
        self.registry: dict[str, str] = {}
        """What can be pulled: normalised reference → image id."""
        self.behaviours: dict[str, Behaviour] = {}
        """By image id."""
        self.images: dict[str, str] = {}
        self.containers: dict[str, SimContainer] = {}
        self.networks: dict[str, SimNetwork] = {}
        self.volumes: dict[str, SimVolume] = {}
        self._lock = RLock()
        self._count = 0
        self._streams: list[SimpleQueue[EngineEvent]] = []
        self._add_network("bridge")

    # The port.

    def observe(self, stale: frozenset[str] | None = frozenset()) -> Observed:
        with self._call("observe", stale):
            ids = {network.name: network.id for network in self.networks.values()}
            found = Observed(
                containers=tuple(c.seen(ids) for c in self.containers.values() if c.owned_by(self.owner)),
                networks=tuple(network.seen(self.owner) for network in self.networks.values()),
                volumes=tuple(volume.seen(self.owner) for volume in self.volumes.values()),
                images={**self.images, **{id_: id_ for id_ in self.images.values()}},
            )
        return found

    def events(self, stop: Event) -> Iterator[EngineEvent]:
        with self._call("events"):
            stream: SimpleQueue[EngineEvent] = SimpleQueue()
            self._streams.append(stream)
        try:
            yield EngineEvent("stream", "open", "")
            while not stop.is_set() and not self.away:
                try:
                    yield stream.get(timeout=NOTICE_S)
                except Empty:
                    continue
        finally:
            with self._lock:
                self._streams.remove(stream)

    def pull(self, image: str, progress: Callable[[Any], None], cancel: Event) -> None:
        with self._call("pull", image):
            if cancel.is_set():
                raise Cancelled(image)
            if self.registry_down:
                raise EngineError("registry_unreachable", f"the registry cannot be reached: {image}", Kind.TEMPORARY)
            reference = normalise(image)
            if reference not in self.registry:
                raise EngineError("no_such_image", f"the image does not exist: {image}", Kind.TARGET)
            progress(Progress(image, 0, 1000))
            progress(Progress(image, 1000, 1000))
            self.images[reference] = self.registry[reference]
            self._tell(EngineEvent("image", "pull", image, image))

    def create_network(self, network: CreateNetwork) -> None:
        with self._call("create_network", network):
            if any(other.name == network.name for other in self.networks.values()):
                raise _name_in_use(network.name, Kind.TEMPORARY)
            self._add_network(network.name, network.labels)

    def remove_network(self, network_id: str) -> None:
        with self._call("remove_network", network_id):
            network = self.networks.get(network_id)
            if network is None:
                return
            if any(network_id in c.attached.values() and c.up for c in self.containers.values()):
                message = f"containers are still attached to the network {network.name}"
                raise EngineError("network_in_use", message, Kind.TEMPORARY)
            del self.networks[network_id]
            self._tell(EngineEvent("network", "destroy", network_id, network.name, network.seen(self.owner).app))

    def create_volume(self, volume: CreateVolume) -> None:
        with self._call("create_volume", volume):
            there = self.volumes.get(volume.name)
            if there is None:
                self._add_volume(volume.name, volume.labels)
            elif not volume.labels.items() <= there.labels.items():
                raise _name_in_use(volume.name, Kind.OUTSIDE)

    def create(self, container: Create) -> None:
        with self._call("create", container):
            holder = next((c for c in self.containers.values() if c.name == container.name), None)
            if holder is not None:
                own = holder.owned_by(self.owner)
                raise _name_in_use(container.name, Kind.TEMPORARY if own else Kind.OUTSIDE)
            self._add(container, {**container.service.labels, **container.labels})

    def connect(self, connect: Connect) -> None:
        with self._call("connect", connect):
            container = self._required(connect.container)
            network = self._network_named(connect.endpoint.network)
            if network.name in container.attached:
                return
            container.attached[network.name] = network.id
            self._tell(EngineEvent("network", "connect", network.id, network.name, container.app or None))

    def disconnect(self, container_id: str, network: str) -> None:
        with self._call("disconnect", container_id, network):
            container = self._find(container_id)
            if container is None or network not in container.attached:
                return
            id_ = container.attached.pop(network)
            self._tell(EngineEvent("network", "disconnect", id_, network, container.app or None))

    def start(self, container: str) -> None:
        with self._call("start", container):
            found = self._required(container)
            if found.status is Status.PAUSED:
                found.status = Status.RUNNING
                self._happened(found, "unpause")
            elif not found.up:
                self._start(found)

    def stop(self, container_id: str, grace_s: float) -> None:
        with self._call("stop", container_id, grace_s):
            container = self._find(container_id)
            if container is not None and container.up:
                container.stopped_by_hand = True
                self._end(container, 143)

    def remove(self, container_id: str) -> None:
        with self._call("remove", container_id):
            self._remove(container_id)

    def rename(self, container_id: str, name: str) -> None:
        with self._call("rename", container_id, name):
            container = self._required(container_id)
            if any(other.name == name and other is not container for other in self.containers.values()):
                raise _name_in_use(name, Kind.TEMPORARY)
            if container.name != name:
                container.name = name
                self._happened(container, "rename")

    def tail(self, container_id: str, lines: int) -> str:
        with self._call("tail", container_id, lines):
            container = self._find(container_id)
            output = self._behaviour(container).output if container else ""
        return "".join(output.splitlines(keepends=True)[-lines:])[-TAIL_BYTES:]

    # What moves the world, by container name or id.

    def add_image(self, reference: str, id_: str | None = None, behaviour: Behaviour | None = None) -> str:
        """An image that is here; returns its id."""
        id_ = self.offer_image(reference, id_, behaviour)
        with self._lock:
            self.images[normalise(reference)] = id_
            self._tell(EngineEvent("image", "tag", id_, reference))
        return id_

    def offer_image(self, reference: str, id_: str | None = None, behaviour: Behaviour | None = None) -> str:
        """An image that can be pulled; returns its id. Offered again with another id, a tag has moved."""
        id_ = id_ or image_id(normalise(reference))
        self.registry[normalise(reference)] = id_
        if behaviour is not None:
            self.behaviours[id_] = behaviour
        return id_

    def untag(self, reference: str) -> None:
        """`docker rmi`."""
        with self._lock:
            id_ = self.images.pop(normalise(reference))
            self._tell(EngineEvent("image", "untag", id_, reference))

    def tick(self) -> None:
        """A moment passes: what the engine restarts on its own runs again, and checks report."""
        with self._lock:
            for container in list(self.containers.values()):
                if container.status is Status.RESTARTING:
                    self._run(container)
                elif container.status is Status.RUNNING and container.health is Health.STARTING:
                    self.become(container.id, self._behaviour(container).health)

    def become(self, container: str, health: Health) -> None:
        with self._lock:
            found = self._required(container)
            if found.health is not health:
                found.health = health
                self._happened(found, f"health_status: {health}")

    def become_healthy(self, container: str) -> None:
        self.become(container, Health.HEALTHY)

    def exit(self, container: str, code: int) -> None:
        """Its process ends by itself; the restart policy applies."""
        with self._lock:
            self._end(self._required(container), code)

    def kill(self, container: str) -> None:
        """`docker kill`: the restart policy does not apply."""
        with self._lock:
            found = self._required(container)
            found.stopped_by_hand = True
            self._end(found, 137)

    def pause(self, container: str) -> None:
        with self._lock:
            found = self._required(container)
            found.status = Status.PAUSED
            self._happened(found, "pause")

    def rm(self, container: str) -> None:
        """`docker rm -f`."""
        with self._lock:
            self._remove(container)

    def rm_network(self, name: str) -> None:
        """`docker network rm -f`, whoever is attached."""
        with self._lock:
            network = self._network_named(name)
            del self.networks[network.id]
            for container in self.containers.values():
                if container.up:
                    container.attached.pop(name, None)
            self._tell(EngineEvent("network", "destroy", network.id, name, network.seen(self.owner).app))

    def reboot(self) -> None:
        """Every process ends; what the restart policies say runs again. Event streams end and may be opened again."""
        with self._lock:
            for container in self.containers.values():
                ran, policy = container.up, container.made.service.restart.policy
                if ran:
                    container.status, container.exit_code, container.health = Status.EXITED, 137, None
                    container.ports = frozenset()
                again = policy == "always" or (policy == "unless-stopped" and not container.stopped_by_hand)
                if (ran or container.stopped_by_hand) and again:
                    self._start(container)

    def add_foreign(
        self, name: str, *, ports: tuple[Port, ...] = (), labels: Mapping[str, str] | None = None, running: bool = True
    ) -> str:
        """A container that is not the agent's; returns its id."""
        with self._lock:
            self.add_image("foreign:1")
            made = Create(name, "foreign:1", Service(image="foreign:1", ports=ports), {}, "bridge")
            container = self._add(made, labels or {})
            if running:
                self._start(container)
            return container.id

    def add_foreign_network(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        with self._lock:
            return self._add_network(name, labels or {}).id

    def add_foreign_volume(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        with self._lock:
            self._add_volume(name, labels or {})
