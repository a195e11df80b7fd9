"""The agent is killed between any two steps of what it does with its disk, and the next start goes on.

The steps are found, not listed: each SQL statement and each system call that changes a file is counted, and the n-th
kills the process, for every n until one run gets through. A child is forked for it; only what it did to the files is
left, as after `kill -9`.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from device_agent.adapters import migrations, sidecar, store_rows, store_schema
from device_agent.adapters.store import open_store
from device_agent.model.errors import StoreFull
from device_agent.model.memory import AcceptedTarget, Floor, Memory
from device_agent.model.target import Target, Version

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
KILLED = 99
CALLS = ("fdatasync", "fsync", "open", "pwrite", "rename", "replace", "unlink")
OLD, NEW = Version(1, 42), Version(1, 43)


class At:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


def target(version: Version) -> Target:
    raw = b'{"revision": %d}' % version.revision + b" " * 5000
    return Target("fleet", version, f"sha256:{version.revision:064x}", None, None, None, False, {"web": {}}, raw)


def floor(version: Version) -> Floor:
    return Floor(version, target(version).digest)


def accept(folder: Path, version: Version) -> None:
    """A target is accepted, acknowledged (a file stands for the PUBACK), applied and told."""
    store = open_store(folder, At())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(version), NOW, frozenset({"web"})))
        rows.queue("ack", lambda _: b"accepted")
    (folder.parent / "puback").touch()
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(version), NOW, ended="applied"))
        rows.queue("ack", lambda _: b"applied", terminal=True)
    store.remember_good((target(version),))
    store.close()


def load(folder: Path) -> Memory:
    store = open_store(folder, At())
    try:
        return store.load()
    finally:
        store.close()


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """Count the steps of this process, and end it at `step`, leaving everything as it lies."""
    count = 0

    def counted(*_: object, **__: object) -> None:
        nonlocal count
        if count == step:
            os._exit(KILLED)
        count += 1

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            counted()
            return call(*arguments, **named)

        return wrapped

    def executed(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("SELECT", "PRAGMA")):
            counted()

    event.listen(Engine, "before_cursor_execute", executed)
    event.listen(Engine, "commit", counted)
    originals = {name: getattr(os, name) for name in CALLS}
    for name, call in originals.items():
        setattr(os, name, around(call))
    yield


def killed_everywhere(work: Callable[[], None], afterwards: Callable[[bool], None]) -> int:
    """Run `work` once for each step and kill it there; `afterwards` looks at the files, told whether it got through."""
    step = 0
    while True:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with killed_at(step):
                    work()
                code = 0
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, KILLED), f"the child failed by itself at step {step}"
        afterwards(code == 0)
        if code == 0:
            return step
        step += 1


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a killed process leaves the same there, and fsync costs nothing."""
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def emptied(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder.parent / "puback").unlink(missing_ok=True)


def test_an_accepted_target_is_whole_or_not_there_and_there_once_acknowledged(place: Path) -> None:
    before, folder = place / "before", place / "data"
    accept(before, OLD)
    (place / "puback").unlink()

    def work() -> None:
        shutil.copytree(before, folder)
        accept(folder, NEW)

    def afterwards(through: bool) -> None:
        memory = load(folder)
        assert memory.recovered is None
        stored = memory.targets["fleet"].target
        assert stored in (target(OLD), target(NEW))
        assert memory.floors["fleet"] == floor(stored.version)
        kept = sidecar.read(folder / "floor.json")
        assert kept is not None
        assert kept.floors["fleet"] == floor(stored.version)
        if through or (place / "puback").exists():
            assert stored == target(NEW)
        emptied(folder)

    assert killed_everywhere(work, afterwards) > 25


def test_a_first_start_can_be_cut_off_anywhere(place: Path) -> None:
    folder = place / "data"

    def afterwards(_: bool) -> None:
        memory = load(folder)
        assert memory == Memory()
        emptied(folder)

    assert killed_everywhere(lambda: open_store(folder, At()).close(), afterwards) > 15


def test_recovery_can_be_cut_off_anywhere(place: Path) -> None:
    before, folder = place / "before", place / "data"
    accept(before, OLD)
    (before / "database.sqlite").write_bytes(b"damaged" * 1000)

    def work() -> None:
        shutil.copytree(before, folder)
        open_store(folder, At()).close()

    def afterwards(_: bool) -> None:
        memory = load(folder)
        assert memory.targets["fleet"].target == target(OLD)
        assert memory.floors == {"fleet": floor(OLD)}
        assert len(list(folder.glob("*.corrupt.*"))) == 1
        emptied(folder)

    assert killed_everywhere(work, afterwards) > 20


