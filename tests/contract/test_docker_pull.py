"""Real pulls by the real engine, from a registry on loopback."""

import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from docker.errors import APIError

from device_agent.model.errors import Cancelled, EngineError, Kind
from device_agent.model.image import normalise
from device_agent.ports import PullProgress
from tests.contract.engine_bench import DockerBench
from tests.contract.registry import Registry, registry
from tests.eventually import eventually

pytestmark = pytest.mark.docker


class Pulls:
    """A bench with a registry; takes its images away."""

    def __init__(self, bench: DockerBench, registry: Registry) -> None:
        self.bench = bench
        self.engine = bench.engine
        self.registry = registry
        self.name = f"{registry.host}/contract/{bench.id}"

    def pull(
        self, reference: str, cancel: threading.Event | None = None, platform: str | None = None
    ) -> list[PullProgress]:
        told: list[PullProgress] = []
        id_ = self.engine.pull(reference, platform, told.append, cancel or threading.Event())
        assert self.engine.observe().images[normalise(reference)] == id_
        return told

    def failure(self, reference: str, platform: str | None = None) -> tuple[str, Kind]:
        with pytest.raises(EngineError) as caught:
            self.pull(reference, platform=platform)
        return caught.value.code, caught.value.kind

    def close(self) -> None:
        for reference in self.engine.observe(None).images:
            if self.registry.host in reference:
                with suppress(APIError):
                    self.bench.docker.remove_image(reference)


@pytest.fixture
def pulls() -> Iterator[Pulls]:
    bench = DockerBench()
    try:
        with registry() as server:
            pulls = Pulls(bench, server)
            yield pulls
            pulls.close()
    finally:
        bench.close()


def test_a_tag_and_its_progress(pulls: Pulls) -> None:
    digest = pulls.registry.push("1")

    told = pulls.pull(f"{pulls.name}:1")

    images = pulls.engine.observe().images
    assert images[normalise(f"{pulls.name}:1")] == images[normalise(f"{pulls.name}@{digest}")]
    assert told[-1].total > 1 << 20
    assert told[-1].done == told[-1].total
    assert {p.image for p in told} == {f"{pulls.name}:1"}
    assert pulls.pull(f"{pulls.name}:1") == [], "nothing is left to download"


def test_a_digest(pulls: Pulls) -> None:
    digest = pulls.registry.push("1")

    pulls.pull(f"{pulls.name}:9@{digest}")

    assert normalise(f"{pulls.name}@{digest}") in pulls.engine.observe().images


def test_for_a_platform(pulls: Pulls) -> None:
    pulls.registry.push("1", "s390x")

    pulls.pull(f"{pulls.name}:1", platform="linux/s390x")

    assert pulls.failure(f"{pulls.name}:1", "linux/riscv64") == ("wrong_platform", Kind.TARGET)


def test_a_tag_that_has_moved(pulls: Pulls) -> None:
    pulls.registry.push("1")
    pulls.pull(f"{pulls.name}:1")
    before = pulls.engine.observe().images[normalise(f"{pulls.name}:1")]
    pulls.registry.push("1")

    with pulls.bench.listening() as events:
        pulls.engine.observe()
        pulls.pull(f"{pulls.name}:1")
        assert pulls.engine.observe().images[normalise(f"{pulls.name}:1")] != before
        eventually(lambda: any(e.kind == "image" and e.action == "pull" for e in events), 5, "the pull is told")


def test_what_a_moved_tag_was_on_is_removed_by_its_id(pulls: Pulls) -> None:
    pulls.registry.push("1")
    pulls.pull(f"{pulls.name}:1")
    before = pulls.engine.observe().images[normalise(f"{pulls.name}:1")]
    pulls.registry.push("1")
    pulls.pull(f"{pulls.name}:1")
    assert before in pulls.engine.observe().images

    pulls.engine.remove_image(before)

    images = pulls.engine.observe().images
    assert before not in images
    assert normalise(f"{pulls.name}:1") in images


def test_an_image_that_does_not_exist(pulls: Pulls) -> None:
    assert pulls.failure(f"{pulls.name}:nope") == ("no_such_image", Kind.TARGET)
    assert pulls.failure(f"{pulls.name}@sha256:{'0' * 64}") == ("no_such_image", Kind.TARGET)


def test_credentials_that_are_missing(pulls: Pulls) -> None:
    pulls.registry.push("1")
    pulls.registry.wants_credentials = True

    assert pulls.failure(f"{pulls.name}:1") == ("registry_auth", Kind.OUTSIDE)


def test_a_registry_that_is_down(pulls: Pulls) -> None:
    assert pulls.failure("127.0.0.1:1/a:1") == ("registry_unreachable", Kind.TEMPORARY)


def test_giving_up_half_way(pulls: Pulls) -> None:
    pulls.registry.push("1")
    pulls.registry.stands_still = True
    cancel = threading.Event()
    ended: list[type[BaseException]] = []

    def pull() -> None:
        try:
            pulls.pull(f"{pulls.name}:1", cancel)
        except Cancelled as error:
            ended.append(type(error))

    thread = threading.Thread(target=pull)
    thread.start()
    assert pulls.registry.half_way.wait(10)
    cancel.set()
    thread.join(3)

    assert ended == [Cancelled]
    assert normalise(f"{pulls.name}:1") not in pulls.engine.observe().images


def test_a_registry_that_stands_still(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_agent.adapters.docker_pull.SILENCE_S", 1.0)
    pulls.registry.push("1")
    pulls.registry.stands_still = True

    assert pulls.failure(f"{pulls.name}:1") == ("pull_stalled", Kind.TEMPORARY)
