"""An effective app, made ready for planning: names on the engine, mounts and attachments, and the hash of each spec.

The spec hash is what tells "as it should be" from "to be replaced". It covers the service as validated, without
defaults and without what a container does not depend on, together with its image's id, attachments and mounts.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.core.basis import basis
from device_agent.core.instances import instances
from device_agent.core.scopes import EffectiveApp
from device_agent.model.canonical import canonical, digest
from device_agent.model.compose import App, Gate, Mount, NetworkDefinition, Service, VolumeDefinition, Window
from device_agent.model.compose_networking import in_order
from device_agent.model.compose_together import SERVICE_MODE, mounts, shares
from device_agent.model.dependencies import in_dependency_order
from device_agent.model.image import normalise
from device_agent.model.observed import (
    LABEL_APP,
    LABEL_DEPENDS_ON,
    LABEL_DEVICE,
    LABEL_IMAGE,
    LABEL_NETWORK,
    LABEL_NUMBER,
    LABEL_RELEASE,
    LABEL_REVISION,
    LABEL_SERVICE,
    LABEL_SPEC,
    LABEL_VOLUME,
    NUMBERED,
    number_of,
    service_of,
)
from device_agent.model.steps import Create, CreateNetwork, CreateVolume, Endpoint, Fill
from device_agent.model.target import Json


@dataclass(frozen=True, slots=True)
class Naming:
    """How objects of this device are named and marked on the engine."""

    device: str
    """The value of the label `device-agent.device`: `{fleet}/{id}`."""
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    key: str
    name: str
    spec: str
    external: bool
    create: CreateNetwork


@dataclass(frozen=True, slots=True)
class WantedVolume:
    key: str
    name: str
    spec: str
    external: bool
    create: CreateVolume


@dataclass(frozen=True, slots=True)
class WantedService:
    """One container of a service: the one, or one of several."""

    name: str
    """The service's, and its number where it is not the first: `api`, `api#2`."""
    service: Service
    """Depends on instances."""
    image: str
    """Normalised."""
    networks: tuple[str, ...]
    """Keys, in the order to attach them."""
    endpoints: tuple[Endpoint, ...]
    mounts: tuple[Mount, ...]
    volumes: frozenset[str]
    """Keys of the named volumes among the mounts."""
    shares: Mapping[str, str]
    """Services whose namespaces it joins (`service:NAME`), sorted → what of theirs, in words."""
    basis: bytes
    """Canonical JSON of everything of the spec but what only the engine knows (image id, shared containers)."""
    stopped: str = ""
    """By whom it is kept stopped, in words; empty: it is to run."""
    anew: str = ""
    """The run of its container (`Container.run`) that is to be followed by another, because an operator says so."""

    @property
    def definition(self) -> str:
        """Tells whether two releases mean the same service, as far as a target alone can tell."""
        return hashlib.sha256(self.basis + b"\n" + self.image.encode()).hexdigest()

    @property
    def host_ports(self) -> frozenset[tuple[int, str]]:
        """Those that it takes, and no others: (port, protocol)."""
        return frozenset(
            (int(p.published), p.protocol) for p in self.service.ports if p.published and p.published.isdigit()
        )

    def spec(self, image_id: str, shared: tuple[str, ...] = ()) -> str:
        """The spec hash, given the id of its image and of the containers of the services in `shares`."""
        return hashlib.sha256(b"\n".join((self.basis, image_id.encode(), ",".join(shared).encode()))).hexdigest()


@dataclass(frozen=True, slots=True)
class WantedApp:
    name: str
    digest: str
    scope: str
    revision: str
    release: str | None
    services: Mapping[str, WantedService]
    """By instance, each after those it depends on. A service with `scale: 0` has none."""
    networks: Mapping[str, WantedNetwork]
    volumes: Mapping[str, WantedVolume]
    naming: Naming
    gate: Gate = field(default_factory=Gate)
    windows: tuple[Window, ...] = ()
    document: Json = field(default=None, repr=False)
    """The app as it was published, raw."""

    def instances(self, service: str) -> tuple[str, ...]:
        """All that are of a service, the first one first."""
        mine = (name for name in self.services if service_of(name) == service)
        return tuple(sorted(mine, key=lambda name: int(number_of(name) or 1)))

    def container_name(self, instance: str, spec: str) -> str:
        """The name that a container should have: what its service says, or one that goes with its spec."""
        fixed = self.services[instance].service.container_name
        return self.naming.prefix + fixed if fixed else self.plain_name(instance, spec[:6])

    def plain_name(self, instance: str, mark: str) -> str:
        return f"{self.naming.prefix}{self.name}-{instance.replace(NUMBERED, '-')}-{mark}"

    def create(self, wanted: WantedService, image_id: str, shared: tuple[str, ...] = ()) -> Create:
        """The container to make for a service. `shared` are the ids of the containers whose namespaces it joins."""
        spec = wanted.spec(image_id, shared)
        labels = {
            LABEL_DEVICE: self.naming.device,
            LABEL_APP: self.name,
            LABEL_SERVICE: service_of(wanted.name),
            LABEL_SPEC: spec,
            LABEL_IMAGE: wanted.image,
            LABEL_REVISION: self.revision,
            # Empty ones too: an image made by `docker commit` of one of our containers has that one's labels.
            LABEL_NUMBER: number_of(wanted.name),
            LABEL_RELEASE: self.release or "",
            LABEL_DEPENDS_ON: ",".join(sorted(wanted.service.depends_on)),
        }
        ids = dict(zip(wanted.shares, shared, strict=False))
        network = wanted.endpoints[0].network if wanted.endpoints else wanted.service.network_mode
        return Create(
            name=self.container_name(wanted.name, spec),
            image=wanted.service.image,
            service=wanted.service,
            labels=labels,
            network_mode=_joined(network, ids) or "none",
            pid=_joined(wanted.service.pid, ids),
            ipc=_joined(wanted.service.ipc, ids),
            endpoints=wanted.endpoints,
            mounts=wanted.mounts,
            files=f"{self.plain_name(wanted.name, spec[:12])}-files" if wanted.service.files else "",
        )

    def fill(self, create: Create) -> Fill:
        """The volume for the configs and secrets of a container to make. It goes with the spec, which they are of."""
        own = (LABEL_DEVICE, LABEL_APP, LABEL_SERVICE, LABEL_NUMBER, LABEL_SPEC)
        volume = CreateVolume(create.files, {label: create.labels[label] for label in own}, driver="local")
        return Fill(volume, create.service.files, create.image, create.service.platform)


