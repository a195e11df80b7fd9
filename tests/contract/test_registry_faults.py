"""Pulls from a real registry through a proxy that breaks them: sorted, told, and once it is whole again, finished."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest
from docker.errors import APIError

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.model.errors import Cancelled, EngineError, Kind
from device_agent.model.image import normalise
from tests.contract.engine_bench import DOCKER_URL, IMAGE, DockerBench
from tests.eventually import eventually
from tests.registry import Registry, grown, registry
from tests.registry_proxy import Fault, RegistryProxy, registry_proxy

pytestmark = pytest.mark.docker

KIB = 1024
SIZES = (1024, 2048)
"""KiB of the image's own layers."""


@dataclass
class Shop:
    """An image with two layers of its own, of 1 and 2 MiB, behind the proxy, and not on the engine."""

    engine: DockerEngine
    proxy: RegistryProxy
    image: str

    def pull(self) -> None:
        self.engine.pull(self.image, None, lambda _: None, threading.Event())

    def refusal(self) -> EngineError:
        with pytest.raises(EngineError) as caught:
            self.pull()
        return caught.value

    def failure(self) -> tuple[str, Kind]:
        error = self.refusal()
        return error.code, error.kind


@pytest.fixture(scope="module")
def upstream() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.fixture
def shop(upstream: Registry) -> Iterator[Shop]:
    bench = DockerBench()
    engine = DockerEngine(DOCKER_URL, "contract/faults")
    try:
        with registry_proxy(upstream.host) as proxy:
            with grown(bench.docker, f"{IMAGE}:1", bench.name("made"), *SIZES) as made:
                name, _ = upstream.push(bench.docker, made)
            image = name.replace(upstream.host, proxy.host)
            yield Shop(engine, proxy, image)
            with suppress(APIError):
                bench.docker.remove_image(image)
    finally:
        engine.close()
        bench.close()


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(500), ("registry_unreachable", Kind.TEMPORARY)),
        (Fault(503), ("registry_unreachable", Kind.TEMPORARY)),
        (Fault(401), ("registry_auth", Kind.OUTSIDE)),
        (Fault(403), ("registry_auth", Kind.OUTSIDE)),
        (Fault(404), ("no_such_image", Kind.TARGET)),
        (Fault(429, (("Retry-After", "60"),)), ("registry_limited", Kind.OUTSIDE)),
    ],
    ids=lambda value: str(value.status) if isinstance(value, Fault) else "",
)
def test_what_a_registry_answers_is_told_and_once_it_is_whole_again_the_pull_ends_well(
    shop: Shop, fault: Fault, told: tuple[str, Kind]
) -> None:
    shop.proxy.fault = fault
    error = shop.refusal()
    assert (error.code, error.kind) == told
    assert error.wait_s == sum(int(seconds) for name, seconds in fault.headers if name == "Retry-After")
    assert shop.proxy.count.refused

    shop.proxy.heal()
    shop.pull()
    assert normalise(shop.image) in shop.engine.observe().images


def test_a_layer_that_is_cut_in_the_middle_is_gone_on_with(shop: Shop) -> None:
    """The engine asks for the rest of it by itself."""
    shop.proxy.fault = Fault(cut=True)
    thread = threading.Thread(target=shop.pull)
    thread.start()
    eventually(lambda: shop.proxy.count.blobs and shop.proxy.count.at_once == 0, 10, "it was cut")
    half = shop.proxy.passed()
    shop.proxy.heal()
    thread.join(60)

    assert not thread.is_alive()
    assert normalise(shop.image) in shop.engine.observe().images
    assert half < 2000 * KIB
    assert 3 * KIB * KIB < shop.proxy.passed() < 3 * KIB * KIB + 100 * KIB, "nothing twice, and nothing that was here"


def test_a_pull_that_was_given_up_can_be_made_again(shop: Shop) -> None:
    shop.proxy.pace_s = 0.05
    cancel = threading.Event()
    ended: list[str] = []

    def pull() -> None:
        try:
            shop.engine.pull(shop.image, None, lambda _: None, cancel)
        except Cancelled:
            ended.append("cancelled")

    thread = threading.Thread(target=pull)
    thread.start()
    eventually(lambda: shop.proxy.passed() > 1500 * KIB, 20, "half of it has arrived")
    cancel.set()
    thread.join(10)
    assert ended == ["cancelled"]

    shop.proxy.heal()
    shop.pull()
    assert shop.proxy.passed() < 6 * KIB * KIB + 200 * KIB, "each layer once more at the most"


def test_a_registry_that_is_slow_is_waited_for(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.adapters.docker_pull.SILENCE_S", 2.0)
    shop.proxy.pace_s = 0.1
    shop.pull()


def test_one_that_stands_still_is_given_up(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.adapters.docker_pull.SILENCE_S", 2.0)
    shop.proxy.fault = Fault(stall=True, larger_than=1500 * KIB)
    assert shop.failure() == ("pull_stalled", Kind.TEMPORARY)
    shop.proxy.over.set()
    shop.proxy.heal()
    monkeypatch.undo()
    shop.pull()
