"""Scenario 6: only its own. Two agents on one engine, and strangers whose names look like the agent's own."""

from collections.abc import Callable
from typing import Any

from tests.broker import free_ports
from tests.e2e.device import Device, app, service
from tests.e2e.host import Host

Identities = dict[str, Any]


def everything(host: Host, mark: str) -> Identities:
    """What strangers have: containers with id and start time, networks with id and members, volumes."""
    label = f"device-agent-e2e={mark}"
    return {
        "containers": {each["Name"]: (each["Id"], each["State"]["StartedAt"]) for each in host.containers(label)},
        "networks": {each["Name"]: each["Id"] for each in host.networks(label)},
        "volumes": sorted(host.volumes(label)),
    }


def test_two_agents_on_one_engine_must_not_see_each_other(make_device: Callable[..., Device]) -> None:
    one = make_device()
    # The same fleet, so the same target; only the device's id and the names' prefix differ.
    two = make_device(fleet=one.fleet)
    one.start()
    two.start()
    one.publish({"web": app(api=service(1), db=service(1))})
    two.converge()
    assert one.identities().keys() == two.identities().keys() == {"web/api", "web/db"}
    of_two = two.identities()

    # One gets something else, and then nothing.
    one.cloud.publish({"web": {"x-extends": "fleet", "services": {"api": service(2)}}}, device=one.id)
    one.converge()
    assert two.identities() == of_two
    one.cloud.publish({"web": None}, device=one.id, allow_empty=True)
    one.converge()
    assert one.identities() == {}
    assert two.identities() == of_two

    # Nor do they when one of them starts, or is gone.
    assert one.stop() == 0
    one.start()
    one.converge()
    assert two.identities() == of_two
    assert list(two.status()["apps"]) == ["web"]
    assert one.status()["apps"] == {}


def test_strangers_with_confusable_names_must_stay_through_install_change_and_removal(
    device: Device, host: Host, mark: str
) -> None:
    prefix = device.prefix
    other = {
        "device-agent.device": f"{device.fleet}/somebody-else",
        "device-agent.app": "web",
        "device-agent.service": "api",
        "device-agent.spec": "sha256:0",
        "device-agent.revision": "fleet:1.1",
    }
    made = [
        # Named as the agent names its own, with no label at all.
        host.run(f"{prefix}web-api-abcdef"),
        host.run(f"{prefix}web-db"),
        # With labels that are nearly the agent's.
        host.run(f"{prefix}web-api-123456", labels=other),
        host.run(f"{prefix}web-old-000000", labels={"com.docker.compose.project": f"{mark}-web"}),
    ]
    networks = [
        host.make_network(f"{prefix}web_defaul"),
        host.make_network(f"{prefix}web_front", **{"device-agent.device": f"{device.fleet}/somebody-else"}),
    ]
    volumes = [host.make_volume(f"{prefix}web_dat"), host.make_volume(f"{prefix}web_data-old")]
    try:
        before = everything(host, mark)
        web = {**app(api=service(1, volumes=["data:/data"]), db=service(1)), "volumes": {"data": {}}}
        device.start()
        device.publish({"web": web})
        assert everything(host, mark) == before

        web["services"]["api"]["image"] = service(2)["image"]
        device.publish({"web": web})
        assert everything(host, mark) == before

        device.publish({}, allow_empty=True)
        assert device.identities() == {}
        assert everything(host, mark) == before
    finally:
        for container in made:
            host.remove(container)
        for network in networks:
            host.api.remove_network(network)
        for volume in volumes:
            host.api.remove_volume(volume)


def test_a_stranger_in_the_way_must_be_told_and_not_touched(device: Device, host: Host, mark: str) -> None:
    (port,) = free_ports(1)
    stranger = host.run(f"{mark}-stranger", ports=[80], port_bindings={80: ("127.0.0.1", port)})
    try:
        before = everything(host, mark)
        device.start()
        device.cloud.publish({"web": app(api=service(ports=[f"127.0.0.1:{port}:80"])), "log": app(sink=service())})
        failed = device.cloud.wait_for_ack(device.id, verdict="failed", app="web", timeout=30).body
        assert (failed["service"], failed["code"]) == ("api", "port_in_use")
        assert str(port) in str(failed["message"])
        # What it is not in the way of does not wait.
        device.cloud.wait_for_ack(device.id, verdict="applied", app="log", timeout=30)
        assert everything(host, mark) == before
    finally:
        host.remove(stranger)
    # The cause is gone: it converges by itself.
    device.converge()
    assert device.container("web/api")["State"]["Running"]


def test_a_strangers_network_of_the_same_name_must_be_told_and_not_used(device: Device, host: Host, mark: str) -> None:
    network = host.make_network(f"{device.prefix}web_default")
    try:
        before = everything(host, mark)
        device.start()
        device.cloud.publish({"web": app(api=service())})
        failed = device.cloud.wait_for_ack(device.id, verdict="failed", app="web", timeout=30).body
        assert f"{device.prefix}web_default" in str(failed["message"])
        assert everything(host, mark) == before
        assert device.identities() == {}
    finally:
        host.api.remove_network(network)
    device.converge(75)
    assert device.container("web/api")["State"]["Running"]


def test_a_second_agent_on_the_same_data_folder_must_exit_with_a_line_that_says_so(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    before = device.identities()

    second = device.cli("run", DEVICE_ID="second", CONTROL_SOCKET=str(device.folder / "second.sock"))

    assert second.returncode == 1
    (line,) = second.stderr.decode().splitlines()
    assert "another agent" in line
    assert str(device.data) in line
    assert device.status()["connected"] is True
    assert device.identities() == before
    assert device.status()["converged"] is True
