"""Worlds and targets for hypothesis, drawn around each other; and the goal, stated without the planner."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_parts import Behaviour, SimContainer
from cloud_sim.engine_world import World
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Health, Status
from tests.builders import IDENTITY, app, service, wanted

OWNER = str(IDENTITY)
LONG_LIVED = ("api:1", "api:2", "db:1")
JOB = "job:1"
IMAGES = (*LONG_LIVED, JOB)


# Targets.


@st.composite
def documents(draw: st.DrawFn) -> Any:
    """An app of up to three services with what they can depend on."""
    names = draw(st.sampled_from((("a",), ("a", "b"), ("a", "b", "c"), ("b", "c"))))
    services: dict[str, Any] = {}
    for name in names:
        services[name] = draw(_services(tuple(services), services))
    used = {key for one in services.values() for key in one.get("networks", ())}
    networks = {key: {"internal": True} if draw(st.booleans()) else {} for key in sorted(used)}
    strategy = draw(st.sampled_from(("recreate", "recreate", "stop-first", "delete-first")))
    secrets = {"key": {"content": draw(st.sampled_from("12"))}}
    sections = {"networks": networks, "volumes": {"data": {}}, "secrets": secrets, "x-update": {"strategy": strategy}}
    return app(sections, **services)


@st.composite
def _services(draw: st.DrawFn, earlier: tuple[str, ...], others: dict[str, Any]) -> Any:
    keys: dict[str, Any] = {}
    job = draw(st.integers(0, 5)) == 0
    image = JOB if job else draw(st.sampled_from(LONG_LIVED))
    if job:
        keys["restart"] = "no"
    elif draw(st.booleans()):
        keys["healthcheck"] = {"test": ["CMD", "true"]}
    if draw(st.booleans()):
        keys["environment"] = {"A": draw(st.sampled_from("12"))}
    keys |= draw(st.sampled_from(({}, {}, {}, {"volumes": ["data:/data"]})))
    keys |= draw(st.sampled_from(({}, {}, {}, {"secrets": ["key"]})))
    keys |= draw(st.sampled_from(({}, {}, {}, {}, {"x-state": "stopped"})))
    keys |= draw(st.sampled_from(({}, {}, {}, {"scale": 2}, {"scale": 3}, {"scale": 0})))
    keys |= draw(_names(others)) if keys.get("scale", 1) == 1 else {}
    keys |= {} if job else draw(_joins(earlier, others))
    if "network_mode" not in keys:
        networks = draw(st.sampled_from(((), ("default",), ("default", "back"))))
        if networks:
            keys["networks"] = list(networks)
        taken = {port for other in others.values() for port in other.get("ports", ())}
        port = draw(st.sampled_from((None, "80:80", "81:80")))
        if port and port not in taken and networks and keys.get("scale", 0) < 2:
            keys["ports"] = [port]
    for name in _running(earlier, others):
        if draw(st.integers(0, 2)) == 0:
            condition, restart = draw(_conditions(others[name])), draw(st.booleans())
            keys.setdefault("depends_on", {})[name] = {"condition": condition, "restart": restart}
    return service(image, **keys)


def _running(earlier: tuple[str, ...], others: dict[str, Any]) -> list[str]:
    """What waits for a service that is kept stopped waits for ever."""
    return [name for name in earlier if "x-state" not in others[name]]


@st.composite
def _joins(draw: st.DrawFn, earlier: tuple[str, ...], others: dict[str, Any]) -> Any:
    """The namespaces of others that it joins."""
    there = [name for name in _running(earlier, others) if others[name].get("scale") != 0]
    modes = [f"service:{name}" for name in there if others[name]["image"] != JOB]
    keys = [key for key in ("network_mode", "pid") if modes and draw(st.integers(0, 4)) == 0]
    return {key: draw(st.sampled_from(modes)) for key in keys}


@st.composite
def _names(draw: st.DrawFn, others: dict[str, Any]) -> Any:
    taken = {other.get("container_name") for other in others.values()}
    name = draw(st.sampled_from((None, None, "one", "two")))
    return {"container_name": name} if name and name not in taken else {}


def _conditions(other: Any) -> st.SearchStrategy[str]:
    """Those that can be met."""
    if other["image"] == JOB:
        return st.sampled_from(("service_started", "service_completed_successfully"))
    return st.sampled_from(("service_started", "service_healthy") if "healthcheck" in other else ("service_started",))


# Worlds.


class Scene:
    """What is wanted, and an engine with something of that or of another version of it."""

    def __init__(self, document: Any, of: WantedApp, engine: SimulatedEngine) -> None:
        self.document = document
        self.wanted = of
        self.engine = engine
        self.foreign: set[str] = set()
        """Ids of containers and networks, and names of volumes, that are nobody's."""

    @property
    def world(self) -> World:
        return self.engine.world

    def __repr__(self) -> str:
        networks = {network.id: network.name for network in self.world.networks.values()}
        containers = (
            f"{c.name} {c.status} {c.health} {c.exit_code} on {[networks.get(i, n) for n, i in c.attached.items()]}"
            for c in self.world.containers.values()
            if c.id not in self.foreign
        )
        here = f"images {sorted(self.world.images)} networks {sorted(networks.values())}"
        return "\n".join((json.dumps(self.document), here, *containers))


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    document = draw(documents())
    new = wanted(document, revision=2)
    old = wanted(draw(st.one_of(st.just(document), documents())))
    engine = SimulatedEngine(OWNER)
    world = engine.world
    for image in IMAGES:
        world.offer_image(image, behaviour=Behaviour(exit_code=0) if image == JOB else None)
        if draw(st.integers(0, 3)):
            world.add_image(image)
    scene = Scene(document, new, engine)
    _foreign(scene)
    made = draw(st.sampled_from((new, old)))
    for network in made.networks.values():
        if draw(st.integers(0, 2)):
            world.add_network(network.name, network.create.labels)
    if draw(st.booleans()):
        world.add_volume("web_data", made.volumes["data"].create.labels)
    for name in sorted(new.services.keys() | old.services.keys()):
        for of in draw(st.sampled_from(((), (new,), (new,), (old,), (old, new), (new, new), (old, old)))):
            if name in of.services:
                _place(scene, of, name, draw)
    return scene


