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
