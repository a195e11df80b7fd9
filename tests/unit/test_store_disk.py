"""What is written, and what happens when the disk is full, fails, or is slow to give the folder free."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_agent.adapters import sidecar, store_rows
from device_agent.adapters.sidecar import Kept
from device_agent.adapters.store import SqliteStore, open_store
from device_agent.adapters.store_database import raw
from device_agent.adapters.store_rehearsal import rehearsed
from device_agent.model.errors import StoreBroken, StoreFull
from device_agent.model.memory import AcceptedTarget, AppRecord, Attempt, Floor, Order
from device_agent.model.target import Target, Version

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


class At:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = open_store(tmp_path / "data", At())
    yield opened
    opened.close()


def accepted(revision: int, raw_size: int = 100, **fields: object) -> AcceptedTarget:
    target = Target(
        "fleet", Version(1, revision), f"sha256:{revision}", None, None, None, False, {"web": {}}, os.urandom(raw_size)
    )
    return AcceptedTarget(target, NOW, **fields)  # type: ignore[arg-type]


def put(store: SqliteStore, one: AcceptedTarget) -> None:
    with store.transaction() as rows:
        rows.put_target(one)
        rows.queue("ack", lambda _: b"accepted")


def revision(store: SqliteStore) -> int:
    return store.load().targets["fleet"].target.version.revision


def written(count: str = "syscw") -> int:
    """Write calls of this process so far, or (`wchar`) the bytes handed to them."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts[count])


def test_what_changes_nothing_writes_nothing(store: SqliteStore) -> None:
    one = accepted(42, awaited=frozenset({"web", "db"}))
    attempt = Attempt("web", "api", "spec", 3, "code", "why", NOW + timedelta(minutes=1))

    def again() -> None:
        with store.transaction() as rows:
            rows.put_target(one)
            rows.put_app(AppRecord("web", "sha256:aa", {"b": "1", "a": "2"}, None, "r1"))
            rows.put_attempt(attempt)
            rows.drop_app("gone")
            rows.drop_attempt("web", "gone")
            rows.put_order(Order("web", "api", "stop", "definition"))
            rows.drop_order("web", "gone")
            rows.unqueue(1)
        store.remember_good((one.target,))
        store.raise_floor("fleet", Floor(Version(1, 41), "sha256:lower"))

    before = written()
    again()
    assert written() > before  # the counter counts
    before = written()
    again()
    store.load()
    store.outbox(0, 10)
    store.outbox_counts()
    with store.transaction():
        pass
    assert written() == before


def test_the_progress_of_a_target_does_not_write_its_body_again(store: SqliteStore) -> None:
    one = accepted(42, raw_size=100_000)
    put(store, one)
    log = store._directory / "database.sqlite-wal"
    before = log.stat().st_size
    put(store, AcceptedTarget(one.target, NOW, ended="applied"))
    assert log.stat().st_size - before < 8000


def test_a_commit_is_durable_and_exclusive(store: SqliteStore) -> None:
    """What no test here can see happen: only a power cut shows that a commit was not waited for."""
    asked = ("journal_mode", "synchronous", "locking_mode", "foreign_keys", "mmap_size")
    answers = {name: raw(store._connection).execute(f"PRAGMA {name}").fetchone() for name in asked}
    assert answers == {
        "journal_mode": ("wal",),
        "synchronous": (2,),
        "locking_mode": ("exclusive",),
        "foreign_keys": (1,),
        "mmap_size": (0,),
    }
    assert not (store._directory / "database.sqlite-shm").exists()


def test_a_target_of_ten_services_costs_few_bytes(store: SqliteStore) -> None:
    """Accepted, told, applied, told, forgotten: with all commits and files (the figure is 60 kB for all of it)."""
    services = {
        f"service{n}": {"image": f"registry.example/team/service:{n}", "ports": [f"80{n}:80"]} for n in range(10)
    }
    body = json.dumps({"apps": {"web": {"services": services}}}).encode().ljust(4000)
    target = Target("fleet", Version(1, 1), "sha256:1", "r", None, None, False, {"web": {"services": services}}, body)
    ack = b"a" * 400
    before = written("wchar")
    with store.transaction() as rows:
        rows.put_target(AcceptedTarget(target, NOW, frozenset({"web"})))
        rows.queue("ack", lambda _: ack)
    with store.transaction() as rows:
        rows.queue("ack", lambda _: ack)
    with store.transaction() as rows:
        rows.put_app(AppRecord("web", "sha256:" + "b" * 64, dict.fromkeys(services, "c" * 64), "r", "q"))
        rows.put_target(AcceptedTarget(target, NOW, ended="applied"))
        rows.queue("ack", lambda _: ack)
        rows.queue("ack", lambda _: ack, terminal=True)
    store.remember_good((target,))
    with store.transaction() as rows:
        for message in store.outbox(0, 100):
            rows.unqueue(message.seq)
    assert written("wchar") - before < 24_000