def wanted_app(effective: EffectiveApp, app: App, naming: Naming) -> WantedApp:
    """Put an effective app and its validated form together."""
    containers = instances(app.services)
    mounted = dict(mounts(app.services))
    used = {key for service in containers.values() for key in service.networks}
    networks = {key: _network(effective.name, key, app.networks[key], naming) for key in sorted(used)}
    volumes = {key: _volume(effective.name, key, definition, naming) for key, definition in sorted(app.volumes.items())}
    services = {
        name: _service(name, containers[name], app, mounted[service_of(name)], networks, volumes)
        for name in in_dependency_order({name: service.depends_on for name, service in containers.items()})
    }
    return WantedApp(
        name=effective.name,
        digest=digest(effective.document),
        scope=effective.scope,
        revision=effective.revision,
        release=effective.release,
        services=services,
        networks=networks,
        volumes=volumes,
        naming=naming,
        gate=app.gate,
        windows=app.windows,
        document=effective.document,
    )


def _joined(mode: str | None, ids: Mapping[str, str]) -> str | None:
    """A namespace as the engine is told: for `service:NAME` that of its container."""
    if mode is None or not mode.startswith(SERVICE_MODE):
        return mode
    return f"container:{ids.get(mode.removeprefix(SERVICE_MODE), '')}"


def _name_on_engine(app: str, key: str, definition: NetworkDefinition | VolumeDefinition, naming: Naming) -> str:
    if definition.external:
        return definition.name or key
    return naming.prefix + (definition.name or f"{app}_{key}")


def _labels(
    app: str, own: str, key: str, spec: str, definition: NetworkDefinition | VolumeDefinition, naming: Naming
) -> dict[str, str]:
    return {**definition.labels, LABEL_DEVICE: naming.device, LABEL_APP: app, own: key, LABEL_SPEC: spec}


def _definition_spec(definition: NetworkDefinition | VolumeDefinition) -> str:
    return hashlib.sha256(canonical(definition.model_dump(mode="json", exclude_defaults=True))).hexdigest()


def _network(app: str, key: str, definition: NetworkDefinition, naming: Naming) -> WantedNetwork:
    name = _name_on_engine(app, key, definition, naming)
    spec = _definition_spec(definition)
    create = CreateNetwork(
        name=name,
        labels=_labels(app, LABEL_NETWORK, key, spec, definition, naming),
        driver=definition.driver,
        driver_opts=definition.driver_opts,
        ipam=definition.ipam,
        internal=definition.internal,
        attachable=definition.attachable,
        enable_ipv6=definition.enable_ipv6,
    )
    return WantedNetwork(key, name, spec, definition.external, create)


def _volume(app: str, key: str, definition: VolumeDefinition, naming: Naming) -> WantedVolume:
    name = _name_on_engine(app, key, definition, naming)
    spec = _definition_spec(definition)
    create = CreateVolume(
        name=name,
        labels=_labels(app, LABEL_VOLUME, key, spec, definition, naming),
        driver=definition.driver,
        driver_opts=definition.driver_opts,
    )
    return WantedVolume(key, name, spec, definition.external, create)


def _service(
    name: str,
    service: Service,
    app: App,
    mounted: tuple[Mount, ...],
    networks: Mapping[str, WantedNetwork],
    volumes: Mapping[str, WantedVolume],
) -> WantedService:
    keys = in_order(service.networks)
    endpoints = tuple(
        Endpoint(
            network=networks[key].name,
            aliases=tuple(dict.fromkeys((service_of(name), *service.networks[key].aliases))),
            ipv4_address=service.networks[key].ipv4_address,
            ipv6_address=service.networks[key].ipv6_address,
            mac_address=service.networks[key].mac_address or (service.mac_address if key == keys[0] else None),
            priority=service.networks[key].priority,
            links=tuple(sorted((o, n) for n, o in service.links.items() if n != o and key in app.services[o].networks)),
        )
        for key in keys
    )
    named = {mount.source for mount in mounted if mount.type == "volume" and mount.source}
    final = tuple(
        mount.model_copy(update={"source": volumes[mount.source].name})
        if mount.type == "volume" and mount.source
        else mount
        for mount in mounted
    )
    return WantedService(
        name=name,
        service=service,
        image=normalise(service.image),
        networks=tuple(keys),
        endpoints=endpoints,
        mounts=final,
        volumes=frozenset(named),
        shares=shares(service),
        basis=basis(name, service, endpoints, final),
        stopped="by the target" if service.state == "stopped" else "",
    )
