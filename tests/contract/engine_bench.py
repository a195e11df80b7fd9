"""A simulated and a real engine behind one face, so that the contract suite can move both worlds alike.

Every bench has an owner and names of its own, and takes away what it made, whatever happens. It touches nothing else:
the real engine is shared.
"""

import os
import secrets
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from docker.api.client import APIClient
from docker.errors import APIError

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_parts import Behaviour
from device_agent.adapters.docker_engine import DockerEngine
from device_agent.model.compose import File, Healthcheck, Port, Restart, Service
from device_agent.model.errors import Kind
from device_agent.model.observed import (
    LABEL_APP,
    LABEL_DEVICE,
    LABEL_IMAGE,
    LABEL_NETWORK,
    LABEL_SERVICE,
    LABEL_SPEC,
    LABEL_VOLUME,
    Container,
    EngineEvent,
)
from device_agent.model.steps import Create, CreateNetwork, CreateVolume, Endpoint
from device_agent.ports import Engine
from tests.eventually import eventually

DOCKER_URL = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
IMAGE = os.environ.get("TEST_IMAGE") or "device-agent-test"
APP = "shop"


@dataclass(frozen=True)
class Odd:
    """Something to run that behaves in a special way."""

    image: str
    command: tuple[str, ...]


class Bench(ABC):
    engine: Engine
    owner: str
    image = f"{IMAGE}:1"

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.owner = f"contract/{self.id}"

    def name(self, word: str) -> str:
        return f"contract-{self.id}-{word}"

    def labels(self, **more: str) -> dict[str, str]:
        return {LABEL_DEVICE: self.owner, LABEL_APP: APP, **more}

    def step(self, service: str = "api", **keys: object) -> Create:
        """A container of the test image that sleeps, on no network unless told otherwise."""
        network_mode = str(keys.pop("network_mode", "none"))
        endpoints = keys.pop("endpoints", ())
        mounts = keys.pop("mounts", ())
        made = Service.model_validate({"image": self.image, "restart": Restart(policy="no"), **keys})
        labels = self.labels(**{LABEL_SERVICE: service, LABEL_SPEC: "s1", LABEL_IMAGE: made.image})
        name, pid, ipc = self.name(service), made.pid, made.ipc
        return Create(name, made.image, made, labels, network_mode, endpoints, mounts, pid, ipc)  # type: ignore[arg-type]

    def on_network(self, service: str, network: CreateNetwork, **keys: object) -> Create:
        return self.step(service, network_mode=network.name, endpoints=(Endpoint(network.name, (service,)),), **keys)

    def network(self, key: str = "default") -> CreateNetwork:
        network = CreateNetwork(self.name(key), self.labels(**{LABEL_NETWORK: key, LABEL_SPEC: "n1"}))
        self.engine.create_network(network)
        return network

    def volume(self, key: str = "data") -> CreateVolume:
        volume = CreateVolume(self.name(key), self.labels(**{LABEL_VOLUME: key, LABEL_SPEC: "v1"}))
        self.engine.create_volume(volume)
        return volume

    def created(self, step: Create) -> Container:
        self.engine.create(step)
        return self.seen(step.name)

    def started(self, step: Create) -> Container:
        self.engine.create(step)
        self.engine.start(step.name)
        return self.seen(step.name)

    def find(self, name: str) -> Container | None:
        return next((c for c in self.engine.observe().containers if c.name == name), None)

    def seen(self, name: str) -> Container:
        found = self.find(name)
        assert found is not None, f"{name} is not observed"
        return found

    def network_id(self, name: str) -> str:
        return next(n.id for n in self.engine.observe().networks if n.name == name)

    def becomes(self, name: str, is_so: Callable[[Container], bool], what: str) -> Container:
        """The container, once `is_so`; the world moves on meanwhile."""

        def check() -> Container | None:
            self.moment()
            found = self.find(name)
            return found if found is not None and is_so(found) else None

        found = eventually(check, 15, what)
        assert found is not None
        return found

    @contextmanager
    def listening(self) -> Iterator[list[EngineEvent]]:
        """The events from now on; the stream is open when this begins, and has ended when it is left."""
        events: list[EngineEvent] = []
        stop = threading.Event()

        def listen() -> None:
            events.extend(self.engine.events(stop))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            eventually(lambda: events, 5, "the stream is open")
            yield events
        finally:
            stop.set()
            thread.join(2)
        assert not thread.is_alive(), "the stream did not end"

    @abstractmethod
    def moment(self) -> None:
        """Time passes, where it does not by itself."""

    @abstractmethod
    def exits(self, code: int) -> Odd: ...
    @abstractmethod
    def says(self, text: str) -> Odd: ...
    @abstractmethod
    def unstartable(self) -> Odd: ...
    @abstractmethod
    def kill(self, name: str) -> None: ...
    @abstractmethod
    def files(self, container: str, *paths: str) -> tuple[File, ...]: ...
    @abstractmethod
    def touch(self, name: str, path: str) -> None:
        """A process in the container makes a file; its folder is there."""

    @abstractmethod
    def pause(self, name: str) -> None: ...
    @abstractmethod
    def update(self, name: str, *, memory: int, retries: int) -> None:
        """Of one with a memory limit and `on-failure`."""

    @abstractmethod
    def rm(self, name: str) -> None: ...
    @abstractmethod
    def foreign(self, word: str, port: int | None = None) -> str: ...
    @abstractmethod
    def join(self, container: str, network: str) -> None:
        """By hand."""

    @abstractmethod
    def anonymous_volume(self, name: str) -> str: ...
    @abstractmethod
    def spare_image(self, word: str) -> str: ...
    @abstractmethod
    def foreign_volume(self, word: str) -> str: ...
    @abstractmethod
    def other(self, owner: str) -> Engine: ...
    @abstractmethod
    def away(self) -> Engine: ...
    @abstractmethod
    def close(self) -> None: ...


