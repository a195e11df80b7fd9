"""What the programs under tests/faults are told on the command line."""

import argparse
from pathlib import Path

import pytest

from tests.faults.arguments import writable


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
