"""What will be done: a plan is data. One step is one engine call with its cause, and it prints.

The printed text is the log line, the CLI's answer and the tests' assertion.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from device_agent.model.compose import File, IpamConfig, Mount, Service


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One attachment of a container to a network, by the network's final name on the engine."""

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    priority: int = 0
    mac_address: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    """A name on the network, and another one that this container alone finds it by."""


@dataclass(frozen=True, slots=True)
class Pull:
    image: str
    """A normalised reference."""
    platform: str | None = None
    policy: Literal["missing", "always", "refresh"] = "missing"
    """Why: it is not here; or it is, and is looked for again, for this revision or because its time has come."""

    def __str__(self) -> str:
        return f"pull {self.image}" + (f" for {self.platform}" if self.platform else "")


@dataclass(frozen=True, slots=True)
class CreateNetwork:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None
    driver_opts: Mapping[str, str] = field(default_factory=dict)
    ipam: IpamConfig | None = None
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False

    def __str__(self) -> str:
        return f"create network {self.name}"


@dataclass(frozen=True, slots=True)
class CheckNetwork:
    """Whether the network can be replaced at all: nobody is stopped for one that somebody else's container is on."""

    name: str
    id: str
    users: frozenset[str]
    """Ids of the containers that will leave it."""

    def __str__(self) -> str:
        return f"look who is on network {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveNetwork:
    name: str
    id: str

    def __str__(self) -> str:
        return f"remove network {self.name}"


@dataclass(frozen=True, slots=True)
class CreateVolume:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    driver: str | None = None
    driver_opts: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"create volume {self.name}"


@dataclass(frozen=True, slots=True)
class Fill:
    """A volume of one container's own, for its configs and secrets: made, and filled. Once more does no harm."""

    volume: CreateVolume
    files: tuple[File, ...]
    image: str
    """Any that is here: a volume is filled through a container, which is never started."""
    platform: str | None = None

    def __str__(self) -> str:
        return f"fill volume {self.volume.name} with {len(self.files)} file{'s' if len(self.files) > 1 else ''}"


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """One that was filled with configs and secrets. A volume with data is never removed by a plan."""

    name: str

    def __str__(self) -> str:
        return f"remove volume {self.name}"


@dataclass(frozen=True, slots=True)
class Create:
    """A container to make: everything final (names on the engine, labels, attachments), so the adapter only translates.

    `network_mode` is what the engine is told: a network's name, `none`, `host`, `bridge` or `container:<id>`;
    `endpoints[0].network` equals it when there are endpoints, and further ones are connected by steps of their own.
    """

    name: str
    image: str
    service: Service
    labels: Mapping[str, str]
    network_mode: str
    endpoints: tuple[Endpoint, ...] = ()
    mounts: tuple[Mount, ...] = ()
    """The service's volumes with the final volume names as sources."""
    pid: str | None = None
    """The namespace of processes as the engine is told: `host` or `container:<id>`."""
    ipc: str | None = None
    files: str = ""
    """The volume that `service.files` are in, each of which is mounted read-only; empty where there is none."""

    def __str__(self) -> str:
        return f"create {self.name}"


@dataclass(frozen=True, slots=True)
class Start:
    container: str
    """A name or an id: a container that this plan creates has only a name yet."""

    def __str__(self) -> str:
        return f"start {self.container}"


@dataclass(frozen=True, slots=True)
class Stop:
    container: str
    id: str
    grace_s: float

    def __str__(self) -> str:
        return f"stop {self.container}"


@dataclass(frozen=True, slots=True)
class Remove:
    container: str
    id: str

    def __str__(self) -> str:
        return f"remove {self.container}"


@dataclass(frozen=True, slots=True)
class Rename:
    container: str
    id: str
    """Or its name, where this plan creates it."""
    name: str

    def __str__(self) -> str:
        return f"rename {self.container} to {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveImage:
    image: str
    """A normalised reference. The layers go with the last reference to them."""

    def __str__(self) -> str:
        return f"remove image {self.image}"


@dataclass(frozen=True, slots=True)
class Connect:
    container: str
    endpoint: Endpoint

    def __str__(self) -> str:
        return f"connect {self.container} to {self.endpoint.network}"


@dataclass(frozen=True, slots=True)
class Disconnect:
    container: str
    id: str
    network: str

    def __str__(self) -> str:
        return f"disconnect {self.container} from {self.network}"


Action: TypeAlias = (
    Pull
    | CreateNetwork
    | CheckNetwork
    | RemoveNetwork
    | CreateVolume
    | Fill
    | RemoveVolume
    | Create
    | Start
    | Stop
    | Remove
    | Rename
    | RemoveImage
    | Connect
    | Disconnect
)


@dataclass(frozen=True, slots=True)
class Step:
    """One engine call. `subject` is whose attempts it counts against: a service, `network …`, `volume …`, `image …`."""

    action: Action
    subject: str
    spec: str
    """What is tried: an attempt at another spec of the same subject starts anew."""
    cause: str
    after: frozenset[str] = frozenset()
    """Ids of steps of the same plan that must have succeeded first."""
    until: str = ""
    """What must be observed first, in words; empty when the step waits for nothing but other steps."""
    commits: bool = False
    """The second half of a replacement whose first half stopped something: never left out once that was done."""
    again: bool = False
    """Starts what has ended by itself: counts as an attempt even when the engine says yes."""
    follows: bool = False
    """Of a restart for what it depends on, and of the end of a replacement: by itself nothing is wrong."""

    @property
    def id(self) -> str:
        return str(self.action)

    def __str__(self) -> str:
        wait = f" [once {self.until}]" if self.until else ""
        return f"{self.action}: {self.cause}{wait}"


@dataclass(frozen=True, slots=True)
class Blocked:
    """What cannot be planned, because something that is not the agent's is missing or in the way."""

    subject: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps for one app, in an order that respects `after`."""

    app: str
    steps: tuple[Step, ...] = ()
    blocked: tuple[Blocked, ...] = ()

    def __str__(self) -> str:
        return "\n".join(str(step) for step in self.steps)
