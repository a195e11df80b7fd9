"""Strategies that make room on a real engine, with a registry that goes away in between."""

import contextlib
from collections.abc import Iterator

import docker
import pytest

from tests.e2e.device import Device, app, service
from tests.e2e.host import TEST_IMAGE
from tests.eventually import eventually
from tests.registry import Registry, registry


@pytest.fixture(scope="module")
def shop() -> Iterator[Registry]:
    with registry() as opened:
        yield opened


@pytest.fixture
def images(device: Device, shop: Registry) -> Iterator[tuple[str, str]]:
    """Two that are in the registry, and not here."""
    pushed = tuple(shop.push(device.host.api, f"{TEST_IMAGE}:{version}")[0] for version in (1, 2))
    try:
        yield pushed[0], pushed[1]
    finally:
        device.kill()
        device.host.sweep(device.label)
        for image in pushed:
            with contextlib.suppress(docker.errors.ImageNotFound):
                device.host.api.remove_image(image)


def test_what_was_stopped_for_an_image_must_run_again_while_it_cannot_be_had(
    device: Device, shop: Registry, images: tuple[str, str]
) -> None:
    keys = {"x-update": {"strategy": "stop-first"}}
    device.start()
    device.publish({"web": app(api=service(image=images[0], **keys))})
    before = device.identities()["web/api"]
    shop.stop()
    device.cloud.publish({"web": app(api=service(image=images[1], **keys))})
    eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that it fails")

    def again() -> bool:
        found = device.runs("web/api")
        return found is not None and found["Id"] == before[0] and found["State"]["StartedAt"] != before[1]

    eventually(again, 30, "it was stopped, and runs again")
    shop.start()
    device.converge(90)
    assert device.containers()["web/api"]["Config"]["Image"] == images[1]


def test_what_was_deleted_for_an_image_must_come_when_the_registry_does(
    device: Device, shop: Registry, images: tuple[str, str]
) -> None:
    keys = {"x-update": {"strategy": "delete-first"}}
    device.start()
    device.publish({"web": app(api=service(image=images[0], **keys), db=service())})
    db = device.identities()["web/db"]
    shop.stop()
    device.cloud.publish({"web": app(api=service(image=images[1], **keys), db=service())})
    eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that it fails")
    assert set(device.containers()) == {"web/db"}
    device.kill()
    device.start()
    shop.start()
    device.converge(90)
    assert device.containers()["web/api"]["Config"]["Image"] == images[1]
    assert device.identities()["web/db"] == db
