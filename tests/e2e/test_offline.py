"""Scenario 3: after a power cut, with no broker and no registry in reach, the last target runs from local images."""

import secrets
from collections.abc import Iterator

import pytest

from tests.broker import Mosquitto, free_ports, mosquitto
from tests.e2e.device import CONVERGE_S, Device, app, service
from tests.e2e.host import Host, OwnEngine
from tests.eventually import eventually

BACK_S = 30.0


@pytest.fixture
def mortal(host: Host) -> Iterator[Mosquitto]:
    with mosquitto() as broker:
        yield broker


def unreachable(host: Host) -> tuple[str, str]:
    """Two images by names of a registry that nobody runs."""
    (port,) = free_ports(1)
    names = [f"127.0.0.1:{port}/{host.mark}/{secrets.token_hex(3)}:{version}" for version in (1, 2)]
    for version, name in zip((1, 2), names, strict=True):
        host.tag(service(version)["image"], name)
    return names[0], names[1]


@pytest.mark.parametrize("ending", ["stopped", "killed"])
def test_a_removed_container_must_be_back_after_a_restart_without_a_network(
    mortal: Mosquitto, host: Host, ending: str
) -> None:
    image, other = unreachable(host)
    try:
        with Device(mortal, host) as device:
            device.start()
            device.publish({"web": app(api={**service(), "image": image}, db={**service(), "image": other})})
            before = device.identities()
            if ending == "stopped":
                assert device.stop() == 0
            else:
                device.kill()
            mortal.stop()
            host.remove(before["web/api"][0])

            device.start_offline()

            api = eventually(lambda: device.runs("web/api"), BACK_S, "the removed container is back")
            assert api["Config"]["Image"] == image
            assert device.identities()["web/db"] == before["web/db"]
            status = device.until(lambda: (told := device.status())["converged"] and told, BACK_S, "it has converged")
            assert status["connected"] is False
            # And what goes while it runs comes back as well.
            host.remove(device.identities()["web/db"][0])
            eventually(lambda: device.runs("web/db"), BACK_S, "db is back")
    finally:
        host.untag(image)
        host.untag(other)


def test_everything_must_be_back_after_the_machine_was_off(
    mortal: Mosquitto, own_engine: OwnEngine, own_host: Host
) -> None:
    image, other = unreachable(own_host)
    with Device(mortal, own_host) as device:
        device.start()
        web = {**app(api={**service(), "image": image}, db={**service(), "image": other}), "volumes": {"data": {}}}
        web["services"]["db"]["volumes"] = ["data:/data"]
        device.publish({"web": web})
        before = device.identities()

        # The power goes, with a container removed, and there is no broker any more.
        device.kill()
        mortal.stop()
        own_host.remove(before["web/api"][0])
        own_engine.kill()
        own_engine.start()
        device.start_offline()

        device.until(lambda: device.status()["converged"], CONVERGE_S, "it has converged")
        assert all(container["State"]["Running"] for container in device.containers().values())
        after = device.identities()
        assert after.keys() == before.keys()
        # What was only stopped is not made anew.
        assert after["web/db"][0] == before["web/db"][0]
        assert own_host.volumes(device.label) == [f"{device.prefix}web_data"]
    own_host.untag(image)
    own_host.untag(other)


def test_the_agent_must_start_before_the_engine_does(mortal: Mosquitto, own_engine: OwnEngine, own_host: Host) -> None:
    with Device(mortal, own_host) as device:
        device.start()
        device.publish({"web": app(api=service())})
        before = device.identities()
        assert device.stop() == 0
        mortal.stop()
        own_engine.stop()
        try:
            device.start_offline()
            status = device.status()
            assert status["converged"] is False
            assert status["engine"]["status"] == "away"
        finally:
            own_engine.start()
        device.until(lambda: device.status()["converged"], CONVERGE_S, "it has converged")
        assert device.identities()["web/api"][0] == before["web/api"][0]
