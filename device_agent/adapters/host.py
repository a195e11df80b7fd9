"""The host's figures, by psutil: a few small files of /proc and /sys, and one statvfs.

In a container they are the host's, but for the disk, which is the volume's.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from device_agent.model.host import Disk, HostFigures

T = TypeVar("T")

_MIB = 2**20
_PLAUSIBLE_C = range(-40, 151)
"""Sensors that are not connected tell -273, 255 or the like."""


class PsutilHost:
    """The port `Host`."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = str(data_dir)
        self._cpu = (0.0, 0.0)
        """Seconds of all CPUs since the start of the machine, as they were last: busy, and all."""

    def figures(self) -> HostFigures:
        memory = _or_none(psutil.virtual_memory)
        disk = _or_none(lambda: psutil.disk_usage(self._data_dir))
        return HostFigures(
            cpu_percent=_or_none(self._cpu_percent),
            memory_mib=(memory.total - memory.available) // _MIB if memory else None,
            memory_total_mib=memory.total // _MIB if memory else None,
            disk_free_mib=disk.free // _MIB if disk else None,
            disk_total_mib=disk.total // _MIB if disk else None,
            temperature_c=_or_none(_temperature_c),
            uptime_s=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        )

    def disk(self) -> Disk | None:
        usage = _or_none(lambda: psutil.disk_usage(self._data_dir))
        return Disk(usage.free, usage.total) if usage else None

    def _cpu_percent(self) -> int | None:
        times = psutil.cpu_times()
        # A guest's time is in `user` and `nice` already.
        everything = sum(times) - times.guest - times.guest_nice
        busy = everything - times.idle - times.iowait
        busy_s, all_s = busy - self._cpu[0], everything - self._cpu[1]
        self._cpu = (busy, everything)
        return min(100, max(0, round(100 * busy_s / all_s))) if all_s > 0 else None


def _temperature_c() -> int | None:
    sensors = (sensor for chip in psutil.sensors_temperatures().values() for sensor in chip)
    return max((round(sensor.current) for sensor in sensors if round(sensor.current) in _PLAUSIBLE_C), default=None)


def _or_none(read: Callable[[], T]) -> T | None:
    """What cannot be read here is not told. It is no reason to end."""
    try:
        return read()
    except (OSError, ValueError, RuntimeError, AttributeError, psutil.Error):
        return None
