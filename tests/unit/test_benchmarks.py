"""What `make bench` is asked for and what it leaves, without measuring anything."""

import pytest

from benchmarks import __main__ as bench


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
