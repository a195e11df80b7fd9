"""What the programs under tests/faults are told on the command line."""

import argparse
from pathlib import Path

import pytest

from tests.arguments import count, duration, writable
from tests.faults.fault import Fault, matching


def a_fault(name: str, group: str) -> Fault:
    return Fault(
        name,
        group,
        lambda _: None,
        fast=False,
        within_s=1,
        fresh=False,
        sweep=False,
        own_engine=False,
        engine_disk="",
        ends=0,
        gap_s=1,
        root=False,
    )


KILL, CLOCK, FULL = FAULTS = (
    a_fault("kill -9 in an apply", "agent"),
    a_fault("clock jumps to +1h", "clock"),
    a_fault("ENOSPC in an apply", "store"),
)


def test_a_soak_lasts_for_seconds() -> None:
    assert duration("3600") == 3600
    assert duration("0.5") == 0.5


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "-inf", "", "an hour"])
def test_a_soak_without_a_beginning_or_an_end_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="seconds above 0"):
        duration(text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "", "many"])
def test_a_count_starts_at_one(text: str) -> None:
    assert count("1") == 1
    with pytest.raises(argparse.ArgumentTypeError, match="from 1 on"):
        count(text)


def test_a_file_that_can_be_written_is_not_made_yet(tmp_path: Path) -> None:
    path = tmp_path / "outcomes.json"
    assert writable(str(path)) == path
    assert not path.exists()
    path.touch()
    assert writable(str(path)) == path


@pytest.mark.parametrize("name", [".", "no-such-folder/outcomes.json", "file/outcomes.json"])
def test_a_file_that_cannot_be_written_is_refused_at_the_start(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(argparse.ArgumentTypeError):
        writable(str(tmp_path / name))


def test_words_choose_faults_by_name_or_group_in_any_case() -> None:
    assert matching([], FAULTS) == [KILL, CLOCK, FULL]
    assert matching(["apply"], FAULTS) == [KILL, FULL]
    assert matching(["CLOCK"], FAULTS) == [CLOCK]
    assert matching(["enospc", "Agent"], FAULTS) == [KILL, FULL]


@pytest.mark.parametrize("word", ["sore", "tore", "", " "])
def test_a_word_that_no_fault_has_is_named_also_beside_one_that_some_have(word: str) -> None:
    with pytest.raises(ValueError, match=f"no fault has {word!r} in"):
        matching(["apply", word], FAULTS)
