"""What the simulated engine is made of: how an image behaves, and the objects it keeps."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from device_agent.model.compose import File, Restart
from device_agent.model.errors import Kind
from device_agent.model.image import normalise
from device_agent.model.log import LogLine
from device_agent.model.observed import (
    LABEL_APP,
    LABEL_DEPENDS_ON,
    LABEL_DEVICE,
    LABEL_IMAGE,
    LABEL_NETWORK,
    LABEL_RELEASE,
    LABEL_REVISION,
    LABEL_SPEC,
    LABEL_UPDATE_LOCK,
    LABEL_VOLUME,
    UPDATE_LOCK,
    Container,
    Health,
    Limits,
    Network,
    Status,
    Volume,
    instance_of,
)
from device_agent.model.steps import Create


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the containers of an image do once they are started."""

    exit_code: int | None = None
    """They end with it at once; None: they run for ever."""
    health: Health = Health.HEALTHY
    """What their healthcheck comes to, one tick after the start."""
    start_error: tuple[str, Kind] | None = None
    """The code and kind with which the engine refuses to start them."""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """In the place of `ports.PullProgress`."""

    image: str
    done: int
    total: int


@dataclass(slots=True)
class SimContainer:
    id: str
    name: str
    made: Create
    image_id: str
    labels: Mapping[str, str]
    attached: dict[str, str]
    """Network name → id; an empty id until it is started."""
    anonymous: tuple[str, ...] = ()
    files: dict[str, File] = field(default_factory=dict)
    """Its configs and secrets, by path."""
    paths: set[str] = field(default_factory=set)
    """Files that its process has made."""
    ports: frozenset[tuple[int, str, str]] = frozenset()
    """Host ports held while it runs: (port, protocol, address)."""
    status: Status = Status.CREATED
    health: Health | None = None
    exit_code: int | None = None
    created_at: str | None = None
    started_at: str | None = None
    restarts: int = 0
    error: str = ""
    stopped_by_hand: bool = False
    written: list[LogLine] = field(default_factory=list)
    restart: Restart = field(init=False)
    limits: Limits = field(init=False)
    """Both as made, until somebody changes them."""

    def __post_init__(self) -> None:
        service = self.made.service
        self.restart = service.restart
        self.limits = Limits(
            cpus=service.cpus_at_most or 0,
            cpu_shares=service.cpu_shares or 0,
            cpuset=service.cpuset or "",
            memory=service.mem_limit or 0,
            memory_reservation=service.mem_reservation or 0,
            memory_swap=service.memswap_limit or 2 * (service.mem_limit or 0),
            pids=service.pids_limit or 0,
            blkio_weight=service.blkio_weight or 0,
        )

    @property
    def up(self) -> bool:
        return self.status in (Status.RUNNING, Status.RESTARTING, Status.PAUSED)

    @property
    def checked(self) -> bool:
        check = self.made.service.healthcheck
        return check is not None and bool(check.test) and check.test != ("NONE",)

    @property
    def restarts_itself(self) -> bool:
        """What the engine does, by the restart policy, now that the process has ended."""
        if self.stopped_by_hand:
            return False
        if self.restart.policy == "on-failure":
            most = self.restart.max_retries
            return self.exit_code != 0 and (not most or self.restarts < most)
        return self.restart.policy in ("always", "unless-stopped")

    @property
    def app(self) -> str:
        return self.labels.get(LABEL_APP, "")

    @property
    def service(self) -> str:
        return instance_of(self.labels)

    @property
    def mounted(self) -> frozenset[str]:
        """The names of its volumes."""
        named = {mount.source for mount in self.made.mounts if mount.type == "volume" and mount.source}
        return frozenset(named | {*self.anonymous} | ({self.made.files} - {""}))

    def owned_by(self, owner: str) -> bool:
        return self.labels.get(LABEL_DEVICE) == owner and bool(self.app) and bool(self.service)

    def seen(self, network_ids: Mapping[str, str]) -> Container:
        """As the port shows it."""
        labels = self.labels
        ports = self.made.service.ports
        fixed = {(int(p.published), p.protocol) for p in ports if p.published and p.published.isdecimal()}
        return Container(
            id=self.id,
            name=self.name,
            app=self.app,
            service=self.service,
            spec=labels.get(LABEL_SPEC, ""),
            image=normalise(labels.get(LABEL_IMAGE) or self.made.image),
            image_id=self.image_id,
            status=self.status,
            release=labels.get(LABEL_RELEASE, ""),
            revision=labels.get(LABEL_REVISION, ""),
            depends_on=tuple(word for word in labels.get(LABEL_DEPENDS_ON, "").split(",") if word),
            networks={name: id_ or network_ids.get(name, "") for name, id_ in self.attached.items()},
            update_lock=labels.get(LABEL_UPDATE_LOCK) or UPDATE_LOCK,
            published=frozenset(fixed) | {(port, protocol) for port, protocol, _ in self.ports},
            health=self.health,
            exit_code=self.exit_code,
            restart=self.restart.policy,
            limits=replace(self.limits, retries=self.restart.max_retries),
            created_at=self.created_at,
            started_at=self.started_at,
            restarts=self.restarts,
            error=self.error,
        )


@dataclass(slots=True)
class SimNetwork:
    id: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def seen(self, owner: str) -> Network:
        own = own_labels(self.labels, owner)
        return Network(self.name, self.id, own.get(LABEL_APP), own.get(LABEL_NETWORK), own.get(LABEL_SPEC))


@dataclass(slots=True)
class SimVolume:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    files: tuple[File, ...] = ()
    """Configs and secrets."""

    def seen(self, owner: str) -> Volume:
        own = own_labels(self.labels, owner)
        service = instance_of(own) or None
        return Volume(self.name, own.get(LABEL_APP), own.get(LABEL_VOLUME), own.get(LABEL_SPEC), service)


def own_labels(labels: Mapping[str, str], owner: str) -> Mapping[str, str]:
    """None for a foreign object."""
    return labels if labels.get(LABEL_DEVICE) == owner else {}


def image_id(reference: str) -> str:
    """The id that an image gets when none is given: always the same for a reference."""
    return "sha256:" + hashlib.sha256(reference.encode()).hexdigest()
