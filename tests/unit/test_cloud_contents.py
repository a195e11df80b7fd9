"""Publishing configs and secrets: what is a file or a variable here is content there, whichever Compose there is."""

import json
from pathlib import Path

import pytest

from cloud_sim import compose_contents
from cloud_sim.compose_file import Compose, read_app
from cloud_sim.diff import diff
from cloud_sim.source import check
from device_agent.model.errors import Refused
from device_agent.model.target import Json

FILE: Json = {
    "services": {
        "api": {
            "image": "api",
            "configs": ["one", {"source": "two", "target": "/etc/two", "mode": 288}],
            "secrets": ["key"],
        }
    },
    "configs": {"one": {"file": "./one.conf"}, "two": {"content": "for ${STAGE}: $$1"}, "unused": {"file": "./gone"}},
    "secrets": {"key": {"environment": "KEY"}, "unused": {"environment": "GONE"}},
}
CONTENTS = {
    "configs": {"one": {"content": "a: ${NOT_OURS} $$\n"}, "two": {"content": "for test: $1"}},
    "secrets": {"key": {"content": "hush"}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "one.conf").write_text("a: ${NOT_OURS} $$\n")
    (tmp_path / "gone").write_text("")
    (tmp_path / ".env").write_text("KEY=hush\n")
    monkeypatch.setenv("STAGE", "test")
    return tmp_path


def published(folder: Path, monkeypatch: pytest.MonkeyPatch, compose: Compose | None, file: Json = FILE) -> Json:
    monkeypatch.setattr("cloud_sim.compose_file.find_compose", lambda: compose)
    (folder / "compose.yaml").write_text(json.dumps(file))
    found = read_app(folder / "compose.yaml", file, name="web").document
    check({"web": found}, fleet=None)
    return {section: found.get(section) for section in compose_contents.SECTIONS}


def test_without_compose(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert published(folder, monkeypatch, None) == CONTENTS


def test_with_a_compose_that_knows_no_content(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It prints what it was given, the paths of files made absolute."""
    script = tmp_path / "compose-1"
    script.write_text(f'#!/bin/sh\nexec sed -e \'s#"./#"{folder}/#g\' -e \'s#, "env_file": "one"##\' "$6"\n')
    script.chmod(0o755)
    needs = {**FILE, "services": {"api": {**FILE["services"]["api"], "env_file": "one"}}}
    assert published(folder, monkeypatch, Compose((str(script),), first=True), needs) == CONTENTS


def test_a_path_of_its_own_and_names_are_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = {
        "services": {"api": {"image": "api", "secrets": [{"source": "key"}]}},
        "secrets": {"key": {"file": str(folder / "one.conf"), "name": "web_key", "external": False}},
    }
    assert published(folder, monkeypatch, None, file)["secrets"] == {"key": CONTENTS["configs"]["one"]}


def test_everything_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "binary").write_bytes(b"\xff\xfe")
    file = {
        "services": {"api": {"image": "api", "configs": ["a", "b"], "secrets": ["c"]}},
        "configs": {"a": {"file": "./nowhere"}, "b": {"file": "binary"}},
        "secrets": {"c": {"environment": "NO_SUCH_VARIABLE"}},
    }
    with pytest.raises(Refused) as refused:
        published(folder, monkeypatch, None, file)
    assert [(problem.pointer, problem.message.rpartition("/")[2]) for problem in refused.value.problems] == [
        ("/configs/a", "nowhere: No such file or directory"),
        ("/configs/b", "binary is not text in UTF-8"),
        ("/secrets/c", "the variable NO_SUCH_VARIABLE is not set: set it in the environment or in .env"),
    ]


def test_what_is_external_is_the_agents_to_refuse(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = {"services": {"api": {"image": "a", "secrets": ["c"]}}, "secrets": {"c": {"external": True}}}
    with pytest.raises(Refused, match="not supported"):
        published(folder, monkeypatch, None, file)


def test_a_diff_does_not_show_it() -> None:
    old, new = ({"web": {"configs": {"one": {"content": content}}}} for content in ("hush", "hush2"))
    assert [str(change) for change in diff(old, new)] == ["~ web/configs/one/content: (hidden) → (hidden)"]
    assert "hush" not in str(diff({"web": {}}, new) + diff(old, {"web": {}}))
