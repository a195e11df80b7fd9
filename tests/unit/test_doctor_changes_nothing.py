"""`device-agent doctor` where no agent runs: it tells what the next start would make of the database, and leaves every
file as it was."""

import errno
import fcntl
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_agent.adapters import migrations, store_schema
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.store import open_store
from device_agent.cli.doctor import Finding, _database
from device_agent.cli.settings import PREFIX, Settings, load
from device_agent.model.memory import AcceptedTarget
from device_agent.model.target import Target, Version

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DATABASE = "database.sqlite"
NEXT_REVISION = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("UPDATE schema_meta SET schema_version = 2")
"""


def target(revision: int) -> Target:
    digest = f"sha256:{revision:064x}"
    return Target("fleet", Version(1, revision), digest, None, None, None, False, {"web": {}}, b"{}")


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `kill -9` leaves it: target 42 was applied, 43 accepted, and only the log has that."""
    folder, cut = tmp_path_factory.mktemp("lived"), tmp_path_factory.mktemp("cut")
    store = open_store(folder, SystemClock())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(42), NOW, ended="applied"))
    store.remember_good((target(42),))
    store.close()
    store = open_store(folder, SystemClock())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(43), NOW, frozenset({"web"})))
    shutil.copytree(folder, cut, dirs_exist_ok=True)
    store.close()
    return cut


@pytest.fixture
def folder(lived_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own for each test, and of its own the place where copies are made."""
    folder, copies = tmp_path / "volume" / "data", tmp_path / "copies"
    shutil.copytree(lived_in, folder)
    copies.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(copies))
    return folder


@pytest.fixture
def settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    for name, value in {"FLEET": "plant7", "DEVICE_ID": "d1", "DATA_DIR": str(folder)}.items():
        monkeypatch.setenv(PREFIX + name, value)
    return load()


@pytest.fixture
def looked(settings: Settings, tmp_path: Path) -> Callable[[], Finding]:
    """What doctor finds, which must leave everything as it was."""

    def look() -> Finding:
        before = everything(tmp_path / "volume")
        finding = _database(settings, None)
        assert everything(tmp_path / "volume") == before
        assert not list((tmp_path / "copies").iterdir())
        return finding

    return look


def everything(place: Path) -> dict[str, tuple[int, int, bytes]]:
    """By path: mode, time of the last change, and content."""
    return {
        str(path.relative_to(place)): (
            (state := path.stat()).st_mode,
            state.st_mtime_ns,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in sorted(place.rglob("*"))
    }


def of_schema(folder: Path, number: int) -> None:
    """`number`: its version, and the lowest that can read it."""
    database = sqlite3.connect(folder / DATABASE)
    with database:
        database.execute("UPDATE schema_meta SET schema_version = ?, min_reader = ?", (number, number))
    database.close()


def test_a_log_that_kill_9_left_is_sound(folder: Path, looked: Callable[[], Finding]) -> None:
    assert (folder / f"{DATABASE}-wal").stat().st_size
    finding = looked()
    assert (finding.status, finding.mend) == ("ok", "")
    assert "sound" in finding.seen


def test_without_its_log_the_same_database_has_lost_commits(folder: Path, looked: Callable[[], Finding]) -> None:
    (folder / f"{DATABASE}-wal").unlink()
    finding = looked()
    assert finding.status == "warning"
    assert "lost commits" in finding.seen


def test_a_database_that_was_closed_is_sound(folder: Path, looked: Callable[[], Finding]) -> None:
    open_store(folder, SystemClock()).close()
    finding = looked()
    assert finding.status == "ok"
    assert "sound" in finding.seen


def test_of_a_damaged_one_it_is_told_what_the_next_start_takes(folder: Path, looked: Callable[[], Finding]) -> None:
    (folder / DATABASE).write_bytes(b"\xff" * 4096)
    finding = looked()
    assert finding.status == "warning"
    assert f"set aside as {DATABASE}.corrupt." in finding.seen
    assert "from last-good.json" in finding.seen
    assert finding.mend


def test_an_older_schema_is_told_to_be_migrated(
    folder: Path, looked: Callable[[], Finding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tmp_path / "migrations"
    shutil.copytree(migrations.LOCATION, scripts)
    (scripts / "versions" / "second_0002.py").write_text(NEXT_REVISION)
    monkeypatch.setattr(migrations, "LOCATION", scripts)
    monkeypatch.setattr(store_schema, "SCHEMA_VERSION", 2)
    finding = looked()
    assert finding.status == "ok"
    assert "migrates" in finding.seen
    store = open_store(folder, SystemClock())
    assert store.load().recovered is None
    store.close()
    assert "sound" in looked().seen


def test_a_newer_schema_is_told_to_be_set_aside(folder: Path, looked: Callable[[], Finding]) -> None:
    of_schema(folder, store_schema.SCHEMA_VERSION + 1)
    finding = looked()
    assert finding.status == "warning"
    assert "newer agent" in finding.seen
    assert finding.mend


@pytest.mark.parametrize("missing", [False, True])
def test_where_there_is_nothing_the_next_start_makes_it(
    folder: Path, looked: Callable[[], Finding], *, missing: bool
) -> None:
    shutil.rmtree(folder)
    if not missing:
        folder.mkdir()
    finding = looked()
    assert finding.status == "ok"
    assert "no database" in finding.seen


@pytest.mark.parametrize("missing", [False, True])
def test_a_volume_that_cannot_be_written_is_told(
    folder: Path, looked: Callable[[], Finding], monkeypatch: pytest.MonkeyPatch, *, missing: bool
) -> None:
    place = folder.parent if missing else folder
    if missing:
        shutil.rmtree(folder)
    # Root writes everywhere but on such a volume, and no test can count on being allowed to mount one.
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == place and mode & os.W_OK))
    finding = looked()
    assert finding.status == "broken"
    assert f"{place} cannot be written" in finding.seen


def test_without_room_for_a_copy_that_is_told(looked: Callable[[], Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    finding = looked()
    assert finding.status == "warning"
    assert "No space left" in finding.seen


def test_an_agent_that_runs_is_not_disturbed(folder: Path, settings: Settings) -> None:
    store = open_store(folder, SystemClock())
    try:
        finding = _database(settings, None)
        assert (finding.status, "another process" in finding.seen) == ("broken", True)
        # A process that opens and closes a file gives up its locks on it, and this one is the agent here.
        intruder = (
            f"import sqlite3; sqlite3.connect({str(folder / DATABASE)!r}, timeout=0).execute('PRAGMA user_version')"
        )
        ended = subprocess.run([sys.executable, "-c", intruder], capture_output=True, text=True, check=False)
        assert "database is locked" in ended.stderr
    finally:
        store.close()


def test_an_agent_that_starts_meanwhile_makes_the_copy_worthless(
    folder: Path, looked: Callable[[], Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    copy = shutil.copyfileobj

    def copied(*files: object) -> None:
        copy(*files)  # type: ignore[arg-type]
        if not begun:
            lock = os.open(folder / "lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            begun.append(lock)

    monkeypatch.setattr(shutil, "copyfileobj", copied)
    assert "another process" in looked().seen
    os.close(begun[0])
