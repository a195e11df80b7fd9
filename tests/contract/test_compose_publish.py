"""Publishing with the real Compose of this machine: files and variables become content."""

from pathlib import Path

import pytest
import yaml

from cloud_sim.compose_file import find_compose, read_app
from cloud_sim.source import check

pytestmark = pytest.mark.docker

FILE = """
services:
  api:
    image: api
    configs: [one, {source: two, target: /etc/two, mode: 0440}]
    secrets: [key]
configs:
  one: {file: ./one.conf}
  two: {content: "for ${STAGE}: $$1"}
  unused: {file: ./one.conf}
secrets:
  key: {environment: KEY}
"""


def test_configs_and_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAGE", "test")
    (tmp_path / "one.conf").write_text("a: ${NOT_OURS} $$\n")
    (tmp_path / ".env").write_text("KEY=hush\n")
    (tmp_path / "compose.yaml").write_text(FILE)
    find_compose.cache_clear()
    assert find_compose() is not None, "no Compose here: scripts/compose installs one"

    found = read_app(tmp_path / "compose.yaml", yaml.safe_load(FILE), name="web").document

    assert {section: found[section] for section in ("configs", "secrets")} == {
        "configs": {"one": {"content": "a: ${NOT_OURS} $$\n"}, "two": {"content": "for test: $1"}},
        "secrets": {"key": {"content": "hush"}},
    }
    check({"web": found}, fleet=None)


def test_what_extends_another_file_and_has_files_of_variables(tmp_path: Path) -> None:
    (tmp_path / "common.yaml").write_text("services: {base: {image: base, volumes: ['./conf:/conf'], init: true}}\n")
    (tmp_path / "api.env").write_text("A=1\nB=x y\n")
    text = """
        services:
          api: {extends: {file: common.yaml, service: base}, env_file: [api.env], environment: [A=2]}
          db: {extends: {service: api}, image: db}
    """
    (tmp_path / "compose.yaml").write_text(text)
    find_compose.cache_clear()

    found = read_app(tmp_path / "compose.yaml", yaml.safe_load(text), name="web")

    api, db = found.document["services"]["api"], found.document["services"]["db"]
    assert (api["image"], db["image"], api["init"], db["init"]) == ("base", "db", True, True)
    assert api["environment"] == db["environment"] == {"A": "2", "B": "x y"}
    assert check({"web": found.document}, fleet=None) == ()
    assert any(f"{tmp_path}/conf is bound from the device" in warning for warning in found.warnings)
