"""What a start waits for: it loads what its first pass needs, and looks at the engine meanwhile."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.model.errors import EngineAway
from device_agent.model.observed import Observed

LATER = (
    "alembic cronsim cryptography difflib docker paho requests rich sqlalchemy.orm tenacity tomllib typer urllib3"
    " zstandard device_agent.core.explain"
)
LOADED = f"""
import sys
from device_agent.__main__ import leave_out
leave_out()
from device_agent.cli import run, serve
print(sorted(name for name in {LATER.split()} if sys.modules.get(name)))
"""
WITHOUT_GUESSING = """
import io, sys
from device_agent.__main__ import leave_out
leave_out()
from device_agent.adapters import docker_actions
import requests
answer = requests.Response()
answer.raw = io.BytesIO("é".encode())
print(sys.modules["charset_normalizer"], answer.text == "é")
"""


def test_what_the_first_pass_does_not_need_is_loaded_by_whoever_needs_it_first() -> None:
    assert _said(LOADED) == "[]\n"


def test_requests_does_without_its_guesses_at_an_encoding_and_without_a_warning() -> None:
    assert _said(WITHOUT_GUESSING) == "None True\n"


def _said(program: str) -> str:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "error", "-c", program]
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def test_the_first_look_begins_before_anybody_asks_and_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[frozenset[str] | None] = []
    looked = threading.Event()

    def observe(_engine: DockerEngine, stale: frozenset[str] | None) -> Observed:
        looks.append(stale)
        looked.set()
        return Observed()

    monkeypatch.setattr(DockerEngine, "_observe", observe)
    engine = DockerEngine("unix:///nowhere", "f/d")
    engine.begin()
    assert looked.wait(5)
    engine.observe(frozenset())
    assert looks == [frozenset()]
    engine.observe(frozenset({"stale"}))
    assert looks == [frozenset(), frozenset({"stale"})]


def test_what_the_first_look_meets_is_raised_where_it_is_asked_for() -> None:
    engine = DockerEngine("unix:///nowhere/docker.sock", "f/d")
    engine.begin()
    with pytest.raises(EngineAway):
        engine.observe()
