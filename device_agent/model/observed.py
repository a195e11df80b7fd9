"""What the engine shows now. Own objects are told by labels alone; foreign ones appear only as names in the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

LABEL = "device-agent."
LABEL_DEVICE = LABEL + "device"
LABEL_APP = LABEL + "app"
LABEL_SERVICE = LABEL + "service"
LABEL_NUMBER = LABEL + "number"
"""Of the second and each further container of a service with a `scale`."""
LABEL_SPEC = LABEL + "spec"
LABEL_RELEASE = LABEL + "release"
LABEL_REVISION = LABEL + "revision"
LABEL_IMAGE = LABEL + "image"
"""The image reference a container was made from: the engine's own listing forgets it when the tag moves."""
LABEL_DEPENDS_ON = LABEL + "depends-on"
"""Comma-separated service names: the order to stop in, when the target no longer tells."""
LABEL_UPDATE_LOCK = LABEL + "update-lock"
"""The only one that a target may set: the path of the file that is the container's update lock."""
UPDATE_LOCK = "/run/device-agent/update.lock"
LABEL_NETWORK = LABEL + "network"
LABEL_VOLUME = LABEL + "volume"
LABEL_FILLS = LABEL + "fills"
"""Of a container that was made only for the files of this volume to be put in: it is never started."""


NUMBERED = "#"
"""Between a service's name, which has none, and the number of its container."""


def instance_key(service: str, number: int) -> str:
    """One container of a service: `api`, `api#2`, `api#3` and so on."""
    return service if number == 1 else f"{service}{NUMBERED}{number}"


def service_of(instance: str) -> str:
    """`api` of `api` and of `api#2`."""
    return instance.partition(NUMBERED)[0]


def number_of(instance: str) -> str:
    """`2` of `api#2`; empty for the first."""
    return instance.partition(NUMBERED)[2]


def instance_of(labels: Mapping[str, str]) -> str:
    """Which container of which service these labels say it is; empty without any."""
    service, number = labels.get(LABEL_SERVICE, ""), labels.get(LABEL_NUMBER, "")
    return f"{service}{NUMBERED}{number}" if service and number else service


class Status(StrEnum):
    """A container's state in the engine's words."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Health(StrEnum):
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Limits:
    """What `docker update` can change of a container, as the engine shows it; 0 or empty: not limited, or not told."""

    cpus: int = 0
    """Billionths of a CPU, also where it was set as a quota for a period."""
    cpu_shares: int = 0
    cpuset: str = ""
    memory: int = 0
    """Bytes, as is all of memory."""
    memory_reservation: int = 0
    memory_swap: int = 0
    """Memory and swap together; -1: not limited."""
    pids: int = 0
    blkio_weight: int = 0
    retries: int = 0
    """How often it is restarted after a failure; 0: without limit."""


@dataclass(frozen=True, slots=True)
class Container:
    """An own container. The second group of fields is from its inspection, the first from the listing."""

    id: str
    name: str
    app: str
    service: str
    """Its service, with its number where it is not the first: `api`, `api#2`."""
    spec: str
    image: str
    """The reference it was made from (`device-agent.image`), normalised."""
    image_id: str
    status: Status
    release: str = ""
    revision: str = ""
    depends_on: tuple[str, ...] = ()
    networks: Mapping[str, str] = field(default_factory=dict)
    """Network name → network id, as attached."""
    update_lock: str = UPDATE_LOCK
    """While this file exists in it, it is not stopped for a release."""
    published: frozenset[tuple[int, str]] = frozenset()
    """Host ports in use or to be used: (port, protocol)."""

    health: Health | None = None
    exit_code: int | None = None
    restart: str = ""
    """Its restart policy, in the engine's words."""
    limits: Limits = field(default_factory=Limits)
    created_at: str | None = None
    started_at: str | None = None
    restarts: int = 0
    error: str = ""
    """The engine's word on why it could not start, or `oom` when the kernel killed it."""

    @property
    def up(self) -> bool:
        """Running, or being restarted by the engine on its own."""
        return self.status in (Status.RUNNING, Status.RESTARTING, Status.PAUSED)

    @property
    def run(self) -> str:
        """Tells its runs apart: it is another one once the container has been started again."""
        return f"{self.id}@{self.started_at or ''}"

    @property
    def one_shot(self) -> bool:
        return self.restart in ("no", "on-failure")

    @property
    def completed(self) -> bool:
        return self.status is Status.EXITED and self.exit_code == 0 and not self.error


def moment(started_at: str | None) -> tuple[str, str]:
    """A time of the engine's as something to compare: it leaves out the zeros at a fraction's end."""
    seconds, _, fraction = (started_at or "").removesuffix("Z").removesuffix("+00:00").partition(".")
    return seconds, fraction.ljust(9, "0")


@dataclass(frozen=True, slots=True)
class Network:
    """A network. Foreign ones have `app` None: they can be `external` to a target, or in the way."""

    name: str
    id: str
    app: str | None = None
    key: str | None = None
    """Its key in the app's `networks`."""
    spec: str | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume. Foreign ones have `app` None."""

    name: str
    app: str | None = None
    key: str | None = None
    """Its key in the app's `volumes`."""
    spec: str | None = None
    service: str | None = None
    """The service, with its number, whose configs and secrets are all that is in it."""


@dataclass(frozen=True, slots=True)
class Observed:
    """One look at the engine. Listing order means nothing."""

    containers: tuple[Container, ...] = ()
    networks: tuple[Network, ...] = ()
    volumes: tuple[Volume, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    """Normalised reference (tag or digest form, and the bare id) → image id."""


@dataclass(frozen=True, slots=True)
class EngineEvent:
    """Something happened at the engine. `kind` and `action` are the engine's words; `id` is the object's id."""

    kind: str
    action: str
    id: str
    name: str = ""
    app: str | None = None
    service: str | None = None
