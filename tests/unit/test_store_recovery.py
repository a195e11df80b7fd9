"""Whatever happens to the files in the data folder, the agent starts, and knows its floor and its last good target."""

import json
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_agent.adapters import sidecar, store_schema
from device_agent.adapters.sidecar import Kept
from device_agent.adapters.store import SqliteStore, StoreLocked, open_store
from device_agent.model.errors import Refused
from device_agent.model.memory import AcceptedTarget, AppRecord, Floor, Memory
from device_agent.model.target import Target, Version

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
DATABASE = "database.sqlite"
GOOD, NEWEST = Version(1, 42), Version(1, 43)


class At:
    """A clock that stands."""

    def __init__(self, time: datetime = NOW) -> None:
        self.time = time

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return 0.0


def target(version: Version, scope: str = "fleet") -> Target:
    apps = {f"app{number}": {"services": {"web": {"image": f"registry.example/web:{number}"}}} for number in range(5)}
    raw = json.dumps({"revision": version.revision, "apps": apps}).encode()
    return Target(scope, version, f"sha256:{version.revision:064x}", "r", None, None, False, apps, raw)


def floor(version: Version) -> Floor:
    return Floor(version, target(version).digest)


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an agent that was cut off: 42 was applied, 43 accepted, most of it still in the log."""
    folder, cut = tmp_path_factory.mktemp("lived"), tmp_path_factory.mktemp("cut")
    store = open_store(folder, At())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(GOOD), NOW, ended="applied"))
        for number in range(12):
            rows.put_app(AppRecord(f"app{number}", "sha256:" + "a" * 64, {"web": "b" * 64}, "r", "q"))
            rows.queue("ack", lambda seq: b'{"seq": %d, "verdict": "applied"}' % seq)
    store.remember_good((target(GOOD),))
    store.close()
    store = open_store(folder, At())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(NEWEST), NOW, frozenset({"app1"})))
        rows.queue("ack", lambda seq: b'{"seq": %d, "verdict": "accepted"}' % seq)
    shutil.copytree(folder, cut, dirs_exist_ok=True)
    store.close()
    return cut


@pytest.fixture
def folder(lived_in: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, in memory where there is such a place: nothing here cuts the power, and fsync costs time."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as place:
        shutil.copytree(lived_in, Path(place) / "data")
        yield Path(place) / "data"


def start(folder: Path, clock: At | None = None) -> tuple[Memory, list[int]]:
    """One start of the agent: what it remembers, and the next numbers it gives out."""
    store = open_store(folder, clock or At())
    try:
        memory = store.load()
        numbers: list[int] = []

        def body(seq: int) -> bytes:
            numbers.append(seq)
            return b"x"

        with store.transaction() as rows:
            rows.queue("ack", body)
        return memory, [*numbers, store.reserve_sessions(1)]
    finally:
        store.close()


def version(memory: Memory) -> Version:
    return memory.targets["fleet"].target.version


def aside(folder: Path, label: str = "corrupt") -> list[str]:
    return sorted(path.name for path in folder.glob(f"{DATABASE}.{label}.*") if "-" not in path.name)


def test_a_folder_copied_while_the_agent_ran_opens_as_if_nothing_had_been(folder: Path) -> None:
    memory, _ = start(folder)
    assert memory.recovered is None
    assert version(memory) == NEWEST
    assert memory.targets["fleet"].awaited == frozenset({"app1"})
    assert memory.floors == {"fleet": floor(NEWEST)}
    assert len(memory.apps) == 12


def test_files_are_for_the_owner_alone(folder: Path) -> None:
    (folder / DATABASE).chmod(0o644)
    store = open_store(folder, At())
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    store.close()
    assert modes == dict.fromkeys(
        [DATABASE, f"{DATABASE}-wal", "floor.json", "last-good.json", "lock", "session"], 0o600
    )


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_to_the_database_is_noticed_or_harmless(lived_in: Path, folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    path = folder / chance.choice([DATABASE, DATABASE, f"{DATABASE}-wal"])
    content = bytearray(path.read_bytes())
    at = chance.randrange(max(1, len(content) - 512))
    content[at : at + 512] = chance.randbytes(len(content[at : at + 512]))
    path.write_bytes(content)
    shutil.copytree(lived_in, sound := folder.with_name("sound"))
    before, earlier = start(sound)
    memory, numbers = start(folder)
    assert memory.floors == {"fleet": floor(NEWEST)}
    if memory.recovered is None:
        assert memory == before
    else:
        assert version(memory) in (GOOD, NEWEST)
        assert memory.targets["fleet"].target == target(version(memory))
        assert all(new > old for new, old in zip(numbers, earlier, strict=True))
    assert start(folder)[0].recovered is None


def test_a_small_damage_that_sqlite_cannot_see_is_seen(folder: Path) -> None:
    """One letter of a digest: integrity_check finds nothing."""
    open_store(folder, At()).close()
    path = folder / DATABASE
    path.write_bytes(path.read_bytes().replace(b"sha256:aaaa", b"sha256:aaab"))
    with sqlite3.connect(path) as look:
        assert look.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    look.close()
    memory, _ = start(folder)
    assert memory.recovered is not None
    assert "a row of apps is damaged" in memory.recovered
    assert version(memory) == GOOD


def test_a_damage_that_only_sqlite_can_see_is_seen(folder: Path) -> None:
    """The count of free pages in the header: every row is as it was written."""
    open_store(folder, At()).close()
    with (folder / DATABASE).open("r+b") as file:
        file.seek(36)
        file.write((1000).to_bytes(4, "big"))
    memory, _ = start(folder)
    assert memory.recovered is not None
    assert "freelist" in memory.recovered.lower()
    assert version(memory) == GOOD


@pytest.mark.parametrize("length", [100, 1024, 5000])
def test_a_truncated_database(folder: Path, length: int) -> None:
    open_store(folder, At()).close()
    path = folder / DATABASE
    path.write_bytes(path.read_bytes()[:length])
    memory, _ = start(folder)
    assert memory.recovered is not None
    assert memory.recovered.startswith(f"the database was set aside as {DATABASE}.corrupt.20261122T100000Z")
    assert (version(memory), memory.floors) == (GOOD, {"fleet": floor(NEWEST)})
    assert memory.targets["fleet"].ended == "applied"
    assert len(aside(folder)) == 1


@pytest.mark.parametrize("length", [None, 0, 1])
def test_a_deleted_or_empty_database(folder: Path, length: int | None) -> None:
    open_store(folder, At()).close()
    (folder / DATABASE).unlink()
    if length is not None:
        (folder / DATABASE).write_bytes(b"x" * length)
    memory, _ = start(folder)
    assert memory.recovered == "the database was missing or empty; the fleet target 1.42 is from last-good.json"
    assert (version(memory), memory.floors) == (GOOD, {"fleet": floor(NEWEST)})


@pytest.mark.parametrize("length", [None, 0, 1])
def test_a_log_without_its_database_is_kept(folder: Path, length: int | None) -> None:
    log = (folder / f"{DATABASE}-wal").read_bytes()
    assert log
    (folder / DATABASE).unlink()
    if length is not None:
        (folder / DATABASE).write_bytes(b"x" * length)
    memory, _ = start(folder)
    assert memory.recovered is not None
    assert "its log is kept as" in memory.recovered
    assert version(memory) == GOOD
    (kept,) = folder.glob(f"{DATABASE}.corrupt.*-wal")
    assert kept.read_bytes() == log


def test_a_database_that_lost_its_newest_commits_is_noticed_by_the_floor(folder: Path) -> None:
    """A damaged log: SQLite takes what is sound of it, and finds nothing wrong."""
    (folder / f"{DATABASE}-wal").unlink()
    memory, _ = start(folder)
    assert memory.recovered == "the database had lost commits"
    assert (version(memory), memory.floors) == (GOOD, {"fleet": floor(NEWEST)})
    assert start(folder)[0].recovered is None


def test_the_newest_two_damaged_sets_are_kept_though_the_clock_went_back(folder: Path) -> None:
    for year in (2026, 2027, 1970, 2028, 1970):
        (folder / DATABASE).write_bytes(b"damaged %d" % year * 100)
        start(folder, At(NOW.replace(year=year)))
    assert aside(folder) == [f"{DATABASE}.corrupt.{year}1122T100000Z" for year in (1970, 2028)]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"sha256":"00","body":{}}', b"null"])
@pytest.mark.parametrize("name", ["floor.json", "last-good.json"])
def test_an_unreadable_file_beside_the_database_is_told_once_and_replaced(
    folder: Path, name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    memory, _ = start(folder)
    assert memory.recovered is not None
    assert memory.recovered.startswith(f"{name} was unreadable, it is kept as {name}.corrupt (")
    assert (version(memory), memory.floors) == (NEWEST, {"fleet": floor(NEWEST)})
    assert (folder / f"{name}.corrupt").read_bytes() == content
    assert start(folder)[0].recovered is None
    assert sidecar.read(folder / "floor.json") is not None


def test_one_changed_digit_in_a_file_beside_the_database_is_noticed(folder: Path) -> None:
    path = folder / "floor.json"
    path.write_bytes(path.read_bytes().replace(b"[1,43,", b"[1,93,"))
    memory, _ = start(folder)
    assert memory.recovered is not None
    assert memory.floors == {"fleet": floor(NEWEST)}


def test_both_lost_is_an_empty_memory_in_words(folder: Path) -> None:
    for name in (DATABASE, "floor.json", "last-good.json"):
        (folder / name).write_bytes(b"damaged" * 100)
    memory, _ = start(folder)
    assert memory.targets == {}
    assert memory.floors == {}
    assert memory.recovered is not None
    for name in (DATABASE, "floor.json", "last-good.json"):
        assert name in memory.recovered
    assert start(folder)[0].recovered is None


def test_floor_alone_still_keeps_old_targets_out(folder: Path) -> None:
    (folder / "last-good.json").unlink()
    (folder / DATABASE).write_bytes(b"damaged" * 1000)
    memory, _ = start(folder)
    assert memory.targets == {}
    assert memory.floors == {"fleet": floor(NEWEST)}


def test_lost_commits_cost_neither_the_last_good_target_nor_a_number(folder: Path) -> None:
    """The floor tells that commits were lost, not how many: those that gave out numbers may be among them."""
    open_store(folder, At()).close()
    store = open_store(folder, At())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(Version(1, 44)), NOW))
    store.remember_good((target(Version(1, 44)),))
    given = [store.reserve_sessions(100)]
    with store.transaction() as rows:
        rows.queue("ack", lambda seq: given.append(seq) or b"x")  # type: ignore[func-returns-value]
    cut = folder.with_name("cut")
    shutil.copytree(folder, cut)
    store.close()
    (cut / f"{DATABASE}-wal").unlink()
    memory, (seq, session) = start(cut)
    assert memory.recovered == "the database had lost commits; the fleet target 1.44 is from last-good.json"
    assert version(memory) == Version(1, 44)
    assert session > given[0] + 100
    assert seq > given[1]


@pytest.mark.parametrize("year", [1970, 2016, 2026, 2036])
def test_numbers_go_on_above_all_earlier_ones_after_a_loss_whatever_the_clock_says(folder: Path, year: int) -> None:
    before = start(folder)[1]
    (folder / DATABASE).write_bytes(b"damaged" * 1000)
    after = start(folder, At(NOW.replace(year=year)))[1]
    assert all(new > old for new, old in zip(after, before, strict=True))


def test_a_start_that_was_cut_off_in_the_middle_of_recovery_is_taken_up(folder: Path) -> None:
    """The damaged database is aside, the fresh one has its tables and nothing else."""
    shutil.move(folder / DATABASE, folder / f"{DATABASE}.corrupt.20200101T000000Z")
    (folder / f"{DATABASE}-wal").unlink()
    good, floors = (folder / "last-good.json").read_bytes(), (folder / "floor.json").read_bytes()
    for name in ("last-good.json", "floor.json"):
        (folder / name).unlink()
    open_store(folder, At(NOW - timedelta(days=3650))).close()
    (folder / "last-good.json").write_bytes(good)
    (folder / "floor.json").write_bytes(floors)
    memory, _ = start(folder)
    assert (version(memory), memory.floors) == (GOOD, {"fleet": floor(NEWEST)})


def newer(folder: Path, min_reader: int) -> None:
    """What an agent of the future leaves behind: more columns, more tables."""
    open_store(folder, At()).close()
    with sqlite3.connect(folder / DATABASE) as future:
        future.execute("UPDATE schema_meta SET schema_version = 7, min_reader = ?", (min_reader,))
        future.execute("ALTER TABLE targets ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")
        future.execute("CREATE TABLE locks (app TEXT PRIMARY KEY)")
        future.execute("UPDATE alembic_version SET version_num = 'zz9'")
    future.close()


def test_a_newer_schema_that_allows_it_is_used_as_it_is(folder: Path) -> None:
    newer(folder, store_schema.SCHEMA_VERSION)
    memory, _ = start(folder)
    assert memory.recovered is None
    assert version(memory) == NEWEST
    store = open_store(folder, At())
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target(Version(1, 44)), NOW))
        rows.put_target(AcceptedTarget(target(Version(1, 1), "device"), NOW))
    store.close()
    assert version(start(folder)[0]) == Version(1, 44)
    with sqlite3.connect(folder / DATABASE) as future:
        assert future.execute("SELECT schema_version, min_reader FROM schema_meta").fetchone() == (7, 1)
        assert future.execute("SELECT colour FROM targets").fetchall() == [("red",), ("red",)]
    future.close()


def test_a_newer_schema_that_forbids_it_is_kept_for_the_newer_agent(folder: Path) -> None:
    newer(folder, store_schema.SCHEMA_VERSION + 1)
    content = (folder / DATABASE).read_bytes()
    for year in (2026, 2027, 2028):  # more often than damaged sets are kept
        (folder / DATABASE).write_bytes(content)
        memory, _ = start(folder, At(NOW.replace(year=year)))
        assert memory.recovered is not None
        assert "it is of a newer agent (schema 7, this one reads 1)" in memory.recovered
        assert (version(memory), memory.floors) == (GOOD, {"fleet": floor(NEWEST)})
    assert len(aside(folder, "newer")) == 3
    assert (folder / aside(folder, "newer")[0]).read_bytes() == content


def test_a_second_agent_on_the_folder_is_turned_away_and_touches_nothing(folder: Path) -> None:
    store = open_store(folder, At())
    (folder / "floor.json").write_bytes(b"damaged")  # what the second would like to recover
    with pytest.raises(StoreLocked, match="another agent is running on the data folder"):
        open_store(folder, At())
    assert (folder / "floor.json").read_bytes() == b"damaged"
    with store.transaction() as rows:
        rows.drop_app("app1")
    store.close()
    open_store(folder, At()).close()


def test_a_shell_that_holds_the_database_is_waited_for_and_named(folder: Path) -> None:
    open_store(folder, At()).close()
    shell = sqlite3.connect(folder / DATABASE)
    shell.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreLocked, match="in use by another process"):
        open_store(folder, At())
    shell.close()
    assert start(folder)[0].recovered is None
    assert aside(folder) == []


def test_a_restore_is_not_undone_by_the_last_good_file(folder: Path) -> None:
    store = open_store(folder, At())
    old = folder.parent / "old"
    fresh = open_store(old, At())
    with fresh.transaction() as rows:
        rows.put_target(AcceptedTarget(target(Version(1, 7)), NOW, ended="applied"))
    fresh.backup(folder.parent / "backup")
    fresh.close()
    store.restore(folder.parent / "backup")
    store.close()
    memory, _ = start(folder)
    assert memory.recovered is None
    assert (version(memory), memory.floors) == (Version(1, 7), {"fleet": floor(NEWEST)})
    kept = sidecar.read(folder / "last-good.json")
    assert kept is not None
    assert [one.version for one in kept.targets] == [Version(1, 7)]


def test_a_backup_is_a_single_file_and_leaves_nothing_beside_the_database(folder: Path, tmp_path: Path) -> None:
    store = open_store(folder, At())
    before = {path.name for path in folder.iterdir()}
    backup = tmp_path / "backup"
    store.backup(backup)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert backup.read_bytes()[18:20] == b"\x01\x01"  # the file format's "no write-ahead log"
    store.restore(backup)
    backup.write_bytes(b"damaged" * 1000)
    with pytest.raises(Refused):
        store.restore(backup)
    assert {path.name for path in folder.iterdir()} == before
    store.close()


def test_a_database_copied_by_hand_with_its_log_can_be_restored(lived_in: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "fresh", At())
    memory = store.restore(lived_in / DATABASE)
    store.close()
    assert version(memory) == NEWEST


@pytest.mark.parametrize("name", [DATABASE, f"{DATABASE}-wal", "floor.json", "last-good.json", "lock", "session"])
def test_the_agents_own_files_are_no_place_for_a_backup(folder: Path, name: str) -> None:
    store = open_store(folder, At())
    for action in (store.backup, store.restore):
        with pytest.raises(Refused, match="one of the agent's own files"):
            action(folder / ".." / folder.name / name)
    store.close()


def test_floors_and_good_targets_are_written_once(folder: Path) -> None:
    store = open_store(folder, At())
    assert isinstance(store, SqliteStore)
    store.remember_good((target(GOOD),))
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    store.remember_good((target(GOOD),))
    store.raise_floor("fleet", Floor(GOOD))
    assert {path.name: path.stat().st_ino for path in folder.iterdir()} == before
    store.remember_good((target(NEWEST),))
    assert (folder / "last-good.json").stat().st_ino != before["last-good.json"]
    kept = sidecar.read(folder / "last-good.json")
    assert isinstance(kept, Kept)
    assert kept.targets == (target(NEWEST),)
    store.close()
