"""An app is a Compose project: the Compose Specification's keys, short and long forms, units and defaults.

Bytes come in here, so these are pydantic models; once validated they are frozen and canonical (short forms expanded,
sizes in bytes, durations in nanoseconds), and the rest of the agent uses them as they are. A default equals "not
given": specs are hashed without defaults, so that a new field of a newer agent changes no hash.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

_CPU = 1_000_000_000
_CPU_PERIOD = 100_000
"""The kernel's, in microseconds, where only a quota is given."""


class Frozen(BaseModel):
    """A strict, closed, frozen object. Unknown keys are refused, except `x-…`, which are reported as warnings."""

    # Built when first used: most are never used by themselves, only as a part of `App`.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)


class Restart(Frozen):
    policy: Literal["no", "always", "unless-stopped", "on-failure"] = "unless-stopped"
    max_retries: int = 0
    """With `on-failure`: 0 means without limit."""


class Port(Frozen):
    """One published port, ranges expanded. `published` is a port or a range `first-last` to choose from."""

    target: int
    published: str | None = None
    protocol: Literal["tcp", "udp", "sctp"] = "tcp"
    host_ip: str | None = None


class ServiceNetwork(Frozen):
    aliases: tuple[str, ...] = ()
    ipv4_address: str | None = None
    ipv6_address: str | None = None
    mac_address: str | None = None
    priority: int = 0


class Mount(Frozen):
    """One mount. `source` is a key of the app's `volumes` (type volume; None: anonymous) or a host path (bind)."""

    type: Literal["volume", "bind", "tmpfs"]
    target: str
    source: str | None = None
    read_only: bool = False
    nocopy: bool = False
    propagation: str | None = None
    selinux: Literal["z", "Z"] | None = None
    """Relabel a bind mount: `z` shared, `Z` private to the container."""
    create_host_path: bool = True
    recursive: Literal["disabled", "writable", "readonly"] | None = None
    """What becomes of mounts below a bind mount: not there, not read-only, or read-only with it."""
    subpath: str | None = None
    """Of a named volume only this folder or file."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Of an anonymous volume."""
    tmpfs_size: int | None = None
    tmpfs_mode: int | None = None


class VolumesFrom(Frozen):
    """The mounts of another service, as it declares them."""

    service: str
    read_only: bool = False


class Dependency(Frozen):
    condition: Literal["service_started", "service_healthy", "service_completed_successfully"] = "service_started"
    required: bool = True
    restart: bool = False


class Healthcheck(Frozen):
    test: tuple[str, ...] | None = None
    """As the engine takes it: `("CMD", …)`, `("CMD-SHELL", "…")`, or `("NONE",)`; None: the image's."""
    interval: int | None = None
    timeout: int | None = None
    start_period: int | None = None
    start_interval: int | None = None
    retries: int | None = None


class Device(Frozen):
    source: str
    target: str
    permissions: str = "rwm"


class DeviceRequest(Frozen):
    """Devices that a driver of the engine chooses, GPUs as a rule."""

    capabilities: tuple[str, ...]
    driver: str | None = None
    count: int | None = None
    """-1: all; None: those of `device_ids`."""
    device_ids: tuple[str, ...] = ()
    options: Mapping[str, str] = Field(default_factory=dict)


class DeviceLimit(Frozen):
    """A weight, or bytes or operations a second, of a block device."""

    path: str
    limit: int


class Ulimit(Frozen):
    soft: int
    hard: int


class File(Frozen):
    """A config or a secret, as a container finds it."""

    target: str
    content: str = Field(repr=False)
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class Logging(Frozen):
    driver: str | None = None
    options: Mapping[str, str] = Field(default_factory=dict)


class Update(Frozen):
    """`x-update`: how a container is replaced."""

    strategy: Literal["recreate", "start-first", "stop-first", "delete-first"] = "recreate"
    force: bool = False
    """Update locks do not count."""


class Window(Frozen):
    """One of `x-maintenance`: from each time of `cron` (five fields) for `duration` nanoseconds a release may begin."""

    cron: str
    duration: int
    timezone: str = "UTC"


class Gate(Frozen):
    """`x-release`: when a release has proved good, and what happens when it does not. Nanoseconds."""

    healthy_for: int = 10_000_000_000
    deadline: int = 300_000_000_000
    on_failure: Literal["rollback", "retry", "hold"] = "rollback"