class SimulatedBench(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.simulated = SimulatedEngine(self.owner)
        self.world = self.simulated.world
        self.engine = self.simulated
        for version in (1, 2, 3):
            self.world.add_image(f"{IMAGE}:{version}")

    def moment(self) -> None:
        self.world.tick()

    def exits(self, code: int) -> Odd:
        self.world.add_image(f"exits:{code}", behaviour=Behaviour(exit_code=code))
        return Odd(f"exits:{code}", ())

    def says(self, text: str) -> Odd:
        self.world.add_image("says:1", behaviour=Behaviour(output=text))
        return Odd("says:1", ())

    def unstartable(self) -> Odd:
        self.world.add_image("unstartable:1", behaviour=Behaviour(start_error=("bad_command", Kind.TARGET)))
        return Odd("unstartable:1", ())

    def kill(self, name: str) -> None:
        self.world.kill(name)

    def files(self, container: str, *paths: str) -> tuple[File, ...]:
        return tuple(self.world.required(container).files[path] for path in paths)

    def touch(self, name: str, path: str) -> None:
        self.world.required(name).paths.add(path)

    def pause(self, name: str) -> None:
        self.world.pause(name)

    def update(self, name: str, *, memory: int, retries: int) -> None:
        restart = Restart(policy="on-failure", max_retries=retries)
        self.world.update(name, restart, memory=memory, memory_swap=2 * memory)

    def rm(self, name: str) -> None:
        self.world.rm(name)

    def foreign(self, word: str, port: int | None = None) -> str:
        ports = (Port(target=80, published=str(port), host_ip="127.0.0.1"),) if port else ()
        self.world.add_foreign(self.name(word), ports=ports)
        return self.name(word)

    def join(self, container: str, network: str) -> None:
        self.world.required(container).attached[network] = self.world.network_named(network).id

    def anonymous_volume(self, name: str) -> str:
        return self.world.required(name).anonymous[0]

    def spare_image(self, word: str) -> str:
        self.world.add_image(f"{self.name(word)}:1")
        return f"{self.name(word)}:1"

    def foreign_volume(self, word: str) -> str:
        self.world.add_volume(self.name(word))
        return self.name(word)

    def other(self, owner: str) -> Engine:
        return SimulatedEngine(owner, self.world)

    def away(self) -> Engine:
        self.world.away = True
        return self.engine

    def close(self) -> None:
        pass


class DockerBench(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.engine = DockerEngine(DOCKER_URL, self.owner)
        self.docker = APIClient(DOCKER_URL, version="auto", timeout=30)
        self._engines = [self.engine]

    def moment(self) -> None:
        pass

    def exits(self, code: int) -> Odd:
        return Odd(self.image, ("sh", "-c", f"exit {code}"))

    def says(self, text: str) -> Odd:
        return Odd(self.image, ("sh", "-c", f"printf '{text}'; exec sleep infinity"))

    def unstartable(self) -> Odd:
        return Odd(self.image, ("/no/such/program",))

    def kill(self, name: str) -> None:
        self.docker.kill(name)

    def files(self, container: str, *paths: str) -> tuple[File, ...]:
        """As its own user sees them."""
        found = []
        for path in paths:
            words = [self._says(container, *call, path) for call in (("stat", "-c", "%u %g %a"), ("cat",))]
            uid, gid, mode = words[0].split()
            found.append(File(target=path, content=words[1], uid=int(uid), gid=int(gid), mode=int(mode, 8)))
        return tuple(found)

    def _says(self, container: str, *command: str) -> str:
        output: bytes = self.docker.exec_start(self.docker.exec_create(container, list(command))["Id"])
        return output.decode()

    def touch(self, name: str, path: str) -> None:
        self._says(name, "touch", path)

    def pause(self, name: str) -> None:
        self.docker.pause(name)

    def update(self, name: str, *, memory: int, retries: int) -> None:
        policy = {"Name": "on-failure", "MaximumRetryCount": retries}
        self.docker.update_container(name, mem_limit=memory, memswap_limit=2 * memory, restart_policy=policy)

    def rm(self, name: str) -> None:
        self.docker.remove_container(name, force=True)

    def foreign(self, word: str, port: int | None = None) -> str:
        host: dict[str, object] = {"NetworkMode": "bridge" if port else "none"}
        if port:
            host["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
        config = {"Image": self.image, "HostConfig": host, "ExposedPorts": {"80/tcp": {}}}
        self.docker.create_container_from_config(config, self.name(word))  # type: ignore[no-untyped-call]
        self.docker.start(self.name(word))
        return self.name(word)

    def join(self, container: str, network: str) -> None:
        self.docker.disconnect_container_from_network(container, "none")
        self.docker.connect_container_to_network(container, network)

    def anonymous_volume(self, name: str) -> str:
        mounts = self.docker.inspect_container(name)["Mounts"]
        return next(m["Name"] for m in mounts if m["Type"] == "volume" and len(m["Name"]) == 64)

    def spare_image(self, word: str) -> str:
        """Of its own, with nothing in it: no other reference, no layer that is shared."""
        changes = [f"LABEL contract={self.name(word)}", 'CMD ["/none"]']
        self.docker.import_image_from_data(b"\0" * 1024, self.name(word), "1", changes)  # type: ignore[no-untyped-call]
        return f"{self.name(word)}:1"

    def foreign_volume(self, word: str) -> str:
        self.docker.create_volume(self.name(word))
        return self.name(word)

    def other(self, owner: str) -> Engine:
        self._engines.append(DockerEngine(DOCKER_URL, owner))
        return self._engines[-1]

    def away(self) -> Engine:
        self._engines.append(DockerEngine("unix:///run/no-such-engine.sock", self.owner))
        return self._engines[-1]

    def close(self) -> None:
        """All that has a name of this bench, in the order in which it can go."""
        mine = f"contract-{self.id}-"
        for container in self.docker.containers(all=True, filters={"name": mine}):
            with suppress(APIError):
                self.docker.remove_container(container["Id"], v=True, force=True)
        for network in self.docker.networks(names=[mine]):
            with suppress(APIError):
                self.docker.remove_network(network["Id"])
        for volume in self.docker.volumes(filters={"name": mine})["Volumes"] or ():
            with suppress(APIError):
                self.docker.remove_volume(volume["Name"])
        for image in self.docker.images(name=f"{mine}*"):
            with suppress(APIError):
                self.docker.remove_image(image["Id"], force=True)
        self.docker.close()
        for engine in self._engines:
            engine.close()


CHECKED = Healthcheck(test=("CMD", "true"), interval=200_000_000, timeout=2_000_000_000, retries=2)
