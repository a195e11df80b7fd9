"""Credentials for a real registry that lets nobody in without them, through the real engine."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import APIError

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.registry_auth import RegistryAuth
from device_agent.model.errors import EngineError, Kind
from device_agent.model.image import normalise
from tests.contract.engine_bench import DOCKER_URL, IMAGE, DockerBench
from tests.registry import PASSWORD, USER, Registry, registry

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def shop() -> Iterator[Registry]:
    with registry(login=True) as running:
        yield running


@pytest.fixture
def image(shop: Registry) -> Iterator[str]:
    """In the registry, and not on the engine."""
    bench = DockerBench()
    name, _ = shop.push(bench.docker, f"{IMAGE}:1")
    try:
        yield name
    finally:
        with suppress(APIError):
            bench.docker.remove_image(name)
        bench.close()


def pull(image: str, path: Path | None) -> None:
    engine = DockerEngine(DOCKER_URL, "contract/login", auth=RegistryAuth(path))
    try:
        engine.pull(image, None, lambda _: None, threading.Event())
        assert normalise(image) in engine.observe().images
    finally:
        engine.close()


def failure(image: str, path: Path | None) -> str:
    with pytest.raises(EngineError) as caught:
        pull(image, path)
    assert (caught.value.code, caught.value.kind) == ("registry_auth", Kind.OUTSIDE)
    return caught.value.message


def written(file: Path, registry: str, entry: object) -> Path:
    file.write_text(json.dumps({"auths": {registry: entry}}), encoding="utf-8")
    return file


def test_user_and_password_let_in(shop: Registry, image: str, tmp_path: Path) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    pull(image, written(tmp_path / "config.json", f"http://{shop.host}/v2/", {"auth": auth}))


def test_rotated_credentials_need_no_restart(shop: Registry, image: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    engine = DockerEngine(DOCKER_URL, "contract/login", auth=RegistryAuth(tmp_path))
    try:
        written(file, shop.host, {"username": USER, "password": "of yesterday"})
        with pytest.raises(EngineError, match="DEVICE_AGENT_REGISTRY_AUTH"):
            engine.pull(image, None, lambda _: None, threading.Event())

        written(file, shop.host, {"username": USER, "password": PASSWORD})
        engine.pull(image, None, lambda _: None, threading.Event())
    finally:
        engine.close()


def test_none_at_all(shop: Registry, image: str) -> None:
    message = failure(image, None)

    assert f"{shop.host} wants credentials for {image}" in message
    assert "DEVICE_AGENT_REGISTRY_AUTH has none" in message


def test_wrong_ones(shop: Registry, image: str, tmp_path: Path) -> None:
    file = written(tmp_path / "config.json", shop.host, {"username": USER, "password": "canary-5f3a"})

    message = failure(image, file)

    assert f"{shop.host} refuses the credentials that DEVICE_AGENT_REGISTRY_AUTH has for it" in message
    assert "canary" not in message


def test_a_file_that_became_unreadable_is_the_reason(shop: Registry, image: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text("{", encoding="utf-8")

    assert failure(image, file) == f"DEVICE_AGENT_REGISTRY_AUTH: {file}: it is not JSON"