class Service(Frozen):
    image: str
    command: tuple[str, ...] | None = None
    """None: the image's."""
    entrypoint: tuple[str, ...] | None = None
    """None: the image's; empty: none at all."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    working_dir: str | None = None
    user: str | None = None
    hostname: str | None = None
    labels: Mapping[str, str] = Field(default_factory=dict)
    init: bool | None = None
    restart: Restart = Restart()
    stop_signal: str | None = None
    stop_grace_period: int = 10_000_000_000
    """Nanoseconds."""
    ports: tuple[Port, ...] = ()
    networks: Mapping[str, ServiceNetwork] = Field(default_factory=dict)
    """Always explicit after validation: `default` where none is named and there is no `network_mode`."""
    network_mode: str | None = None
    """`bridge`, `host`, `none` or `service:NAME`."""
    links: Mapping[str, str] = Field(default_factory=dict)
    """Name → the service that this service finds under it, beside the service's own name."""
    volumes: tuple[Mount, ...] = ()
    volumes_from: tuple[VolumesFrom, ...] = ()
    tmpfs: tuple[str, ...] = ()
    depends_on: Mapping[str, Dependency] = Field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    cpus: int | None = None
    """Billionths of a CPU (the engine's NanoCpus)."""
    mem_limit: int | None = None
    shm_size: int | None = None
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    read_only: bool = False
    devices: tuple[Device, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    """`HOST:IP`, as the engine takes them."""
    dns: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = Field(default_factory=dict)
    ulimits: Mapping[str, Ulimit] = Field(default_factory=dict)
    logging: Logging | None = None
    update: Update = Update()
    scale: int = 1
    """How many containers of it there are."""
    state: Literal["running", "stopped"] = "running"
    """`x-state`: `stopped` is created and kept stopped."""

    platform: str | None = None
    """`OS[/ARCH[/VARIANT]]`."""
    pull_policy: Literal["missing", "always", "never", "refresh"] = "missing"
    """`daily`, `weekly` and `every_…` are `refresh`."""
    pull_refresh_after: int = 0
    """Nanoseconds; of `refresh` only."""
    domainname: str | None = None
    group_add: tuple[str, ...] = ()
    annotations: Mapping[str, str] = Field(default_factory=dict)
    tty: bool = False
    stdin_open: bool = False

    expose: tuple[str, ...] = ()
    """`PORT/PROTOCOL`, ranges expanded."""
    mac_address: str | None = None
    """On its first network."""
    dns_opt: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()

    runtime: str | None = None
    security_opt: tuple[str, ...] = ()
    """`NAME=VALUE`."""
    userns_mode: str | None = None
    pid: str | None = None
    ipc: str | None = None
    uts: str | None = None
    cgroup: str | None = None
    cgroup_parent: str | None = None
    device_cgroup_rules: tuple[str, ...] = ()
    device_requests: tuple[DeviceRequest, ...] = ()
    """Of `gpus` and `deploy.resources.reservations.devices`."""
    storage_opt: Mapping[str, str] = Field(default_factory=dict)

    cpu_shares: int | None = None
    cpu_quota: int | None = None
    """Microseconds, as is the period."""
    cpu_period: int | None = None
    cpuset: str | None = None
    mem_reservation: int | None = None
    memswap_limit: int | None = None
    """Memory and swap together; -1: without limit."""
    mem_swappiness: int | None = None
    oom_kill_disable: bool = False
    oom_score_adj: int = 0
    pids_limit: int | None = None
    """-1: without limit."""
    blkio_weight: int | None = None
    blkio_devices: Mapping[str, tuple[DeviceLimit, ...]] = Field(default_factory=dict)
    """By Compose's keys: `weight_device`, `device_read_bps`, …"""

    container_name: str | None = None
    """Before the prefix of the device."""

    files: tuple[File, ...] = ()
    """Of `configs` and `secrets`, by target."""

    @property
    def cpus_at_most(self) -> int | None:
        """Billionths of a CPU, by `cpus` or by a quota for a period; None: not limited."""
        if self.cpu_quota and self.cpu_quota > 0:
            return self.cpu_quota * _CPU // (self.cpu_period or _CPU_PERIOD)
        return self.cpus

    @property
    def one_shot(self) -> bool:
        """Meant to end: with `restart` `no` or `on-failure`. Ended with 0, it is completed and not run again."""
        return self.restart.policy in ("no", "on-failure")


class IpamPool(Frozen):
    subnet: str | None = None
    ip_range: str | None = None
    gateway: str | None = None
    aux_addresses: Mapping[str, str] = Field(default_factory=dict)


class IpamConfig(Frozen):
    driver: str | None = None
    config: tuple[IpamPool, ...] = ()
    options: Mapping[str, str] = Field(default_factory=dict)


class NetworkDefinition(Frozen):
    driver: str | None = None
    driver_opts: Mapping[str, str] = Field(default_factory=dict)
    ipam: IpamConfig | None = None
    internal: bool = False
    attachable: bool = False
    enable_ipv6: bool = False
    labels: Mapping[str, str] = Field(default_factory=dict)
    external: bool = False
    name: str | None = None


class VolumeDefinition(Frozen):
    driver: str | None = None
    driver_opts: Mapping[str, str] = Field(default_factory=dict)
    labels: Mapping[str, str] = Field(default_factory=dict)
    external: bool = False
    name: str | None = None


class App(Frozen):
    services: Mapping[str, Service]
    gate: Gate = Gate()
    windows: tuple[Window, ...] = ()
    """None: a release may begin at any time."""
    networks: Mapping[str, NetworkDefinition] = Field(default_factory=dict)
    """Every network that a service uses has an entry after validation, `default` too."""
    volumes: Mapping[str, VolumeDefinition] = Field(default_factory=dict)
