"""What reads where no agent runs, `doctor`, `status` and their like: it tells what the next start would make of the
database, and leaves every file as it was."""

import errno
import fcntl
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_world import World
from device_agent.adapters import migrations, store_schema
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.store import open_store
from device_agent.cli import commands, offline
from device_agent.cli.doctor import _database
from device_agent.cli.finding import Finding
from device_agent.cli.settings import PREFIX, Settings, load
from device_agent.model.memory import AcceptedTarget
from device_agent.model.target import Target, Version
from tests.builders import app, payload, service

NOW = datetime(2026, 11, 24, tzinfo=UTC)
DATABASE = "database.sqlite"
WEB = {"web": app(api=service())}
NEXT_REVISION = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    op.execute("UPDATE schema_meta SET schema_version = 2")
"""


def target(revision: int) -> Target:
    digest = f"sha256:{revision:064x}"
    return Target("fleet", Version(1, revision), digest, None, None, None, False, WEB, b"{}")


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
def settings(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """There is no agent, and an engine without a container."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    values = {
        "FLEET": "plant7",
        "DEVICE_ID": "d1",
        "DATA_DIR": str(folder),
        "CONTROL_SOCKET": str(tmp_path / "control.sock"),
    }
    for name, value in values.items():
        monkeypatch.setenv(PREFIX + name, value)
    monkeypatch.setattr(offline, "configure_logs", lambda *_: None)
    monkeypatch.setattr(offline, "DockerEngine", lambda *_: SimulatedEngine("plant7/d1", World()))
    return load()


@pytest.fixture
def looked(settings: Settings, tmp_path: Path) -> Callable[[], Finding]:
    """What doctor finds, which must leave everything as it was."""
    return lambda: left_as_it_was(tmp_path, lambda: _database(settings, None))


