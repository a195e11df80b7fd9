"""How much a pull would fetch: the real registry's manifests, less what the real engine has."""

import base64
import json
import secrets
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import APIError

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.registry import Unknown, layers
from device_agent.adapters.registry_auth import Login, RegistryAuth
from tests.contract.engine_bench import DOCKER_URL, IMAGE, DockerBench
from tests.registry import PASSWORD, USER, Registry, registry

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def shop() -> Iterator[Registry]:
    with registry(login=True) as running:
        yield running


@pytest.fixture
def bench() -> Iterator[DockerBench]:
    bench = DockerBench()
    yield bench
    bench.close()


@pytest.fixture
def auth(shop: Registry, tmp_path: Path) -> RegistryAuth:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"auths": {shop.host: {"username": USER, "password": PASSWORD}}}), encoding="utf-8")
    return RegistryAuth(file)


def missing(image: str, auth: RegistryAuth, platform: str | None = None) -> int | None:
    engine = DockerEngine(DOCKER_URL, "contract/sizes", auth=auth)
    try:
        return engine.missing_bytes(image, platform)
    finally:
        engine.close()


def made(bench: DockerBench, base: str, size: int) -> str:
    """An image of the bench: the base, and a layer of its own with something that cannot be compressed."""
    name = bench.name(secrets.token_hex(4))
    container = bench.docker.create_container(base, ["dd", "if=/dev/urandom", "of=/more", "bs=1024", f"count={size}"])
    try:
        bench.docker.start(container)
        assert bench.docker.wait(container)["StatusCode"] == 0
        bench.docker.commit(container, name, "1")
    finally:
        bench.docker.remove_container(container, force=True)
    return f"{name}:1"


def test_what_is_here_is_not_missing_and_of_the_rest_only_the_layers_on_top(
    bench: DockerBench, shop: Registry, auth: RegistryAuth
) -> None:
    one = made(bench, f"{IMAGE}:1", 512)
    two = made(bench, one, 256)
    by_tag, by_digest = shop.push(bench.docker, two)
    assert missing(by_tag, auth) == 0
    assert missing(by_digest, auth) == 0

    bench.docker.remove_image(two)
    assert 256 * 1024 < (missing(by_tag, auth) or 0) < 300 * 1024
    assert missing(by_tag, auth) == missing(by_digest, auth)
    bench.docker.remove_image(one)
    assert 768 * 1024 < (missing(by_tag, auth) or 0) < 850 * 1024


def test_what_the_registry_does_not_tell(bench: DockerBench, shop: Registry, auth: RegistryAuth) -> None:
    image, _ = shop.push(bench.docker, f"{IMAGE}:1")
    with suppress(APIError):
        bench.docker.remove_image(image)
    assert missing(image, RegistryAuth()) is None, "it wants credentials"
    assert missing(f"{shop.host}/never/was:1", auth) is None
    assert missing("127.0.0.1:1/a:1", auth) is None


def test_what_is_no_registry_is_unknown(bench: DockerBench, shop: Registry) -> None:
    wrong = Login(USER, "canary-71d0")
    image, _ = shop.push(bench.docker, f"{IMAGE}:1")
    with pytest.raises(Unknown) as caught:
        layers(image, "linux/amd64", wrong)
    assert "401" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_of_an_index_the_one_for_the_platform(bench: DockerBench, shop: Registry) -> None:
    """What engines cannot push themselves here: a list of two platforms, put beside the image that it lists."""
    login = Login(USER, PASSWORD)
    image, by_digest = shop.push(bench.docker, f"{IMAGE}:1")
    plain = layers(image, "linux/amd64", login)
    digest = by_digest.partition("@")[2]
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    entry = {"mediaType": kind, "digest": digest, "size": _size(shop, image, digest)}
    body = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [{**entry, "platform": {"os": "linux", "architecture": "s390x"}}],
    }
    repository = image.partition("/")[2].rpartition(":")[0]
    _call(shop, f"{repository}/manifests/many", json.dumps(body).encode(), str(body["mediaType"]))
    many = f"{shop.host}/{repository}:many"

    assert layers(many, "linux/s390x", login) == plain
    with pytest.raises(Unknown, match="there is none for linux/amd64"):
        layers(many, "linux/amd64", login)


def _size(shop: Registry, image: str, digest: str) -> int:
    repository = image.partition("/")[2].rpartition(":")[0]
    return len(_call(shop, f"{repository}/manifests/{digest}"))


def _call(shop: Registry, path: str, body: bytes | None = None, kind: str = "") -> bytes:
    accept = "application/vnd.docker.distribution.manifest.v2+json"
    request = urllib.request.Request(f"http://{shop.host}/v2/{path}", body, method="PUT" if body else "GET")
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    for name, value in {"Accept": accept, "Authorization": basic, **({"Content-Type": kind} if kind else {})}.items():
        request.add_header(name, value)
    with urllib.request.urlopen(request, timeout=5) as answer:
        content: bytes = answer.read()
    return content
