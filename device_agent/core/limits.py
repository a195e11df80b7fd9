"""What somebody has changed of a container with `docker update`: its labels, and so its spec, do not show it.

Compared is what the container has with what the agent's own creation leads to. Rules:
 1. What the engine shows as 0 (or empty) is no change: an engine drops what its kernel cannot limit, and `docker
    update` cannot set it.
 2. What the engine derives is derived here, too: swap is twice the memory where the target does not say, a quota for a
    period is a number of CPUs, shares stay within what the kernel takes.
"""

from collections.abc import Iterator

from device_agent.model.compose import Service
from device_agent.model.observed import Container, Limits, Status

_CPU = 1_000_000_000
_CPU_STEP = 20_000
"""Billionths of a CPU by which a quota in whole microseconds may be off."""
_SHARES = (2, 262_144)
_DEFAULT_SHARES = 1024
_UNLIMITED = -1


def changed(service: Service, container: Container) -> str:
    """The first thing that was changed, in words; empty when it is as it was made.

    Left alone is what somebody has paused, and what has been run to its end.
    """
    if container.status is Status.PAUSED or (service.one_shot and container.status is Status.EXITED):
        return ""
    found = (*_resources(service, container.limits), *_restart(service, container))
    return next((f"its {what} was changed to {now}" for what, now in found), "")


def _resources(service: Service, limits: Limits) -> Iterator[tuple[str, str]]:
    if limits.cpus and abs(limits.cpus - (service.cpus_at_most or 0)) > _CPU_STEP:
        yield "CPU limit", f"{limits.cpus / _CPU:g}"
    if limits.cpu_shares not in (0, service.cpu_shares or _DEFAULT_SHARES, _shares(service)):
        yield "share of the CPU", str(limits.cpu_shares)
    if limits.cpuset and _cpus(limits.cpuset) != _cpus(service.cpuset or ""):
        yield "set of CPUs", limits.cpuset
    if limits.memory and limits.memory != service.mem_limit:
        yield "memory limit", _size(limits.memory)
    if limits.memory_reservation and limits.memory_reservation != service.mem_reservation:
        yield "memory reservation", _size(limits.memory_reservation)
    if limits.memory_swap not in (0, _UNLIMITED, service.memswap_limit or 2 * (service.mem_limit or 0)):
        yield "limit of memory and swap", _size(limits.memory_swap)
    # Where the target says nothing, an engine may have a limit of its own (Podman does).
    if limits.pids and service.pids_limit and limits.pids != service.pids_limit:
        yield "limit of processes", "none" if limits.pids < 0 else str(limits.pids)
    if limits.blkio_weight and limits.blkio_weight != service.blkio_weight:
        yield "block I/O weight", str(limits.blkio_weight)


def _restart(service: Service, container: Container) -> Iterator[tuple[str, str]]:
    wanted = service.restart
    if container.restart and container.restart != wanted.policy:
        yield "restart policy", container.restart
    elif container.restart == "on-failure" and container.limits.retries != wanted.max_retries:
        yield "restart policy", f"on-failure:{container.limits.retries}"


def _shares(service: Service) -> int:
    """As an engine may have moved them into what the kernel takes."""
    lowest, highest = _SHARES
    return min(max(service.cpu_shares or _DEFAULT_SHARES, lowest), highest)


def _cpus(cpuset: str) -> frozenset[int]:
    """`0-2,4` in numbers."""
    found: set[int] = set()
    for part in filter(None, cpuset.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _size(size: int) -> str:
    return f"{size / 2**20:g} MiB"