def _foreign(scene: Scene) -> None:
    world = scene.world
    scene.foreign = {
        world.add_foreign("web-a-123456"),
        world.add_foreign("web", labels={"device-agent.app": "web", "device-agent.device": "plant7/d2"}),
        world.add_network("web_defaults"),
        *(network.id for network in world.networks.values()),
    }
    world.add_volume("web_datas")
    scene.foreign.add("web_datas")


def _place(scene: Scene, of: WantedApp, name: str, draw: st.DrawFn) -> None:
    """A container as `of` wants it, in some state."""
    world, made = scene.world, of.services[name]
    image_id = world.registry[made.image]
    shared: tuple[str, ...] = ()
    for other in made.shares:
        hosts = [c for c in world.containers.values() if c.owned_by(OWNER) and c.service == other]
        if not hosts:
            return
        shared += (draw(st.sampled_from(hosts)).id,)
    create = of.create(made, image_id, shared)
    for key in made.volumes:
        if of.volumes[key].name not in world.volumes:
            world.add_volume(of.volumes[key].name, of.volumes[key].create.labels)
    if create.files:
        world.add_volume(create.files, of.fill(create).volume.labels)
        world.volumes[create.files].files = made.service.files
    had = dict(world.images)
    world.images[made.image] = image_id
    while world.find(create.name) or draw(st.integers(0, 9)) == 0:
        create = replace(create, name=create.name + "x")
    container = world.add(create)
    world.images = had
    for endpoint in create.endpoints:
        there = next((n.id for n in world.networks.values() if n.name == endpoint.network), "")
        gone = draw(st.integers(0, 6)) == 0
        if there and not gone:
            container.attached[endpoint.network] = there
        elif endpoint.network in container.attached and draw(st.booleans()):
            container.attached[endpoint.network] = "a" * 64
    _state(container, draw)


def _state(container: SimContainer, draw: st.DrawFn) -> None:
    if draw(st.integers(0, 7)) == 0:
        container.limits = replace(container.limits, memory=7 * 2**20)
    status = draw(
        st.sampled_from((Status.RUNNING, Status.RUNNING, Status.RUNNING, Status.EXITED, Status.CREATED, Status.DEAD))
    )
    job = container.made.service.one_shot
    if job and status is Status.RUNNING:
        status = Status.EXITED
    container.status = status
    if status is not Status.CREATED:
        container.started_at = f"2026-01-01T00:00:0{draw(st.integers(0, 3))}Z"
        container.created_at = f"2026-01-01T00:00:0{draw(st.integers(0, 3))}Z"
    if status is Status.RUNNING:
        container.health = draw(st.sampled_from((Health.HEALTHY, Health.STARTING))) if container.checked else None
        container.ports = frozenset(
            (int(port.published), port.protocol, "") for port in container.made.service.ports if port.published
        )
    if status is Status.EXITED:
        container.exit_code = draw(st.sampled_from((0, 1)))
    if status is not Status.RUNNING and status is not Status.EXITED:
        container.attached = dict.fromkeys(list(container.attached)[:1], "")


