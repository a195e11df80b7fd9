"""The world behind simulated engines: images, containers, networks, volumes, and the few ways in which they change.

Nothing happens by itself: a process ends and a check reports when it is started, or when the test says so (`tick`,
`exit`, `reboot`, …). Containers are named by name or id. Safe for threads; time is a count, so runs can be repeated.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import RLock
from typing import Any

from cloud_sim.engine_parts import Behaviour, SimContainer, SimNetwork, SimVolume, image_id
from device_agent.model.compose import Mount, Port, Restart, Service
from device_agent.model.errors import EngineError, Kind
from device_agent.model.image import normalise
from device_agent.model.log import LogLine
from device_agent.model.observed import LABEL_APP, LABEL_DEVICE, LABEL_FILLS, LABEL_SPEC, EngineEvent, Health, Status
from device_agent.model.steps import Create, Fill

_FIRST_EPHEMERAL = 32768
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on

Listener = Callable[[EngineEvent, str | None], None]
"""Takes an event and the owner of the object it is about."""


class World:
    def __init__(self) -> None:
        self.lock = RLock()
        self.away = False
        """The engine does not answer."""
        self.registry_down = False
        self.registry: dict[str, str] = {}
        """What can be pulled: normalised reference → image id."""
        self.behaviours: dict[str, Behaviour] = {}
        """By image id."""
        self.sizes: dict[str, int] = {}
        """By normalised reference: bytes that a pull fetches, where the registry tells."""
        self.platforms: dict[str, str] = {}
        """By image id, where it counts what an image is for."""
        self.images: dict[str, str] = {}
        self.untagged: set[str] = set()
        """Ids of images whose last reference has moved on to another."""
        self.containers: dict[str, SimContainer] = {}
        self.networks: dict[str, SimNetwork] = {}
        self.volumes: dict[str, SimVolume] = {}
        self.listeners: list[Listener] = []
        self._count = 0
        for name in ("bridge", "host", "none"):
            self.add_network(name)

    # What happens to a world from outside.

    def offer_image(self, reference: str, id_: str | None = None, behaviour: Behaviour | None = None) -> str:
        """An image that can be pulled; returns its id. Offered again with another id, the tag has moved."""
        id_ = id_ or image_id(normalise(reference))
        self.registry[normalise(reference)] = id_
        if behaviour is not None:
            self.behaviours[id_] = behaviour
        return id_

    def add_image(self, reference: str, id_: str | None = None, behaviour: Behaviour | None = None) -> str:
        """An image that is here and can be pulled again; returns its id."""
        with self.lock:
            id_ = self.offer_image(reference, id_, behaviour)
            self.name_image(normalise(reference), id_)
            self.tell(EngineEvent("image", "tag", id_, reference))
            return id_

    def name_image(self, reference: str, id_: str) -> None:
        """The reference shows another image now; one that has no other stays without a name."""
        before = self.images.get(reference)
        self.images[reference] = id_
        self.untagged.discard(id_)
        if before and before not in self.images.values():
            self.untagged.add(before)

    def untag(self, reference: str) -> None:
        """`docker rmi`."""
        with self.lock:
            id_ = self.images.pop(normalise(reference))
            self.tell(EngineEvent("image", "untag", id_, reference))

    def tick(self) -> None:
        """A moment passes: what the engine restarts on its own runs again, and checks report."""
        with self.lock:
            for container in list(self.containers.values()):
                if container.status is Status.RESTARTING:
                    self._run(container)
                elif container.status is Status.RUNNING and container.health is Health.STARTING:
                    self.become(container.id, self.behaviour(container).health)

    def become(self, container: str, health: Health) -> None:
        """A healthcheck reports."""
        with self.lock:
            found = self.required(container)
            if found.health is not health:
                found.health = health
                self.happened(found, f"health_status: {health}")

    def become_healthy(self, container: str) -> None:
        self.become(container, Health.HEALTHY)

    def exit(self, container: str, code: int) -> None:
        """Its process ends by itself; the restart policy applies."""
        with self.lock:
            self._end(self.required(container), code)

    def kill(self, container: str) -> None:
        """`docker kill`: the restart policy does not apply."""
        with self.lock:
            found = self.required(container)
            found.stopped_by_hand = True
            self._end(found, 137)

    def pause(self, container: str) -> None:
        with self.lock:
            found = self.required(container)
            found.status = Status.PAUSED
            self.happened(found, "pause")

    def update(self, container: str, restart: Restart | None = None, **limits: Any) -> None:
        """`docker update`."""
        with self.lock:
            found = self.required(container)
            found.restart = restart or found.restart
            found.limits = replace(found.limits, **limits)
            self.happened(found, "update")

    def write(self, container: str, text: str, stream: str = "stdout") -> None:
        """Its process writes a line."""
        with self.lock:
            self.required(container).written.append(LogLine(text, stream, self._moment()))

    def log(self, container: SimContainer) -> list[LogLine]:
        """What it wrote when it was started, and since."""
        said = self.behaviour(container).output.splitlines()
        return [LogLine(text, at=container.started_at) for text in said if container.started_at] + container.written

    def rm(self, container: str) -> None:
        """`docker rm -f`."""
        with self.lock:
            self.remove(self.required(container))

    def reboot(self) -> None:
        """Every process ends; what the restart policies say runs again."""
        with self.lock:
            for container in self.containers.values():
                ran, policy = container.up, container.restart.policy
                if ran:
                    container.status, container.exit_code, container.health = Status.EXITED, 137, None
                    container.ports = frozenset()
                by_policy = policy == "always" or (policy == "unless-stopped" and not container.stopped_by_hand)
                if by_policy and (ran or container.stopped_by_hand):
                    with suppress(EngineError):  # it stays as it is where it cannot be started
                        self.start(container)

    def add_foreign(
        self, name: str, *, ports: tuple[Port, ...] = (), labels: Mapping[str, str] | None = None, running: bool = True
    ) -> str:
        """A container that is nobody's; returns its id."""
        with self.lock:
            self.add_image("foreign:1")
            made = Create(name, "foreign:1", Service(image="foreign:1", ports=ports), labels or {}, "bridge")
            container = self.add(made)
            if running:
                self.start(container)
            return container.id

    # What the port's calls do.

    def add(self, made: Create) -> SimContainer:
        """A created container, with the volumes that the engine makes by itself. Its image is here."""
        anonymous: list[str] = []
        for mount in made.mounts:
            if mount.type != "volume":
                continue
            name = mount.source or self._new_id()
            if name not in self.volumes:
                self.add_volume(name, {})
            if mount.source is None:
                anonymous.append(name)
        container = SimContainer(
            id=self._new_id(),
            name=made.name,
            made=made,
            image_id=self.image(made.image),
            labels={**made.service.labels, **made.labels},
            attached={endpoint.network: "" for endpoint in made.endpoints[:1]},
            anonymous=tuple(anonymous),
            files={file.target: file for file in self.volumes[made.files].files} if made.files else {},
            created_at=self._moment(),
        )
        self.containers[container.id] = container
        self.happened(container, "create")
        return container

    def add_holder(self, fill: Fill) -> SimContainer:
        """What a volume is filled through."""
        labels = {name: value for name, value in fill.volume.labels.items() if name != LABEL_SPEC}
        mount = Mount(type="volume", source=fill.volume.name, target="/filled")
        service = Service(image=fill.image)
        name = f"holder-{self._new_id()[:12]}"
        return self.add(
            Create(name, fill.image, service, {**labels, LABEL_FILLS: fill.volume.name}, "none", mounts=(mount,))
        )

    def start(self, container: SimContainer) -> None:
        """As the engine does it: what it needs is looked for now, not when it was created."""
        try:
            self._attach(container)
            container.ports = frozenset(self._ports(container))
            self._load(container)
        except EngineError as error:
            container.error, container.exit_code = error.message, 128
            container.ports = frozenset()
            raise
        container.restarts = 0
        container.stopped_by_hand = False
        self._run(container)

    def stop(self, container: SimContainer) -> None:
        if container.up:
            container.stopped_by_hand = True
            self._end(container, 143)

    def remove(self, container: SimContainer) -> None:
        if container.up:
            container.stopped_by_hand = True
            self._end(container, 137)
        del self.containers[container.id]
        for volume in container.anonymous:
            self.volumes.pop(volume, None)
        self.happened(container, "destroy")

    def add_network(self, name: str, labels: Mapping[str, str] | None = None) -> str:
        """Returns its id."""
        with self.lock:
            network = SimNetwork(self._new_id(), name, labels or {})
            self.networks[network.id] = network
            self._tell_of("network", "create", network.id, name, network.labels)
            return network.id

    def remove_network(self, network: SimNetwork) -> None:
        del self.networks[network.id]
        self._tell_of("network", "destroy", network.id, network.name, network.labels)

    def remove_volume(self, name: str) -> None:
        volume = self.volumes.pop(name, None)
        if volume:
            self._tell_of("volume", "destroy", name, name, volume.labels)

    def add_volume(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        with self.lock:
            self.volumes[name] = SimVolume(name, labels or {})
            self._tell_of("volume", "create", name, name, labels or {})

    def find(self, container: str) -> SimContainer | None:
        named = (c for c in self.containers.values() if c.name == container)
        return self.containers.get(container) or next(named, None)

    def required(self, container: str) -> SimContainer:
        found = self.find(container)
        if found is None:
            raise EngineError("no_such_container", f"the container is gone: {container}", Kind.TEMPORARY)
        return found

    def network_named(self, name: str) -> SimNetwork:
        found = self.networks.get(name) or next((n for n in self.networks.values() if n.name == name), None)
        if found is None:
            raise EngineError("network_missing", f"the network does not exist: {name}", Kind.TEMPORARY)
        return found

    def image(self, reference: str) -> str:
        """The id of an image that is here."""
        id_ = reference if reference in self.images.values() else self.images.get(normalise(reference))
        if id_ is None:
            raise EngineError("no_such_image", f"the image does not exist: {reference}", Kind.TARGET)
        return id_

    def behaviour(self, container: SimContainer) -> Behaviour:
        return self.behaviours.get(container.image_id, Behaviour())

    def happened(self, container: SimContainer, action: str) -> None:
        if LABEL_FILLS in container.labels:
            return
        app, service = container.app or None, container.service or None
        event = EngineEvent("container", action, container.id, container.name, app, service)
        self.tell(event, container.labels.get(LABEL_DEVICE, ""))

    def tell(self, event: EngineEvent, owner: str | None = None) -> None:
        for listener in list(self.listeners):
            listener(event, owner)

    def _tell_of(self, kind: str, action: str, id_: str, name: str, labels: Mapping[str, str]) -> None:
        self.tell(EngineEvent(kind, action, id_, name, labels.get(LABEL_APP)))

    def _run(self, container: SimContainer) -> None:
        container.status = Status.RUNNING
        container.started_at = self._moment()
        container.error, container.exit_code = "", None
        container.health = Health.STARTING if container.checked else None
        self.happened(container, "start")
        code = self.behaviour(container).exit_code
        if code is not None:
            self._end(container, code)

    def _end(self, container: SimContainer, code: int) -> None:
        container.exit_code, container.health = code, None
        container.ports = frozenset()
        if container.restarts_itself:
            container.restarts += 1
            container.status = Status.RESTARTING
        else:
            container.status = Status.EXITED
        self.happened(container, "die")

    def _attach(self, container: SimContainer) -> None:
        for name, id_ in container.attached.items():
            container.attached[name] = self.network_named(id_ or name).id
        for mode in (container.made.network_mode, container.made.pid, container.made.ipc):
            kind, _, target = (mode or "").partition(":")
            if kind == "container" and not self.required(target).up:
                message = f"the container whose namespace is to be shared does not run: {target}"
                raise EngineError("dependency_not_running", message, Kind.TEMPORARY)

    def _load(self, container: SimContainer) -> None:
        if error := self.behaviour(container).start_error:
            raise EngineError(error[0], f"{container.name} cannot be started: {error[0]}", error[1])

    def _ports(self, container: SimContainer) -> list[tuple[int, str, str]]:
        held = {port for other in self.containers.values() if other is not container for port in other.ports}
        chosen: list[tuple[int, str, str]] = []
        for port in container.made.service.ports:
            first, _, last = (port.published or "").partition("-")
            choices = range(int(first), int(last or first) + 1) if first else range(_FIRST_EPHEMERAL, 61000)
            free = (n for n in choices if not any(_collide((n, port.protocol, port.host_ip or ""), h) for h in held))
            number = next(free, None)
            if number is None:
                message = f"a host port is taken by something else: {port.published}"
                raise EngineError("port_in_use", message, Kind.OUTSIDE)
            chosen.append((number, port.protocol, port.host_ip or ""))
            held.add(chosen[-1])
        return chosen

    def _moment(self) -> str:
        """Each one is later than the one before."""
        self._count += 1
        return (_EPOCH + timedelta(seconds=self._count)).isoformat().replace("+00:00", "Z")

    def _new_id(self) -> str:
        self._count += 1
        # As an engine's, the first characters tell it apart.
        return hashlib.sha256(str(self._count).encode()).hexdigest()


def _collide(one: tuple[int, str, str], other: tuple[int, str, str]) -> bool:
    same_address = one[2] == other[2] or one[2] in _ANYWHERE or other[2] in _ANYWHERE
    return one[:2] == other[:2] and same_address
