"""Power that is cut: what has not reached the disk is gone, or is there in part, or was never going to be there."""

import signal
from pathlib import Path

from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import fault
from tests.faults.system import PowerSupply, injecting

GROUP = "store"
CUTS = 5
SECTORS = (512, 4096)
MOST_SYNCS = 2
"""Of one thread in an apply."""
HELD_S = 4.0
HELD = f"delay_enter={600 * 10**6}"
"""A system call that has begun and does not end: a disk that is busy when the power goes."""


def _cut_power(bench: Bench, supply: PowerSupply, *, at_once: bool = False) -> None:
    """`at_once`: as soon as it is said to be accepted."""
    bench.publish()
    if at_once:
        eventually(bench.begun, 10, "it is accepted")
    else:
        bench.somewhere()
    process = bench.device.process
    assert process
    process.send_signal(signal.SIGSTOP)
    image = supply.snapshot()
    bench.kill()
    supply.come_back_as(image)
    bench.restart()


@fault("power cut at a random moment of an apply, 5 times", GROUP, fresh=True, root=True)
def power_cut(bench: Bench) -> None:
    assert bench.device.stop() == 0
    with PowerSupply(bench.device.data) as supply:
        bench.restart()
        bench.converge(60)
        for number in range(CUTS):
            _cut_power(bench, supply, at_once=number == 0)
            bench.converge(60)
        assert bench.device.stop() == 0
    bench.restart()


@fault("power cut with a disk that lies about fsync", GROUP, fresh=True, root=True)
def lying_disk(bench: Bench) -> None:
    bench.data_lost = True
    assert bench.device.stop() == 0
    with PowerSupply(bench.device.data) as supply:
        bench.restart()
        bench.converge(60)
        with injecting(bench.pid, "fdatasync,fsync", "retval=0"):
            _cut_power(bench, supply)
        bench.converge(60)
        assert bench.device.stop() == 0
    bench.restart()


@fault("power cut in the middle of a write: any of its sectors is lost, 5 times", GROUP, fresh=True, root=True)
def torn(bench: Bench) -> None:
    """What was written since the last fsync is on the disk in part, in no order: each sector of it, or its old one."""
    assert bench.device.stop() == 0
    with PowerSupply(bench.device.data) as supply:
        bench.restart()
        bench.converge(60)
        for _ in range(CUTS):
            _tear(bench, supply)
            bench.restart()
            bench.converge(60)
        assert bench.device.stop() == 0
    bench.restart()


def _tear(bench: Bench, supply: PowerSupply) -> None:
    """Cut the power while a sync is under way: in an apply, or in the clean end, which writes the database itself."""
    process = bench.device.process
    assert process
    with injecting(bench.pid, "fdatasync,fsync", f"{HELD}:when={bench.random.randint(1, MOST_SYNCS)}+"):
        bench.publish()
        bench.somewhere(HELD_S)
        if bench.random.random() < 0.3:
            process.send_signal(signal.SIGTERM)
            bench.somewhere()
        process.kill()
    # It is gone only now: strace held its system call.
    process.wait(10)
    written = _contents(bench.device.data)
    supply.come_back_as(supply.snapshot())
    sector = bench.random.choice(SECTORS)
    for path, new in written.items():
        old = path.read_bytes() if path.exists() else b""
        path.write_bytes(_mixed(bench, old, new, sector))


def _contents(folder: Path) -> dict[Path, bytes]:
    """As the processes see it: what was written and has not reached the disk, too."""
    return {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _mixed(bench: Bench, old: bytes, new: bytes, sector: int) -> bytes:
    """Where they differ, one or the other; a file that has grown may have grown already, with zeros."""
    size = bench.random.choice((len(old), len(new), len(new)))
    old = old.ljust(size, b"\0")
    pieces = []
    for at in range(0, size, sector):
        here, there = old[at : at + sector], new[at : min(at + sector, size)]
        pieces.append(there if len(there) == len(here) and bench.random.random() < 0.5 else here)
    return b"".join(pieces)[:size]
