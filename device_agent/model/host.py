"""The machine's own figures: told with the state, so that a cloud sees a device before it gets into trouble."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostFigures:
    """None is for what cannot be had here. The totals are not told: they are what the others are compared with."""

    cpu_percent: int | None
    """Of all CPUs together, since the figures were taken last; at first, since the machine was started."""
    memory_mib: int | None
    """In use: what could not be given to a new process."""
    memory_total_mib: int | None
    disk_free_mib: int | None
    """Of the volume with the database."""
    disk_total_mib: int | None
    temperature_c: int | None
    """The hottest sensor's."""
    uptime_s: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the file system with the database: in a container, that of the engine's volumes and images."""

    free: int
    total: int
