"""The parts of the end-to-end tests: one broker and one engine for all of them, a fresh device for each.

Nothing may be left behind: the last thing that happens is a look at what carries this session's mark.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.broker import Mosquitto, mosquitto
from tests.e2e.device import Device, Stranger, stranger
from tests.e2e.host import DEFAULT_URL, MARK, TEST_IMAGE, Host, OwnEngine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "e2e":
            for marker in ("e2e", "docker", "broker"):
                item.add_marker(marker)


@pytest.fixture(scope="session")
def mark() -> str:
    """Every fleet's name begins with it, and what tests make by hand carries it."""
    return f"e2e-{secrets.token_hex(3)}"


@pytest.fixture(scope="session")
def host(mark: str) -> Iterator[Host]:
    """The machine's engine, which others use as well: it is never restarted."""
    host = Host(os.environ.get("DOCKER_HOST") or DEFAULT_URL, mark)
    yield host
    left = [
        *host.left(f"{MARK}={mark}"),
        *(name for name in host.left("device-agent.device") if mark in name),
        *(name for name in host.left("com.docker.compose.project") if mark in name),
    ]
    host.close()
    assert left == [], "the end-to-end tests left something behind"


@pytest.fixture(scope="session")
def broker(host: Host) -> Iterator[Mosquitto]:
    """Shared: every device has a fleet of its own. Who kills one takes one of his own."""
    with mosquitto() as broker:
        yield broker


@pytest.fixture
def client(broker: Mosquitto) -> Stranger:
    return stranger(broker)


@pytest.fixture
def device(broker: Mosquitto, host: Host) -> Iterator[Device]:
    with Device(broker, host) as device:
        yield device


@pytest.fixture
def make_device(broker: Mosquitto, host: Host) -> Iterator[Callable[..., Device]]:
    """Several of them, or with names that are not random."""
    with ExitStack() as stack:
        yield lambda **names: stack.enter_context(Device(broker, host, **names))


@pytest.fixture(scope="session")
def own_engine() -> Iterator[OwnEngine]:
    """An engine that may be stopped."""
    engine = OwnEngine()
    try:
        engine.start()
        engine.load(*(f"{TEST_IMAGE}:{version}" for version in (1, 2)))
        yield engine
    finally:
        engine.close()


@pytest.fixture
def own_host(own_engine: OwnEngine, mark: str) -> Iterator[Host]:
    host = Host(own_engine.url, mark)
    yield host
    host.close()


@pytest.fixture
def own_device(broker: Mosquitto, own_host: Host) -> Iterator[Device]:
    """A device on the engine that may be stopped."""
    with Device(broker, own_host) as device:
        yield device
