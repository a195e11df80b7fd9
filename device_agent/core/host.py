"""Which changes of the host's figures count: coarse ones only, or an idle device would never be quiet."""

from datetime import timedelta

from device_agent.model.host import HostFigures

CPU_POINTS = 10
MEMORY_MIB = 64
TEMPERATURE_C = 5
PERCENT = 10
"""Of all memory; of the free disk that was told."""
SHORT_MIB = 256
BETTER = 1.25
"""A disk that was short has to have so much more free than what makes it short, or it would be told over and over."""
JUMP_S = 60.0


def left_bucket(told: HostFigures, now: HostFigures) -> bool:
    """Whether a figure is far from what was told. Each bucket lies around what was told last: no edge to flap at.

    The uptime is in none: it always changes.
    """
    memory_mib = max(MEMORY_MIB, _percent(now.memory_total_mib))
    disk_mib = max(MEMORY_MIB, _percent(told.disk_free_mib))
    return (
        _far(told.cpu_percent, now.cpu_percent, CPU_POINTS)
        or _far(told.memory_mib, now.memory_mib, memory_mib)
        or _far(told.disk_free_mib, now.disk_free_mib, disk_mib)
        or _far(told.temperature_c, now.temperature_c, TEMPERATURE_C)
    )


def _percent(mib: int | None) -> int:
    return (mib or 0) * PERCENT // 100


def _far(told: int | None, now: int | None, width: int) -> bool:
    if told is None or now is None:
        return told is not now
    return abs(told - now) >= width


def disk_short(figures: HostFigures, *, before: bool) -> bool:
    """Whether less than 10 % or 256 MiB of the data volume are free. `before`: what this said last."""
    free, total = figures.disk_free_mib, figures.disk_total_mib
    if free is None or total is None:
        return before
    least = max(total * PERCENT / 100, SHORT_MIB)
    return free < least * (BETTER if before else 1)


def jump_s(before: timedelta, now: timedelta) -> float | None:
    """Seconds by which the wall clock was set, from what it was ahead of the monotonic one; None for a small drift."""
    moved = (now - before).total_seconds()
    return moved if abs(moved) > JUMP_S else None