def test_a_start_of_a_sound_store_writes_nothing_to_its_database(tmp_path: Path) -> None:
    store = open_store(tmp_path, At())
    put(store, accepted(42))
    store.close()
    before = written()
    open_store(tmp_path, At()).close()
    assert written() == before


def full_by_page_count(store: SqliteStore) -> Callable[[], None]:
    connection = raw(store._connection)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: connection.execute("PRAGMA max_page_count = 1000000") and None


def test_a_full_disk_undoes_the_commit_and_passes(store: SqliteStore) -> None:
    put(store, accepted(42))
    before, counts = store.load(), store.outbox_counts()
    free = full_by_page_count(store)
    for _ in range(2):
        with pytest.raises(StoreFull):
            put(store, accepted(43, raw_size=50_000))
        assert (store.load(), store.outbox_counts()) == (before, counts)
    put(store, accepted(44))  # what fits is taken
    free()
    put(store, accepted(45, raw_size=50_000))
    assert revision(store) == 45


def test_a_swallowed_failure_does_not_commit_the_rest(store: SqliteStore) -> None:
    """SQLite has undone the first half; a second half alone would be half a target."""
    full_by_page_count(store)

    def swallowing() -> None:
        with store.transaction() as rows:
            with pytest.raises(StoreFull):
                rows.put_target(accepted(43, raw_size=50_000))
            with pytest.raises(StoreFull):
                rows.put_app(AppRecord("web", "sha256:aa", {}))

    with pytest.raises(StoreFull):
        swallowing()
    assert store.load().apps == {}


