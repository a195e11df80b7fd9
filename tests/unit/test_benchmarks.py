"""What `make bench` is asked for and what it leaves, without measuring anything."""

from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks.rows import Row, draw


@pytest.fixture(autouse=True)
def nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a broker was started")

    monkeypatch.setattr(bench, "broker", start)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runs", "0"], "--runs: '0' is not a number from 1 on"),
        (["--runs", "-1"], "--runs: '-1' is not a number"),
        (["--devices", "0"], "--devices: '0' is not a number"),
        (["--idle", "0"], "--idle: '0' are no seconds"),
        (["--idle", "nan"], "--idle: 'nan' are no seconds"),
        (["--idle", "inf"], "--idle: 'inf' are no seconds"),
        (["nothing"], "there is no part nothing"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_started(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--json", "--markdown", "--png"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_started(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in (tmp_path, tmp_path / "nowhere" / "figures"):
        with pytest.raises(SystemExit) as ended:
            bench.main([option, str(file)])
        assert ended.value.code == 2
        assert f"{option}: '{file}' cannot be written" in capsys.readouterr().err


def test_a_picture_is_drawn_whatever_its_name_and_though_nothing_has_a_peer(tmp_path: Path) -> None:
    draw([Row("at rest: said", "messages", [0.0])], tmp_path / "figures")
    assert (tmp_path / "figures").read_bytes().startswith(b"\x89PNG")
