"""Whether there is room for an image, before anything of it is fetched."""

from dataclasses import dataclass

from device_agent.model.host import Disk

TAKES = 3
"""How much disk an image takes for each byte that travels: the download itself, and about twice as much unpacked."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Reserve:
    """What is to stay free: a share of the disk, and at least so many bytes."""

    percent: float = 10.0
    least: int = 256 * MIB

    def of(self, disk: Disk) -> int:
        return max(int(disk.total * self.percent / 100), self.least)


def too_little(image: str, missing: int, promised: int, disk: Disk, reserve: Reserve) -> str:
    """Why there is no room for `missing` bytes of an image, with the numbers; empty when there is.

    `promised`: bytes of disk that pulls under way will still take.
    """
    needed, kept = missing * TAKES, reserve.of(disk)
    if not missing or needed + promised + kept <= disk.free:
        return ""
    others = f" and {_mib(promised)} for pulls under way" if promised else ""
    return (
        f"{image} needs about {_mib(needed)} ({_mib(missing)} to download){others}; "
        f"{_mib(disk.free)} of {_mib(disk.total)} are free, and {_mib(kept)} are to stay free: free some space"
    )


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"
