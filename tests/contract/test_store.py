"""What every store promises, held to by the real one and by the fake that other tests stand on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.store import Bounds, open_store
from device_agent.model.errors import Refused, StoreBroken, StoreFull
from device_agent.model.memory import (
    AcceptedTarget,
    AppRecord,
    Attempt,
    CommandRecord,
    Floor,
    Memory,
    Order,
    OutboxCounts,
    PulledImage,
)
from device_agent.model.target import Target, Version
from device_agent.ports import Store
from tests.fakes_store import FakeStore

NOW = datetime(2026, 11, 22, 10, 0, 0, 120_000, UTC)


@dataclass
class Hands:
    """A clock moved by hand."""

    time: datetime = NOW
    seconds: float = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.seconds


def no_room(*_: object) -> None:
    raise StoreFull("database or disk is full")


@dataclass
class Bench:
    """A place where a store lives. `restart` is the next agent on the same data."""

    kind: str
    folder: Path
    clock: Hands = field(default_factory=Hands)
    bounds: Bounds = field(default_factory=Bounds)
    current: Store | None = None

    def store(self, bounds: Bounds | None = None) -> Store:
        self.bounds = bounds or self.bounds
        size = self.bounds
        if self.kind == "fake":
            self.current = FakeStore(self.clock, max_rows=size.rows, max_size=size.size, max_age_s=size.age_s)
        else:
            self.current = open_store(self.folder / "data", self.clock, self.bounds)
        return self.current

    def restart(self) -> Store:
        assert self.current is not None
        self.current.close()
        if self.kind == "sqlite":
            self.current = open_store(self.folder / "data", self.clock, self.bounds)
        else:
            self.current.load()
        return self.current

    @contextmanager
    def full(self) -> Iterator[None]:
        """A disk on which no commit finds room."""
        if isinstance(self.current, FakeStore):
            self.current.full = True
            yield
            self.current.full = False
        else:
            with pytest.MonkeyPatch.context() as patched:
                patched.setattr("device_agent.adapters.store_rows.put_counter", no_room)
                yield

    def another(self) -> Store:
        """A store on a fresh volume."""
        if self.kind == "fake":
            return FakeStore(self.clock)
        return open_store(self.folder / "another", self.clock)


@pytest.fixture(params=["fake", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(request.param, tmp_path)
    yield made
    if made.current:
        made.current.close()


def target(scope: str = "fleet", revision: int = 42, **fields: Any) -> Target:
    given: dict[str, Any] = {
        "scope": scope,
        "version": Version(1, revision),
        "digest": f"sha256:{revision:064x}",
        "release": "2026.11.22-a",
        "issued_at": "2026-11-22T10:00:00Z",
        "expires_at": None,
        "allow_empty": False,
        "apps": {"web": {"services": {"api": {"image": "a/b:1", "cpus": 0.5, "environment": {"Z": "ä", "A": None}}}}},
        "raw": b'{"revision": %d}' % revision,
    }
    return Target(**(given | fields))


def accepted(scope: str = "fleet", revision: int = 42, **fields: Any) -> AcceptedTarget:
    return AcceptedTarget(target(scope, revision), NOW, **fields)


def attempt(app: str = "web", subject: str = "api", **fields: Any) -> Attempt:
    return replace(
        Attempt(app, subject, "spec", 3, "registry_unreachable", "why", NOW + timedelta(minutes=1)), **fields
    )


def put(store: Store, *targets: AcceptedTarget) -> None:
    with store.transaction() as rows:
        for one in targets:
            rows.put_target(one)


def queue(store: Store, *kinds: str, body: bytes = b"x") -> list[int]:
    """Queue `event`, `ack` or `end` (a terminal ack), each in a commit of its own."""
    numbers: list[int] = []

    def numbered(seq: int) -> bytes:
        numbers.append(seq)
        return body

    for kind in kinds:
        with store.transaction() as rows:
            rows.queue("event" if kind == "event" else "ack", numbered, terminal=kind == "end")
    return numbers


def waiting(store: Store) -> list[int]:
    return [message.seq for message in store.outbox(0, 100_000)]


def test_a_new_store_is_empty_and_says_nothing_of_recovery(bench: Bench) -> None:
    assert bench.store().load() == Memory()


def test_every_row_comes_back_as_it_was_put(bench: Bench) -> None:
    store = bench.store()
    raw = bytes(range(256)) * 40
    fleet = AcceptedTarget(target(raw=raw, content_type="application/zstd"), NOW, frozenset({"web", "db"}))
    device = AcceptedTarget(
        target("device", 7, release=None, issued_at=None, expires_at="2027-01-01T00:00:00Z", allow_empty=True,
               apps={"web": None, "b": {"x": [1, -2.5, True, {"y": None}]}}, fleet="plant7", device="d1"),
        NOW + timedelta(microseconds=1),
        ended="applied",
    )  # fmt: skip
    records = [
        AppRecord("web", "sha256:aa", {"b": "1", "a": "2"}, "r2", "r1", previous_images=("a:1", "b:1")),
        AppRecord("db", "sha256:bb", {}),
    ]
    pulled = [
        PulledImage("a/b:1", "", True, NOW),
        PulledImage("a/b:1", "sha256:cc", False, NOW, "linux/arm64", frozenset({"fleet:1.42", "device:1.7"})),
    ]
    tries = [attempt(), attempt("", "image a/b:1"), attempt("web", "network default", count=10**6, message="ä" * 2000)]
    orders = [Order("web", "db", "stop", "definition"), Order("web", "", "unlock", ""), Order("a", "ä", "start", "id@")]
    with store.transaction() as rows:
        for one in (fleet, device):
            rows.put_target(one)
        for record in records:
            rows.put_app(record)
        for one_try in tries:
            rows.put_attempt(one_try)
        for order in orders:
            rows.put_order(order)
        for image in pulled:
            rows.put_pulled(image)
    expected = Memory(
        targets={"fleet": fleet, "device": device},
        floors={
            "fleet": Floor(Version(1, 42), fleet.target.digest),
            "device": Floor(Version(1, 7), device.target.digest),
        },
        apps={record.app: record for record in records},
        attempts=tuple(sorted(tries, key=lambda one: (one.app, one.subject))),
        orders=tuple(sorted(orders, key=lambda one: (one.app, one.service))),
        pulled=tuple(pulled),
    )
    assert store.load() == expected
    assert bench.restart().load() == expected


def test_a_row_replaces_the_row_of_its_key(bench: Bench) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.put_target(accepted(awaited=frozenset({"web"})))
        rows.put_app(AppRecord("web", "sha256:aa", {"a": "1"}))
        rows.put_attempt(attempt(count=1))
        rows.put_order(Order("web", "api", "stop", "1"))
        rows.put_pulled(PulledImage("a:1", "sha256:cc", True, NOW))
    with store.transaction() as rows:
        rows.put_target(accepted(ended="applied"))
        rows.put_app(AppRecord("web", "sha256:bb", {"a": "2"}, "r", "q"))
        rows.put_attempt(attempt(count=2))
        rows.put_order(Order("web", "api", "restart", "2"))
        rows.put_pulled(PulledImage("a:1", "sha256:cc", False, NOW, "linux/arm64"))
    memory = bench.restart().load()
    assert memory.targets == {"fleet": accepted(ended="applied")}
    assert memory.apps == {"web": AppRecord("web", "sha256:bb", {"a": "2"}, "r", "q")}
    assert memory.attempts == (attempt(count=2),)
    assert memory.orders == (Order("web", "api", "restart", "2"),)
    assert memory.pulled == (PulledImage("a:1", "sha256:cc", False, NOW, "linux/arm64"),)


def test_a_later_target_replaces_the_one_of_its_scope(bench: Bench) -> None:
    store = bench.store()
    put(store, accepted(revision=42), accepted("device", 1))
    put(store, accepted(revision=43))
    memory = bench.restart().load()
    assert memory.targets == {"fleet": accepted(revision=43), "device": accepted("device", 1)}


def test_what_is_dropped_is_gone_and_may_be_dropped_again(bench: Bench) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.put_app(AppRecord("web", "sha256:aa", {}))
        rows.put_attempt(attempt())
        rows.put_attempt(attempt(subject="db"))
        rows.put_order(Order("web", "api", "stop", "1"))
        rows.put_order(Order("web", "db", "stop", "1"))
        rows.put_pulled(PulledImage("a:1", "", True, NOW))
        rows.put_pulled(PulledImage("a:1", "sha256:cc", True, NOW))
    for _ in range(2):
        with store.transaction() as rows:
            rows.drop_app("web")
            rows.drop_attempt("web", "api")
            rows.drop_order("web", "api")
            rows.drop_pulled("a:1", "")
    memory = bench.restart().load()
    assert memory.apps == {}
    assert memory.attempts == (attempt(subject="db"),)
    assert memory.orders == (Order("web", "db", "stop", "1"),)
    assert memory.pulled == (PulledImage("a:1", "sha256:cc", True, NOW),)


def test_a_transaction_is_all_or_nothing(bench: Bench) -> None:
    store = bench.store()
    put(store, accepted(revision=42))
    queue(store, "ack")
    before, counts, rows_before = store.load(), store.outbox_counts(), store.outbox(0, 10)

    def interrupted(cause: BaseException) -> None:
        with store.transaction() as rows:
            rows.put_target(accepted(revision=43))
            rows.put_app(AppRecord("web", "sha256:aa", {}))
            rows.queue("ack", lambda _: b"x")
            rows.queue("event", lambda _: b"x")
            rows.unqueue(rows_before[0].seq)
            raise cause

    for cause in (ValueError("the caller's own"), KeyboardInterrupt()):
        with pytest.raises(type(cause)):
            interrupted(cause)
    assert (store.load(), store.outbox_counts(), store.outbox(0, 10)) == (before, counts, rows_before)
    put(store, accepted(revision=43))
    assert bench.restart().load().targets["fleet"].target.version == Version(1, 43)


def test_reading_inside_a_transaction_sees_what_it_has_done(bench: Bench) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.queue("ack", lambda _: b"x")
        assert len(store.outbox(0, 10)) == 1
        assert store.outbox_counts().rows == 1


def test_transactions_do_not_nest_and_end_with_their_block(bench: Bench) -> None:
    store = bench.store()
    with store.transaction() as rows, pytest.raises(RuntimeError), store.transaction():
        pass
    with pytest.raises(RuntimeError):
        rows.drop_app("web")


def test_the_floor_rises_with_targets_and_labels_and_never_falls(bench: Bench) -> None:
    store = bench.store()
    label, low, high = Floor(Version(1, 50)), Floor(Version(1, 49), "sha256:low"), Floor(Version(2, 1), "sha256:high")
    put(store, accepted(revision=42))
    store.raise_floor("fleet", label)
    store.raise_floor("fleet", low)
    store.raise_floor("device", low)
    assert store.load().floors == {"fleet": label, "device": low}
    store.raise_floor("fleet", high)
    put(store, accepted(revision=60))
    assert bench.restart().load().floors == {"fleet": high, "device": low}


def test_an_equal_floor_learns_its_digest_and_does_not_forget_it(bench: Bench) -> None:
    store = bench.store()
    store.raise_floor("fleet", Floor(Version(1, 42)))
    put(store, accepted(revision=42))
    known = Floor(Version(1, 42), target().digest)
    assert store.load().floors == {"fleet": known}
    store.raise_floor("fleet", Floor(Version(1, 42)))
    assert bench.restart().load().floors == {"fleet": known}


def test_a_floor_that_no_cloud_could_exceed_is_none(bench: Bench) -> None:
    store = bench.store()
    store.raise_floor("fleet", Floor(Version(1, 10**30)))
    assert store.load().floors == {}


def test_the_outbox_gives_rows_in_order_after_a_number(bench: Bench) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.queue("ack", lambda seq: b"ack %d" % seq)
        rows.queue("event", lambda seq: b"event %d" % seq)
        rows.queue("ack", lambda seq: b"end %d" % seq, terminal=True)
    first, second, third = store.outbox(0, 10)
    assert [(one.kind, one.terminal) for one in (first, second, third)] == [
        ("ack", False), ("event", False), ("ack", True),
    ]  # fmt: skip
    assert third.body == b"end %d" % third.seq
    assert store.outbox(first.seq, 1) == (second,)
    assert store.outbox(third.seq, 10) == ()
    assert bench.restart().outbox(0, 10) == (first, second, third)
    assert bench.current is not None
    assert bench.current.outbox_counts() == OutboxCounts(3, 0)


def test_a_row_that_is_given_up_is_counted_once(bench: Bench) -> None:
    store = bench.store()
    (seq,) = queue(store, "ack")
    for _ in range(2):
        with store.transaction() as rows:
            rows.unqueue(seq, dropped=True)
    assert store.outbox_counts() == OutboxCounts(0, 1)
    assert bench.restart().load().outbox_dropped == 1


def test_numbers_strictly_increase_though_rows_are_deleted_and_agents_restart(bench: Bench) -> None:
    store = bench.store()
    given = queue(store, "ack", "event")
    for seq in given:
        with store.transaction() as rows:
            rows.unqueue(seq)
            rows.unqueue(seq)
    assert store.outbox_counts() == OutboxCounts(0, 0)
    given += queue(bench.restart(), "ack", "ack")
    assert given == sorted(set(given))
    assert given[-1] - given[0] == 3  # no gap that a cloud would take for a loss


def test_a_fresh_volume_counts_on_from_above_what_the_old_one_can_have_reached(bench: Bench) -> None:
    store = bench.store()
    (seq,) = queue(store, "ack")
    session = store.reserve_sessions(5)
    bench.clock.time += timedelta(days=1)
    fresh = bench.another()
    try:
        assert queue(fresh, "ack") > [seq]
        assert fresh.reserve_sessions(1) > session + 5
    finally:
        fresh.close()


def test_session_numbers_are_never_given_twice(bench: Bench) -> None:
    store = bench.store()
    first = store.reserve_sessions(10)
    second = store.reserve_sessions(1)
    again = bench.restart()
    third = again.reserve_sessions(10)
    assert second == first + 10
    assert third == second + 1
    assert again.last_session() == third + 9


def test_session_numbers_can_be_asked_for_from_above_another(bench: Bench) -> None:
    store = bench.store()
    first = store.reserve_sessions(1)
    assert store.reserve_sessions(5, first + 100) == first + 101
    assert store.reserve_sessions(5, first) == first + 106


def test_session_numbers_rise_over_a_full_disk(bench: Bench) -> None:
    store = bench.store()
    given = [store.reserve_sessions(10)]
    for full in (True, True, False, True, False):
        with bench.full() if full else nullcontext():
            for _ in range(2):
                store = bench.restart()
                assert store.last_session() >= given[-1]
                given += [store.reserve_sessions(10), store.reserve_sessions(10)]
                assert store.last_session() == given[-1] + 9
    steps = {after - before for before, after in pairwise(given)}
    assert steps == {10}  # none is skipped either: they must not get further ahead of the clock than they have to
    assert store.load().recovered is None


def test_what_is_committed_after_a_full_disk_is_no_sign_of_a_loss(bench: Bench) -> None:
    """The database does not have the newest session numbers yet when the files beside it are written."""
    store = bench.store()
    with bench.full():
        session = store.reserve_sessions(10)
    put(store, accepted(ended="applied"))
    store.remember_good((target(),))
    store = bench.restart()
    assert store.load().recovered is None
    assert store.reserve_sessions(1) == session + 10


@pytest.mark.parametrize(
    ("queued", "kept"),
    [
        ("ack event end event", "ack end event"),
        ("event event event event", "event event event"),
        ("ack end ack ack", "end ack ack"),
        ("end ack end end", "end end end"),
        ("end end end end", "end end end"),
        ("ack ack ack event", "ack ack ack"),
        ("end ack event ack event", "end ack ack"),
    ],
)
def test_a_full_outbox_drops_old_events_then_old_acks_and_terminal_acks_last(
    bench: Bench, queued: str, kept: str
) -> None:
    store = bench.store(Bounds(rows=3))
    queue(store, *queued.split())
    names = {("event", False): "event", ("ack", False): "ack", ("ack", True): "end"}
    left = store.outbox(0, 10)
    assert " ".join(names[one.kind, one.terminal] for one in left) == kept
    dropped = len(queued.split()) - len(kept.split())
    assert store.outbox_counts() == OutboxCounts(3, dropped)
    assert bench.restart().load().outbox_dropped == dropped
    assert left == store_rows(bench)


def store_rows(bench: Bench) -> object:
    assert bench.current is not None
    return bench.current.outbox(0, 10)


def test_of_equal_worth_the_oldest_go(bench: Bench) -> None:
    store = bench.store(Bounds(rows=2))
    given = queue(store, "event", "event", "event", "event")
    assert waiting(store) == given[-2:]


def test_the_outbox_is_bounded_by_bytes(bench: Bench) -> None:
    store = bench.store(Bounds(size=60))
    given = queue(store, "event", "end", "event", "ack", body=b"x" * 20)
    assert waiting(store) == given[1:]
    given += queue(store, "ack", body=b"x" * 40)
    assert waiting(store) == [given[1], given[4]]
    assert store.outbox_counts() == OutboxCounts(2, 3)


def test_a_row_larger_than_the_outbox_goes_at_once(bench: Bench) -> None:
    store = bench.store(Bounds(size=60))
    queue(store, "event", body=b"x" * 61)
    assert store.outbox_counts() == OutboxCounts(0, 1)


def test_what_has_waited_too_long_goes_when_something_is_queued(bench: Bench) -> None:
    store = bench.store(Bounds(age_s=3600))
    queue(store, "event", "end")
    bench.clock.seconds += 59 * 60
    young = queue(store, "ack")
    assert store.outbox_counts().rows == 3
    store = bench.restart()
    bench.clock.seconds += 2 * 60
    young += queue(store, "event")
    assert waiting(store) == young
    assert store.outbox_counts() == OutboxCounts(2, 2)


def test_a_wall_clock_that_jumps_must_not_make_a_row_old(bench: Bench) -> None:
    bench.clock.time -= timedelta(days=365 * 50)
    store = bench.store(Bounds(age_s=3600))
    given = queue(store, "event", "end")
    bench.clock.time += timedelta(days=365 * 60)
    given += queue(store, "ack")
    bench.clock.seconds = 0.0  # another boot of the machine
    store = bench.restart()
    given += queue(store, "ack")
    assert waiting(store) == given


def test_a_backup_restores_what_was_and_keeps_what_may_not_go_back(bench: Bench, tmp_path: Path) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.put_target(accepted(revision=42, ended="applied"))
        rows.put_target(accepted("device", 1))
        rows.put_app(AppRecord("web", "sha256:aa", {"a": "1"}))
        rows.put_attempt(attempt())
        rows.put_order(Order("web", "api", "stop", "1"))
    backed_up = store.load()
    store.backup(tmp_path / "backup")
    with store.transaction() as rows:
        rows.put_target(accepted(revision=43))
        rows.drop_app("web")
        rows.put_app(AppRecord("db", "sha256:bb", {}))
        rows.drop_attempt("web", "api")
        rows.put_attempt(attempt("db", "later"))
        rows.drop_order("web", "api")
        rows.put_order(Order("db", "later", "stop", "1"))
    given = queue(store, "ack")
    session = store.reserve_sessions(10)
    floor = Floor(Version(1, 43), target(revision=43).digest)
    expected = replace(backed_up, floors={**backed_up.floors, "fleet": floor})
    assert store.restore(tmp_path / "backup") == expected
    assert waiting(store) == given  # what was not told yet is still to be told
    assert queue(store, "ack") > given
    assert store.reserve_sessions(1) >= session + 10
    assert bench.restart().load() == expected


def test_a_backup_restores_onto_a_fresh_volume(bench: Bench, tmp_path: Path) -> None:
    store = bench.store()
    put(store, accepted(revision=42, ended="applied"))
    given = queue(store, "ack")
    backed_up = store.load()
    store.backup(tmp_path / "backup")
    bench.clock.time -= timedelta(days=3650)
    fresh = bench.another()
    try:
        assert fresh.restore(tmp_path / "backup") == backed_up
        assert fresh.load() == backed_up
        assert queue(fresh, "ack") > given
        put(fresh, accepted(revision=43))
    finally:
        fresh.close()


def test_a_backup_replaces_an_older_one(bench: Bench, tmp_path: Path) -> None:
    store = bench.store()
    put(store, accepted(revision=42))
    store.backup(tmp_path / "backup")
    put(store, accepted(revision=43))
    store.backup(tmp_path / "backup")
    assert store.restore(tmp_path / "backup").targets == {"fleet": accepted(revision=43)}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["backup"]


def cut_short(content: bytes) -> bytes:
    return content[: len(content) // 2]


def overwritten(content: bytes) -> bytes:
    """After the header, 64 bytes of every 512: what lies in unused space is no damage."""
    blocks = (content[at : at + 448] + b"\xa5" * 64 for at in range(512, len(content), 512))
    return content[:512] + b"".join(blocks)


@pytest.mark.parametrize("damage", [cut_short, overwritten, lambda _: b"", lambda _: b"no backup at all" * 100])
def test_an_unsound_backup_is_refused_and_changes_nothing(
    bench: Bench, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.put_target(accepted(revision=42))
        for number in range(20):
            rows.put_app(AppRecord(f"app{number}", "sha256:" + "a" * 64, {"service": "b" * 64}))
    store.backup(tmp_path / "backup")
    before = store.load()
    content = damage((tmp_path / "backup").read_bytes())
    (tmp_path / "backup").write_bytes(content)
    with pytest.raises(Refused) as refused:
        store.restore(tmp_path / "backup")
    assert refused.value.code == "invalid"
    assert store.load() == before
    assert (tmp_path / "backup").read_bytes() == content
    put(store, accepted(revision=43))
    assert bench.restart().load().targets == {"fleet": accepted(revision=43)}


def test_a_backup_that_cannot_be_read_or_written_is_refused(bench: Bench, tmp_path: Path) -> None:
    store = bench.store()
    nowhere = tmp_path / "nowhere" / "backup"
    for action in (store.backup, store.restore):
        with pytest.raises(Refused, match="nowhere"):
            action(nowhere)
    put(store, accepted())  # the store is none the worse


def test_a_closed_store_says_so(bench: Bench) -> None:
    store = bench.store()
    store.close()
    store.close()
    with pytest.raises(StoreBroken):
        store.outbox(0, 1)
    with pytest.raises(StoreBroken), store.transaction():
        pass


def command(id_: str = "c1", number: int = 1, **fields: Any) -> CommandRecord:
    given = CommandRecord(id_, number, "stop", "sha256:ab", NOW, "fleet/v1/plant7/reply/x", b"\x00\xff")
    return replace(given, **fields)


def test_commands_are_kept_in_the_order_of_their_numbers(bench: Bench) -> None:
    store = bench.store()
    signed = {"issued_at": NOW - timedelta(seconds=60), "expires_at": NOW + timedelta(milliseconds=1)}
    with store.transaction() as rows:
        rows.put_command(command("z", 1))
        rows.put_command(command("a", 2, correlation=None))
        rows.put_command(command("m", 3, received_at=NOW - timedelta(days=9000)))
    with store.transaction() as rows:
        rows.put_command(command("z", 1, answer=b"{}", **signed))
        rows.drop_command("a")
        rows.drop_command("never there")
    expected = (command("z", 1, answer=b"{}", **signed), command("m", 3, received_at=NOW - timedelta(days=9000)))
    assert store.load().commands == expected
    assert bench.restart().load().commands == expected


def test_a_restore_keeps_the_commands_that_came_here(bench: Bench, tmp_path: Path) -> None:
    store = bench.store()
    with store.transaction() as rows:
        rows.put_command(command("before", 1))
    store.backup(tmp_path / "backup")
    with store.transaction() as rows:
        rows.put_command(command("after", 2))
    assert [record.id for record in store.restore(tmp_path / "backup").commands] == ["before", "after"]


def test_a_restore_leaves_what_this_engine_has_pulled(bench: Bench, tmp_path: Path) -> None:
    store = bench.store()
    theirs, ours = (PulledImage(image, "sha256:cc", True, NOW) for image in ("a:1", "b:1"))
    with store.transaction() as rows:
        rows.put_pulled(theirs)
    store.backup(tmp_path / "backup")
    with store.transaction() as rows:
        rows.drop_pulled("a:1", "sha256:cc")
        rows.put_pulled(ours)
    assert store.restore(tmp_path / "backup").pulled == (ours,)
    assert bench.restart().load().pulled == (ours,)