def test_a_restore_is_whole_or_not_there(place: Path) -> None:
    before, folder, other, backup = (place / name for name in ("before", "data", "other", "backup"))
    accept(other, OLD)
    store = open_store(other, At())
    store.backup(backup)
    store.close()
    accept(before, NEW)

    def work() -> None:
        shutil.copytree(before, folder)
        store = open_store(folder, At())
        store.restore(backup)
        store.close()

    def afterwards(through: bool) -> None:
        memory = load(folder)
        assert memory.recovered is None
        assert memory.targets["fleet"].target in ((target(OLD),) if through else (target(OLD), target(NEW)))
        assert memory.floors == {"fleet": floor(NEW)}
        emptied(folder)

    assert killed_everywhere(work, afterwards) > 25


def test_session_numbers_of_a_full_disk_rise_wherever_it_was_cut_off(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, folder, told = place / "before", place / "data", place / "told"

    def full(*_: object) -> None:
        raise StoreFull("database or disk is full")

    def connect(folder: Path, *, full_disk: bool) -> None:
        with monkeypatch.context() as patched:
            store = open_store(folder, At())
            if full_disk:
                patched.setattr(store_rows, "put_counter", full)
            for _ in range(2):
                first = store.reserve_sessions(64)
                with told.open("a") as log:
                    log.write(f"{first} {first + 63}\n")
            store.close()

    connect(before, full_disk=False)
    earlier = told.read_text()

    def work() -> None:
        told.write_text(earlier)
        shutil.copytree(before, folder)
        connect(folder, full_disk=True)

    def afterwards(_: bool) -> None:
        connect(folder, full_disk=True)
        connect(folder, full_disk=False)
        numbers = [int(number) for number in told.read_text().split()]
        assert numbers == sorted(set(numbers))
        assert load(folder).recovered is None
        emptied(folder)

    assert killed_everywhere(work, afterwards) > 15


SECOND = """
import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.add_column("targets", sa.Column("colour", sa.String(), nullable=False, server_default="red"))
    with op.batch_alter_table("apps") as batch:
        batch.alter_column("release", type_=sa.Text())
        batch.add_column(sa.Column("colour", sa.String(), server_default="red"))
    op.execute("UPDATE schema_meta SET schema_version = 2")
"""


def test_a_migration_can_be_killed_at_each_statement(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, folder = place / "before", place / "data"
    accept(before, OLD)
    scripts = place / "migrations"
    shutil.copytree(migrations.LOCATION, scripts)
    (scripts / "versions" / "second_0002.py").write_text(SECOND)
    monkeypatch.setattr(migrations, "LOCATION", scripts)
    monkeypatch.setattr(store_schema, "SCHEMA_VERSION", 2)

    def work() -> None:
        shutil.copytree(before, folder)
        open_store(folder, At()).close()

    def afterwards(_: bool) -> None:
        memory = load(folder)
        assert memory.recovered is None
        assert memory.targets["fleet"].target == target(OLD)
        with sqlite3.connect(folder / "database.sqlite") as look:
            assert look.execute("SELECT colour FROM targets").fetchall() == [("red",)]
            assert look.execute("SELECT version_num FROM alembic_version").fetchall() == [("0002",)]
            assert look.execute("SELECT name FROM sqlite_schema WHERE name LIKE '%tmp%'").fetchall() == []
        look.close()
        emptied(folder)

    assert killed_everywhere(work, afterwards) > 10


@pytest.mark.parametrize(
    ("stumble", "word"),
    [('op.execute("DROP TABLE no_such_table")', "no_such_table"), ('raise KeyError("no such key")', "no such key")],
)
def test_a_migration_that_fails_sets_the_database_aside_and_runs_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, stumble: str, word: str
) -> None:
    folder = place / "data"
    accept(folder, OLD)
    scripts = place / "migrations"
    shutil.copytree(migrations.LOCATION, scripts)
    (scripts / "versions" / "second_0002.py").write_text(SECOND + f"    {stumble}\n")
    monkeypatch.setattr(migrations, "LOCATION", scripts)
    monkeypatch.setattr(store_schema, "SCHEMA_VERSION", 2)
    memory = load(folder)
    assert memory.targets["fleet"].target == target(OLD)
    assert memory.recovered is not None
    assert word in memory.recovered
