from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_sim import database as module
from cloud_sim.connection import Misconfigured
from cloud_sim.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "new" / "cloud.sqlite", "host:1883/fleet/v1/plant7")
    yield database
    database.close()


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    Database(tmp_path / "cloud.sqlite", "x").close()
    assert (tmp_path / "cloud.sqlite").stat().st_mode & 0o777 == 0o600


def test_targets_are_kept_by_place(tmp_path: Path) -> None:
    file = tmp_path / "cloud.sqlite"
    for place, body in (("staging/plant7", b"1"), ("production/plant7", b"2")):
        database = Database(file, place)
        database.own(None, body)
        database.own("d1", b"own")
        database.own(None, body + body)
        database.close()
    database = Database(file, "staging/plant7")
    assert database.owned() == {None: b"11", "d1": b"own"}
    database.close()


def test_an_entry_sent_again_is_dropped_and_a_number_used_anew_is_not(database: Database) -> None:
    assert database.enter("d1", 1, "ack", "t", b'{"session":1}')
    assert not database.enter("d1", 1, "ack", "t", b'{"session":1}')
    assert database.enter("d2", 1, "ack", "t", b'{"session":1}')
    # A device that has lost its database counts from the start.
    assert database.enter("d1", 1, "ack", "t", b'{"session":9}')
    assert [(entry.device, entry.body["session"]) for entry in database.journal()] == [("d1", 1), ("d2", 1), ("d1", 9)]


def test_gaps_close_when_the_missing_arrive(database: Database) -> None:
    for seq in (3, 4, 8, 12):
        database.enter("d1", seq, "event", "t", b'{"n":%d}' % seq)
    database.enter("d2", 5, "event", "t", b"{}")
    assert database.gaps("d1") == ((5, 7), (9, 11))
    for seq in (5, 6, 7):
        database.enter("d1", seq, "event", "t", b'{"n":%d}' % seq)
    assert database.gaps("d1") == ((9, 11),)


def test_the_journal_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOURNAL_ROWS", 3)
    monkeypatch.setattr(module, "PRUNE_EVERY", 1)
    for seq in range(1, 7):
        database.enter("d1", seq, "ack", "t", b"{}")
    assert [entry.seq for entry in database.journal()] == [4, 5, 6]


def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    def fail() -> None:
        with database.transaction():
            database.own(None, b"1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert database.owned() == {}


def test_a_file_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder, and not a database, which would be at least this long")
    with pytest.raises(Misconfigured, match="cannot open the database"):
        Database(tmp_path / "file" / "cloud.sqlite", "x")
    with pytest.raises(Misconfigured, match="cannot open the database"):
        Database(tmp_path / "file", "x")