@pytest.fixture
def answered(settings: Settings, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """What a command answers, which must leave everything as it was."""

    def ask(verb: str, **args: object) -> dict[str, Any]:
        return left_as_it_was(tmp_path, lambda: offline.answer_offline(settings, verb, args))

    return ask


T = TypeVar("T")


def left_as_it_was(place: Path, read: Callable[[], T]) -> T:
    before = everything(place / "volume")
    found = read()
    assert everything(place / "volume") == before
    assert not list((place / "copies").iterdir())
    return found


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


def damaged(folder: Path) -> None:
    (folder / DATABASE).write_bytes(b"\xff" * 4096)


def newer(folder: Path) -> None:
    of_schema(folder, store_schema.SCHEMA_VERSION + 1)


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
    damaged(folder)
    finding = looked()
    assert finding.status == "warning"
    assert f"set aside as {DATABASE}.corrupt." in finding.seen
    assert "from last-good.json" in finding.seen
    assert finding.mend


@pytest.fixture
def next_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This agent is of the schema after the folder's."""
    scripts = tmp_path / "migrations"
    shutil.copytree(migrations.LOCATION, scripts)
    (scripts / "versions" / "second_0002.py").write_text(NEXT_REVISION)
    monkeypatch.setattr(migrations, "LOCATION", scripts)
    monkeypatch.setattr(store_schema, "SCHEMA_VERSION", 2)


@pytest.mark.usefixtures("next_schema")
def test_an_older_schema_is_told_to_be_migrated(folder: Path, looked: Callable[[], Finding]) -> None:
    finding = looked()
    assert finding.status == "ok"
    assert "migrates" in finding.seen
    store = open_store(folder, SystemClock())
    assert store.load().recovered is None
    store.close()
    assert "sound" in looked().seen


def test_a_newer_schema_is_told_to_be_set_aside(folder: Path, looked: Callable[[], Finding]) -> None:
    newer(folder)
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


@dataclass
class Left:
    """What lies in the folder, and what is read from it: the fleet's revision, and words of the note."""

    prepare: Callable[[Path], object]
    revision: int | None
    words: str
    sound: bool = True


FOLDERS = {
    "after kill -9": Left(lambda _: None, 43, "is sound"),
    "damaged": Left(damaged, 42, "the next start mends it, and would tell: the database was set aside as", sound=False),
    "newer": Left(newer, 42, "it is of a newer agent", sound=False),
    "without its log": Left(lambda folder: (folder / f"{DATABASE}-wal").unlink(), 42, "lost commits", sound=False),
    "of a lost database": Left(lambda folder: (folder / DATABASE).unlink(), 42, "database was lost", sound=False),
    "with a damaged file": Left(lambda folder: (folder / "floor.json").write_text("{"), 43, "unreadable", sound=False),
    "missing": Left(shutil.rmtree, None, "has no database: the next start makes one"),
}


@pytest.mark.parametrize("left", FOLDERS.values(), ids=FOLDERS)
def test_status_and_plan_read_what_the_next_start_would_find(
    folder: Path, answered: Callable[..., dict[str, Any]], left: Left
) -> None:
    left.prepare(folder)
    status = answered("status")
    assert left.words in status["note"]
    assert str(folder) in status["note"]
    assert (status["result"]["store"]["status"] == "ok") is left.sound
    have = status["result"]["have"]["fleet"]
    assert (have and have["revision"]) == left.revision
    planned = answered("plan", target=payload(WEB, revision=44).decode())
    assert planned["result"]["apps"]["web"][0]["step"].startswith("pull")
    assert left.words in planned["note"]
    stale = answered("plan", target=payload(WEB, revision=41).decode())
    assert stale.get("error", {}).get("code") == ("stale" if left.revision else None)


@pytest.mark.usefixtures("next_schema")
def test_an_older_database_is_read_as_it_will_be_migrated(answered: Callable[..., dict[str, Any]]) -> None:
    status = answered("status")
    assert status["result"]["have"]["fleet"]["revision"] == 43
    assert status["result"]["store"]["status"] == "ok"
    assert "the next start migrates it" in status["note"]


@pytest.mark.parametrize("verb", ["explain", "history", "backup"])
def test_all_else_that_reads_leaves_a_damaged_database_where_it_is(
    folder: Path, answered: Callable[..., dict[str, Any]], verb: str
) -> None:
    damaged(folder)
    answer = answered(verb, **({"app": "web"} if verb == "explain" else {}))
    assert answer["status"] == "ok"
    assert "set aside" in answer["note"]


def test_a_volume_that_cannot_be_written_is_read(
    answered: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)
    status = answered("status")
    assert status["result"]["have"]["fleet"]["revision"] == 43
    assert "cannot be written: no agent starts with it" in status["result"]["store"]["status"]
    assert "mount a volume" in status["note"]


def test_what_cannot_be_read_is_told_with_a_code_the_place_and_what_to_do(
    folder: Path, answered: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(folder, SystemClock())
    held = answered("status")["error"]
    assert (held["code"], "DEVICE_AGENT_CONTROL_SOCKET" in held["message"]) == ("data_in_use", True)
    store.close()
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", full)
        short = answered("status")["error"]
    assert (short["code"], f"free some space in {folder.parents[1] / 'copies'}" in short["message"]) == (
        "disk_full",
        True,
    )
    shutil.rmtree(folder)
    folder.write_text("a file")
    unread = answered("plan", target="{}")["error"]
    assert (unread["code"], str(folder) in unread["message"]) == ("data_unreadable", True)


def test_the_note_is_told_beside_the_answer(folder: Path, settings: Settings, tmp_path: Path) -> None:
    def status() -> Result:
        return CliRunner().invoke(commands.app, ["status", "--json"])

    damaged(folder)
    ended = left_as_it_was(tmp_path, status)
    assert json.loads(ended.stdout)["have"]["fleet"]["revision"] == 42
    assert ended.stderr.startswith(f"device-agent: no agent answers at {settings.control_socket}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("prepare", [shutil.rmtree, damaged], ids=["missing", "damaged"])
def test_without_room_for_a_new_database_no_start_is_promised(
    folder: Path,
    looked: Callable[[], Finding],
    answered: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], object],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2000))
    assert looked().status == "ok"  # as it is, a start writes nothing
    prepare(folder)
    finding = looked()
    assert finding.status == "broken"
    assert re.search(r"the disk is full: the next start needs \d+ KiB, 1 are free", finding.seen)
    assert "free some space" in finding.mend
    assert answered("status")["result"]["store"]["status"] == finding.seen


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


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_without_room_for_a_copy_that_is_told(looked: Callable[[], Finding], monkeypatch: pytest.MonkeyPatch) -> None:
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
