"""A container engine in memory, with the agent's port `Engine`: deterministic, and as honest as the real one.

Both pass the same contract suite (`tests/contract/test_engine.py`). What there is and how it changes is in its `world`,
which several engines with different owners may share. `before_call` is called with the name and the arguments of a call
before it takes effect, and with `NAME.done` after that: whoever raises there fails the call, or cuts the power.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any

from cloud_sim.engine_parts import Progress
from cloud_sim.engine_world import World
from device_agent.model.errors import Cancelled, EngineAway, EngineError, Kind
from device_agent.model.image import normalise
from device_agent.model.log import LogLine
from device_agent.model.observed import EngineEvent, Observed, Status
from device_agent.model.steps import Connect, Create, CreateNetwork, CreateVolume, Fill

NOTICE_S = 0.1
TAIL_BYTES = 2048

BeforeCall = Callable[[str, tuple[Any, ...]], None]


def _nothing(name: str, arguments: tuple[Any, ...]) -> None:
    """The hook where none is given."""


class SimulatedEngine:
    """`owner` is the value of the label `device-agent.device`: what carries it is this engine's caller's."""

    def __init__(self, owner: str, world: World | None = None, before_call: BeforeCall = _nothing) -> None:
        self.owner = owner
        self.world = world or World()
        self.before_call = before_call

    def observe(self, stale: frozenset[str] | None = frozenset()) -> Observed:
        with self._call("observe", stale) as world:
            ids = {network.name: network.id for network in world.networks.values()}
            return Observed(
                containers=tuple(c.seen(ids) for c in world.containers.values() if c.owned_by(self.owner)),
                networks=tuple(network.seen(self.owner) for network in world.networks.values()),
                volumes=tuple(volume.seen(self.owner) for volume in world.volumes.values()),
                images={**world.images, **{id_: id_ for id_ in (*world.images.values(), *world.untagged)}},
            )

    def events(self, stop: Event) -> Iterator[EngineEvent]:
        queue: SimpleQueue[EngineEvent] = SimpleQueue()

        def listen(event: EngineEvent, owner: str | None) -> None:
            if owner in (None, self.owner):
                queue.put(event)

        with self._call("events") as world:
            world.listeners.append(listen)
        try:
            yield EngineEvent("stream", "open", "")
            while not stop.is_set() and not world.away:
                try:
                    yield queue.get(timeout=NOTICE_S)
                except Empty:
                    continue
        finally:
            world.listeners.remove(listen)

    def pull(self, image: str, platform: str | None, progress: Callable[[Any], None], cancel: Event) -> str:
        with self._call("pull", image, platform) as world:
            if cancel.is_set():
                raise Cancelled(image)
            if world.registry_down:
                raise EngineError("registry_unreachable", f"the registry cannot be reached: {image}", Kind.TEMPORARY)
            reference = normalise(image)
            if reference not in world.registry:
                raise EngineError("no_such_image", f"the image does not exist: {image}", Kind.TARGET)
            id_ = world.registry[reference]
            if platform not in (None, world.platforms.get(id_, platform)):
                raise EngineError("wrong_platform", f"there is no {image} for {platform}", Kind.TARGET)
            progress(Progress(image, 0, 1000))
            progress(Progress(image, 1000, 1000))
            world.name_image(reference, id_)
            world.tell(EngineEvent("image", "pull", image, image))
            return id_

    def missing_bytes(self, image: str, platform: str | None) -> int | None:
        with self._call("missing_bytes", image, platform) as world:
            reference = normalise(image)
            if world.registry_down or reference not in world.registry:
                return None
            here = world.registry[reference] in (*world.images.values(), *world.untagged)
            return 0 if here else world.sizes.get(reference)

    def create_network(self, network: CreateNetwork) -> None:
        with self._call("create_network", network) as world:
            if any(other.name == network.name for other in world.networks.values()):
                raise _name_in_use(network.name, Kind.TEMPORARY)
            world.add_network(network.name, network.labels)

    def check_network(self, network_id: str, users: frozenset[str]) -> None:
        with self._call("check_network", network_id, users) as world:
            on_it = (c for c in world.containers.values() if c.up and network_id in c.attached.values())
            others = sorted(c.name for c in on_it if c.id not in users)
            if others:
                message = f"containers that are not this app's are on the network: {', '.join(others)}"
                raise EngineError("network_in_use", message, Kind.OUTSIDE)

    def remove_network(self, network_id: str) -> None:
        with self._call("remove_network", network_id) as world:
            network = world.networks.get(network_id)
            if network is None:
                return
            if any(network_id in c.attached.values() and c.up for c in world.containers.values()):
                message = f"containers are still attached to the network {network.name}"
                raise EngineError("network_in_use", message, Kind.TEMPORARY)
            world.remove_network(network)

    def create_volume(self, volume: CreateVolume) -> None:
        with self._call("create_volume", volume) as world:
            _add_volume(world, volume)

    def fill(self, fill: Fill) -> None:
        with self._call("fill", fill) as world:
            _add_volume(world, fill.volume)
            holder = world.add_holder(fill)
            self.before_call("fill.held", (fill,))
            world.volumes[fill.volume.name].files = fill.files
            world.remove(holder)

    def create(self, container: Create) -> None:
        with self._call("create", container) as world:
            holder = next((c for c in world.containers.values() if c.name == container.name), None)
            if holder is not None:
                own = holder.owned_by(self.owner)
                raise _name_in_use(container.name, Kind.TEMPORARY if own else Kind.OUTSIDE)
            if container.files and container.files not in world.volumes:
                raise EngineError("volume_missing", f"the volume does not exist: {container.files}", Kind.TEMPORARY)
            world.add(container)

    def connect(self, connect: Connect) -> None:
        with self._call("connect", connect) as world:
            container = world.required(connect.container)
            network = world.network_named(connect.endpoint.network)
            if network.name not in container.attached:
                container.attached[network.name] = network.id
                world.tell(
                    EngineEvent("network", "connect", network.id, network.name, container.app or None), self.owner
                )

    def disconnect(self, container_id: str, network: str) -> None:
        with self._call("disconnect", container_id, network) as world:
            container = world.find(container_id)
            if container is not None and network in container.attached:
                id_ = container.attached.pop(network)
                world.tell(EngineEvent("network", "disconnect", id_, network, container.app or None), self.owner)

    def start(self, container: str) -> None:
        with self._call("start", container) as world:
            found = world.required(container)
            if found.status is Status.PAUSED:
                found.status = Status.RUNNING
                world.happened(found, "unpause")
            elif not found.up:
                world.start(found)

    def stop(self, container_id: str, grace_s: float) -> None:
        with self._call("stop", container_id, grace_s) as world:
            container = world.find(container_id)
            if container is not None:
                world.stop(container)

    def remove(self, container_id: str) -> None:
        with self._call("remove", container_id) as world:
            container = world.find(container_id)
            if container is not None:
                world.remove(container)

    def rename(self, container_id: str, name: str) -> None:
        with self._call("rename", container_id, name) as world:
            container = world.required(container_id)
            for other in world.containers.values():
                if other.name == name and other is not container:
                    own = other.owned_by(self.owner)
                    raise _name_in_use(name, Kind.TEMPORARY if own else Kind.OUTSIDE)
            if container.name != name:
                container.name = name
                world.happened(container, "rename")

    def remove_image(self, image: str) -> None:
        with self._call("remove_image", image) as world:
            reference = normalise(image)
            untagged = reference in world.untagged
            id_ = reference if untagged else world.images.get(reference)
            if id_ is None:
                return
            last = list(world.images.values()).count(id_) == (0 if untagged else 1)
            if last and any(c.image_id == id_ for c in world.containers.values()):
                raise EngineError("image_in_use", f"a container uses the image: {image}", Kind.OUTSIDE)
            if untagged:
                world.untagged.remove(id_)
                world.tell(EngineEvent("image", "delete", id_, id_))
            else:
                world.untag(reference)

    def remove_volume(self, name: str) -> None:
        with self._call("remove_volume", name) as world:
            if any(name in container.mounted for container in world.containers.values()):
                raise EngineError("volume_in_use", f"a container has the volume: {name}", Kind.OUTSIDE)
            world.remove_volume(name)

    def has_file(self, container_id: str, path: str) -> bool:
        with self._call("has_file", container_id, path) as world:
            container = world.find(container_id)
            return container is not None and path in container.paths | container.files.keys()

    def tail(self, container_id: str, lines: int) -> str:
        with self._call("tail", container_id, lines) as world:
            container = world.find(container_id)
            output = world.behaviour(container).output if container else ""
            return "".join(output.splitlines(keepends=True)[-lines:])[-TAIL_BYTES:]

    def logs(
        self, container_id: str, *, lines: int, since: datetime | None, follow: bool, stop: Event
    ) -> Iterator[tuple[LogLine, ...]]:
        with self._call("logs", container_id, lines, since, follow) as world:
            told = world.log(world.required(container_id))
        kept = [line for line in told if since is None or datetime.fromisoformat(line.at or "") >= since]
        yield tuple(kept[max(0, len(kept) - lines) :])
        while follow and not stop.wait(NOTICE_S):
            with self.world.lock:
                container = self.world.find(container_id)
                now = self.world.log(container) if container else told
            if len(now) > len(told):
                yield tuple(now[len(told) :])
                told = now
            if container is None or not container.up:
                return

    @contextmanager
    def _call(self, name: str, *arguments: object) -> Iterator[World]:
        with self.world.lock:
            self._answers()
            self.before_call(name, arguments)
            self._answers()
            yield self.world
            self.before_call(f"{name}.done", arguments)
            self._answers()

    def _answers(self) -> None:
        if self.world.away:
            raise EngineAway("the simulated engine is away")


def _add_volume(world: World, volume: CreateVolume) -> None:
    there = world.volumes.get(volume.name)
    if there is None:
        world.add_volume(volume.name, volume.labels)
    elif not volume.labels.items() <= there.labels.items():
        raise _name_in_use(volume.name, Kind.OUTSIDE)


def _name_in_use(name: str, kind: Kind) -> EngineError:
    return EngineError("name_in_use", f"the name is taken: {name}", kind)