# The goal.


def shortcomings(of: WantedApp, world: World) -> list[str]:
    """Everything that is not as the target says, found by looking at the world and nothing else."""
    mine = [c for c in world.containers.values() if c.owned_by(OWNER) and c.app == of.name]
    found = [f"{c.name} is of no service" for c in mine if c.service not in of.services]
    for name, made in of.services.items():
        theirs = [c for c in mine if c.service == name]
        if len(theirs) != 1:
            found.append(f"{name} has {len(theirs)} containers")
        found += [f"{name}: {what}" for c in theirs for what in _wrong_with(c, made, mine, world)]
        should = {of.container_name(name, c.labels["device-agent.spec"]) for c in theirs}
        found += [f"{name}: it is called {c.name}" for c in theirs if c.name not in should]
    mounted = {of.volumes[key].name for made in of.services.values() for key in made.volumes}
    return [
        *found,
        *_wrong_networks(of, world),
        *(f"volume {name} is missing" for name in mounted - set(world.volumes)),
        *_wrong_files(of.name, mine, world),
    ]


def _wrong_files(app: str, mine: list[SimContainer], world: World) -> Iterator[str]:
    has = {c.made.files: c.made.service.files for c in mine if c.made.files}
    for name, volume in world.volumes.items():
        labels = volume.labels
        if labels.get("device-agent.app") == app and "device-agent.service" in labels and name not in has:
            yield f"volume {name} is left over"
    for name, files in has.items():
        if name not in world.volumes or world.volumes[name].files != files:
            yield f"volume {name} has other files"


def _wrong_networks(of: WantedApp, world: World) -> Iterator[str]:
    wanted_specs = {network.name: network.spec for network in of.networks.values()}
    for name in wanted_specs.keys() - {network.name for network in world.networks.values()}:
        yield f"network {name} is missing"
    for network in world.networks.values():
        labels = network.labels
        if (labels.get("device-agent.device"), labels.get("device-agent.app")) != (OWNER, of.name):
            continue
        if network.name not in wanted_specs:
            yield f"network {network.name} is left over"
        elif labels["device-agent.spec"] != wanted_specs[network.name]:
            yield f"network {network.name} has another definition"


def _wrong_with(container: SimContainer, made: WantedService, mine: list[SimContainer], world: World) -> Iterator[str]:
    was = container.made.service
    kept = ("depends_on", "scale", "container_name", "update", "state")
    changes = {name: getattr(was, name) for name in kept}
    if was != made.service.model_copy(update=changes):
        yield "made from another definition"
    ended = made.service.one_shot and container.status is Status.EXITED
    if container.limits.memory and made.image in world.images and not ended:
        yield "it has a memory limit"
    if made.stopped:
        if container.up:
            yield "it is not stopped"
    elif container.status is Status.RUNNING:
        if container.health not in (None, Health.HEALTHY):
            yield f"it is {container.health}"
    elif not (made.service.one_shot and container.status is Status.EXITED and container.exit_code == 0):
        yield f"it is {container.status}"
    ids = {network.name: network.id for network in world.networks.values()}
    for endpoint in made.endpoints:
        if container.attached.get(endpoint.network) not in (ids.get(endpoint.network), ""):
            yield f"not on {endpoint.network}"
    yield from _wrong_namespaces(container, made, mine)
    yield from _outdated(container, made, mine)


def _wrong_namespaces(container: SimContainer, made: WantedService, mine: list[SimContainer]) -> Iterator[str]:
    ids_of = {c.id: c.service for c in mine}
    for asked, told in (
        (made.service.network_mode, container.made.network_mode),
        (made.service.pid, container.made.pid),
    ):
        if asked and asked.startswith("service:") and ids_of.get(str(told).removeprefix("container:")) != asked[8:]:
            yield f"{told} is not {asked}"
    for host in mine:
        both_run = host.status is Status.RUNNING and container.up
        if host.service in made.shares and both_run and str(host.started_at) > str(container.started_at):
            yield f"in a namespace of {host.service}'s that has ended"


def _outdated(container: SimContainer, made: WantedService, mine: list[SimContainer]) -> Iterator[str]:
    """Who runs knows what it depends on with `restart`."""
    for other in mine:
        need = made.service.depends_on.get(other.service)
        both_run = other.status is Status.RUNNING and container.status is Status.RUNNING
        good = both_run and other.health in (None, Health.HEALTHY)
        if need and need.restart and good and str(container.started_at) < str(other.created_at):
            yield f"started before {other.service} was made"
