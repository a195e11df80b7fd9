"""The disk and what is on it: failing fsync and writes, full and read-only disks, damage, loss."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import fault
from tests.faults.system import fill, filler, injecting, read_only, small_disk

GROUP = "store"
DAMAGE_BYTES = 512
BOOTS = 3


def _database(bench: Bench) -> Path:
    return bench.device.data / "database.sqlite"


def _wal(bench: Bench) -> Path:
    return bench.device.data / "database.sqlite-wal"


def _stopped(bench: Bench) -> None:
    assert bench.device.stop() == 0


@fault("fsync fails once", GROUP, ends=1, root=True)
def fsync_fails(bench: Bench) -> None:
    _failing(bench, "fdatasync,fsync", "error=EIO:when=1")


@fault("fsync fails from now on", GROUP, ends=1, root=True)
def fsync_keeps_failing(bench: Bench) -> None:
    _failing(bench, "fdatasync,fsync", "error=EIO:when=1+")


def _failing(bench: Bench, calls: str, what: str) -> None:
    with injecting(bench.pid, calls, what):
        published = bench.publish()
        eventually(lambda: not bench.alive, 15, "live: it ends, and does not go on with a disk that failed")
    stored = bench.device.snapshot().targets["fleet"][1]
    if stored < published.revision:
        assert not bench.device.acks(verdict="accepted", revision=published.revision), "durable: it said it had it"


@fault("every write to the disk fails from now on", GROUP, ends=1, root=True)
def writes_fail(bench: Bench) -> None:
    _failing(bench, "pwrite64", "error=EIO:when=1+")


@fault("the disk turns read-only under the running agent", GROUP, ends=1, root=True)
def turns_read_only(bench: Bench) -> None:
    _failing(bench, "pwrite64", "error=EROFS:when=1+")


@fault("disk full at a commit", GROUP, fast=True, root=True)
def full_at_commit(bench: Bench) -> None:
    _stopped(bench)
    with small_disk(bench.device.data, "2m"):
        bench.restart()
        bench.converge(30)
        fill(bench.device.data)
        before = bench.device.identities()
        published = bench.publish()
        eventually(lambda: _says_full(bench), 20, "truthful: it says that its disk is full")
        assert bench.device.identities() == before, "fail-static: what could not be stored was begun"
        assert not bench.device.acks(verdict="accepted", revision=published.revision), "durable: it said it had it"
        filler(bench.device.data).unlink()
        bench.converge(30)
        _stopped(bench)
    bench.restart()


def _says_full(bench: Bench) -> bool:
    status = bench.status()
    return status is not None and status["store"]["status"] == "full"


@fault("disk full at boot", GROUP, root=True)
def full_at_boot(bench: Bench) -> None:
    bench.kill()
    with small_disk(bench.device.data, "2m"):
        fill(bench.device.data)
        bench.device.host.remove(bench.device.identities()["web/api"][0])
        bench.restart()
        eventually(lambda: bench.device.runs("web/api"), 30, "fail-static: the stored target is carried out")
        filler(bench.device.data).unlink()
        bench.converge(30)
        _stopped(bench)
    bench.restart()


@fault(f"disk full at {BOOTS} boots in a row", GROUP, root=True)
def full_at_boots(bench: Bench) -> None:
    bench.kill()
    with small_disk(bench.device.data, "2m"):
        fill(bench.device.data)
        for _ in range(BOOTS):
            before = bench.device.session
            bench.restart()
            _until_online_after(bench, before)
            bench.kill()
        filler(bench.device.data).unlink()
        bench.restart()
        bench.converge(30)
        _stopped(bench)
    bench.restart()


def _until_online_after(bench: Bench, session: int) -> None:
    eventually(lambda: bench.device.session > session, 30, f"forward: it is online in a session after {session}")


@fault("the data folder read-only at boot", GROUP, root=True)
def read_only_at_boot(bench: Bench) -> None:
    bench.kill()
    before = bench.device.identities()
    with read_only(bench.device.data):
        bench.restart()
        bench.publish()
        bench.local_or_ended(15)
        bench.somewhere(3)
        assert bench.device.identities() == before, "fail-static: what could not be stored was begun"
        bench.kill()
    bench.restart()


@fault("512 bytes of the database damaged", GROUP, fast=True, fresh=True)
def damaged(bench: Bench) -> None:
    bench.data_lost = True
    bench.kill()
    files = [file for file in (_database(bench), _wal(bench)) if file.exists() and file.stat().st_size > DAMAGE_BYTES]
    file = bench.random.choice(files)
    data = bytearray(file.read_bytes())
    at = bench.random.randrange(len(data) - DAMAGE_BYTES)
    data[at : at + DAMAGE_BYTES] = bench.random.randbytes(DAMAGE_BYTES)
    file.write_bytes(data)
    bench.restart()
    bench.publish()


@fault("database cut short", GROUP, fresh=True)
def truncated(bench: Bench) -> None:
    bench.data_lost = True
    bench.kill()
    size = _database(bench).stat().st_size
    with _database(bench).open("rb+") as file:
        file.truncate(bench.random.choice((0, bench.random.randrange(size))))
    bench.restart()
    bench.publish()


@fault("database deleted", GROUP, fresh=True)
def deleted(bench: Bench) -> None:
    bench.data_lost = True
    bench.kill()
    _database(bench).unlink()
    if bench.random.random() < 0.5:
        _wal(bench).unlink(missing_ok=True)
    bench.restart()
    bench.publish()


@fault("the whole data folder lost", GROUP, fast=True, fresh=True)
def all_lost(bench: Bench) -> None:
    bench.data_lost = True
    bench.kill()
    before = bench.device.identities()
    shutil.rmtree(bench.device.data)
    bench.wire.unplug()
    bench.restart()
    eventually(bench.status, 20, "it answers")
    assert bench.device.identities() == before, "fail-static: it touched what it does not know"
    bench.wire.plug()
    bench.publish()


@fault("the whole data folder lost, and an older target retained", GROUP, fresh=True)
def all_lost_and_replayed(bench: Bench) -> None:
    """What runs is newer than the target, as its labels say."""
    bench.data_lost = True
    older = bench.client.retained(bench.device.fleet_target)
    bench.publish()
    bench.converge(30)
    bench.kill()
    before = bench.device.identities()
    shutil.rmtree(bench.device.data)
    bench.client.publish(bench.device.fleet_target, json.dumps(older).encode())
    bench.restart()
    eventually(
        lambda: bench.device.acks(verdict="rejected", code="stale", revision=older["revision"]),
        20,
        "forward: the older target is refused as stale",
    )
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


@fault("the data folder deleted under the running agent", GROUP, fresh=True)
def deleted_while_running(bench: Bench) -> None:
    bench.data_lost = True
    shutil.rmtree(bench.device.data)
    bench.publish()
    bench.somewhere()
    bench.kill()
    bench.restart()


@fault("database of a newer agent that this one may read", GROUP)
def newer_schema(bench: Bench) -> None:
    _stopped(bench)
    _set_schema(bench, "schema_version = schema_version + 1")
    bench.restart()
    bench.publish()
    bench.converge(30)
    _stopped(bench)
    _set_schema(bench, "schema_version = schema_version - 1")
    bench.restart()


@fault("database of a newer agent that this one may not read", GROUP, fresh=True)
def incompatible_schema(bench: Bench) -> None:
    bench.data_lost = True
    _stopped(bench)
    before = bench.device.identities()
    _set_schema(bench, "schema_version = 99, min_reader = 99")
    bench.wire.unplug()
    bench.restart()
    bench.local_or_ended(15)
    assert bench.device.identities() == before, "fail-static: it touched what it does not know"
    bench.wire.plug()
    bench.publish()


def _set_schema(bench: Bench, change: str) -> None:
    with closing(sqlite3.connect(_database(bench))) as database:
        database.execute(f"UPDATE schema_meta SET {change}")
        database.commit()


@fault("a second agent on the same data folder", GROUP, fast=True)
def second_agent(bench: Bench) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "device_agent", "run"],
        env=bench.device.environment(),
        check=False,
        capture_output=True,
        timeout=30,
    )
    assert second.returncode == 1, f"live: the second ended with {second.returncode}: {second.stderr[-500:]!r}"
    bench.publish()
