"""What `make bench` is asked for and what it leaves, without measuring anything."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import docker
import pytest

from benchmarks import __main__ as bench
from benchmarks import world
from benchmarks.containers import NotStarted
from benchmarks.rows import Row, draw


@pytest.fixture
def _nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*_: object) -> None:
        raise AssertionError("a broker was started")

    monkeypatch.setattr(bench, "broker", start)


@pytest.mark.usefixtures("_nothing_is_started")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--runs", "0"], "--runs: '0' is not a number from 1 on"),
        (["--runs", "-1"], "--runs: '-1' is not a number"),
        (["--devices", "0"], "--devices: '0' is not a number"),
        (["--idle", "0"], "--idle: '0' is not a number of seconds"),
        (["--idle", "nan"], "--idle: 'nan' is not a number of seconds"),
        (["--idle", "inf"], "--idle: 'inf' is not a number of seconds"),
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


@pytest.mark.usefixtures("_nothing_is_started")
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


@pytest.mark.parametrize(
    ("docker", "said"),
    [
        (None, "a container engine and its command `docker` are needed"),
        ("echo 'docker: Cannot connect to the Docker daemon.' >&2; exit 125", "has failed: docker: Cannot connect"),
    ],
)
def test_without_an_engine_it_says_so_in_dockers_own_words(
    docker: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if docker is not None:
        (tmp_path / "docker").write_text(f"#!/bin/sh\n{docker}\n")
        (tmp_path / "docker").chmod(0o755)
    assert bench.main(["history"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


def test_an_engine_that_is_not_where_it_is_looked_for_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, **__: object) -> None:
        raise docker.errors.DockerException("No such file or directory")

    monkeypatch.setattr(docker, "APIClient", connect)
    with pytest.raises(NotStarted, match=r"no container engine answers at /var/run/docker\.sock: No such file"):
        world.engine()


@pytest.mark.parametrize(("ends", "left"), [(["history"], True), ([], False)])
def test_after_ctrl_c_the_parts_that_had_come_to_their_end_are_kept(
    ends: list[str], left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: bench.Bench) -> list[Row]:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "broker", lambda: nullcontext(1883))
    idle = SimpleNamespace(publish=lambda _: 0.0, converged=lambda: 0.0)
    monkeypatch.setattr(bench, "agent", lambda _: nullcontext(idle))
    monkeypatch.setitem(bench.PARTS, "history", lambda _: [Row("database after 1 revision", "ms", [1.5])])
    monkeypatch.setitem(bench.PARTS, "rest", interrupted)
    file = tmp_path / "figures.json"
    file.write_text("of an earlier run")
    assert bench.main([*ends, "rest", "--json", str(file)]) == 130
    shown = capsys.readouterr()
    assert "interrupted" in shown.err
    assert ("database after 1 revision" in shown.out, "database after 1 revision" in file.read_text()) == (left, left)
    assert (file.read_text() == "of an earlier run") != left