def test_a_failed_write_ends_the_store(store: SqliteStore) -> None:
    put(store, accepted(42))
    size = (store._directory / "database.sqlite-wal").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 2000, limits[1]))
    try:
        with pytest.raises(StoreBroken, match="IOERR"):
            put(store, accepted(43, raw_size=50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with pytest.raises(StoreBroken):
        put(store, accepted(44))
    with pytest.raises(StoreBroken):
        store.load()
    store.close()
    again = open_store(store._directory, At())
    assert revision(again) == 42
    again.close()


def test_an_accepted_target_stays_accepted_when_only_the_floor_file_finds_no_space(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = sidecar.write

    def full(path: Path, kept: Kept) -> None:
        del kept
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    put(store, accepted(42))
    monkeypatch.setattr(sidecar, "write", full)
    put(store, accepted(43))
    with pytest.raises(StoreFull):
        store.remember_good((accepted(43).target,))
    monkeypatch.setattr(sidecar, "write", write)
    with store.transaction() as rows:
        rows.drop_app("gone")
    kept = sidecar.read(store._directory / "floor.json")
    assert kept is not None
    assert kept.floors["fleet"].version == Version(1, 43)


def test_a_failed_fsync_of_the_floor_file_ends_the_store(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing)
        with pytest.raises(StoreBroken):
            put(store, accepted(43))
    with pytest.raises(StoreBroken):
        store.load()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(StoreBroken, match="data"):
        open_store(tmp_path / "data", At())


@contextmanager
def small_disk(folder: Path) -> Iterator[Callable[[], None]]:
    """A tmpfs of 1 MiB; the function given fills it to the last byte."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")

    def fill() -> None:
        filler = folder / "filler"
        with filler.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(b"x" * 4096)
                except OSError:
                    return

    try:
        yield fill
    finally:
        # Lazily: a test that failed with its store open must not leave a mount behind.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_full_at_boot_still_gives_the_last_target(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as fill:
        folder = tmp_path / "disk" / "data"
        # Killed, not closed: the newest commits are in the log, and nothing can be moved out of it now.
        killed = "import os, sys; sys.path.insert(0, sys.argv[2]); from tests.unit import test_store_disk as here\n"
        killed += "from pathlib import Path; store = here.open_store(Path(sys.argv[1]), here.At())\n"
        killed += "here.put(store, here.accepted(42)); os._exit(0)"
        root = str(Path(__file__).parents[2])
        subprocess.run([sys.executable, "-c", killed, str(folder), root], check=True)
        fill()
        store = open_store(folder, At())
        try:
            assert store.load().recovered is None
            assert revision(store) == 42
            with pytest.raises(StoreFull):
                put(store, accepted(43, raw_size=20_000))
            assert revision(store) == 42
            (tmp_path / "disk" / "filler").unlink()
            put(store, accepted(44, raw_size=20_000))
            assert revision(store) == 44
        finally:
            store.close()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_start_finds_as_much_room_as_its_rehearsal_says_that_it_needs(tmp_path: Path, *, damaged: bool) -> None:
    with small_disk(tmp_path / "disk") as fill:
        folder, filler = tmp_path / "disk" / "data", tmp_path / "disk" / "filler"
        if damaged:
            store = open_store(folder, At())
            put(store, accepted(42))
            store.close()
            (folder / "database.sqlite").write_bytes(b"damaged" * 1000)
        fill()
        with rehearsed(folder, At()) as found:
            assert not found.finds_room
        os.truncate(filler, filler.stat().st_size - found.needs + 4096)
        with rehearsed(folder, At()) as short:
            assert not short.finds_room
        with pytest.raises(StoreFull):
            open_store(folder, At())
        os.truncate(filler, 0)
        fill()
        os.truncate(filler, filler.stat().st_size - found.needs)
        with rehearsed(folder, At()) as enough:
            assert enough.finds_room
        open_store(folder, At()).close()


def test_a_disk_without_a_byte_takes_session_numbers_over_restarts(tmp_path: Path) -> None:
    """The database cannot even undo: its file for that has no room. What it has can still be read."""
    with small_disk(tmp_path / "disk") as fill:
        folder, filler = tmp_path / "disk" / "data", tmp_path / "disk" / "filler"
        store = open_store(folder, At())
        given = [store.reserve_sessions(64)]
        store.close()
        in_database = given[0] + 63
        for full in (True, True, False, True):
            if full:
                fill()
            store = open_store(folder, At())
            assert store._standing.counters["session"] == in_database
            given += [store.reserve_sessions(64) for _ in range(60)]  # what is left of a page takes a few commits
            in_database = store._standing.counters["session"]
            assert (in_database == given[-1] + 63) != full
            store.close()
            filler.unlink(missing_ok=True)
        assert given == [given[0] + 64 * count for count in range(len(given))]


def test_a_full_disk_without_the_session_file_refuses_numbers_and_runs_on(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as fill:
        folder = tmp_path / "disk" / "data"
        store = open_store(folder, At())
        session = store.reserve_sessions(64)
        store.close()
        (folder / "session").unlink()
        fill()
        store = open_store(folder, At())
        with pytest.raises(StoreFull, match="session"):
            _ = [store.reserve_sessions(64) for _ in range(60)]
        assert store.last_session() >= session + 63
        assert store.load().recovered is None
        store.close()
        (tmp_path / "disk" / "filler").unlink()
        open_store(folder, At()).close()
        assert (folder / "session").exists()


@pytest.mark.parametrize(
    "content", [b"", b"9", b"0000001795548974 00000000\n", b"\xff" * 26, b"0" * 16 + b" ", b"x" * 100_000]
)
def test_a_session_file_that_is_not_as_it_was_written_is_made_anew(tmp_path: Path, content: bytes) -> None:
    store = open_store(tmp_path, At())
    session, sound = store.reserve_sessions(1), (tmp_path / "session").read_bytes()
    store.close()
    (tmp_path / "session").write_bytes(content)
    store = open_store(tmp_path, At())
    assert store.reserve_sessions(1) == session + 1
    assert store.load().recovered is None
    store.close()
    assert (tmp_path / "session").read_bytes() == sound


def test_a_failed_write_of_the_session_file_ends_the_store(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    def full(*_: object) -> None:
        raise StoreFull("database or disk is full")

    monkeypatch.setattr(store_rows, "put_counter", full)
    monkeypatch.setattr(os, "fdatasync", failing)
    with pytest.raises(StoreBroken):
        store.reserve_sessions(1)
    with pytest.raises(StoreBroken):
        store.load()


def test_a_lost_database_on_a_full_disk_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as fill:
        folder = tmp_path / "disk" / "data"
        store = open_store(folder, At())
        put(store, accepted(42))
        store.close()
        (folder / "database.sqlite").write_bytes(b"damaged" * 1000)
        fill()
        with pytest.raises((StoreFull, StoreBroken)):
            open_store(folder, At())
        (tmp_path / "disk" / "filler").unlink()
        store = open_store(folder, At())
        assert store.load().floors["fleet"].version == Version(1, 42)
        store.close()
