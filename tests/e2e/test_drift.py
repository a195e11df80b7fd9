"""What people do to containers behind the agent's back is put right; what crashes is told."""

from collections.abc import Callable

import pytest

from tests.e2e.device import Device, Stranger, app, service
from tests.e2e.host import Host
from tests.eventually import eventually

REPAIRED_S = 20.0

BY_HAND: dict[str, Callable[[Host, str], None]] = {
    "rm-f": lambda host, container: host.api.remove_container(container, force=True),
    "stop": lambda host, container: host.api.stop(container, timeout=1),
    "kill": lambda host, container: host.api.kill(container),
    "pause": lambda host, container: host.api.pause(container),
    "rename": lambda host, container: host.api.rename(container, "e2e-renamed-by-hand"),
    "network-disconnect": lambda host, container: host.api.disconnect_container_from_network(
        container, next(iter(host.api.inspect_container(container)["NetworkSettings"]["Networks"]))
    ),
}


@pytest.fixture
def converged(device: Device) -> Device:
    device.start()
    device.publish({"web": app(api=service(), db=service())})
    return device


@pytest.mark.parametrize("change", BY_HAND.values(), ids=BY_HAND)
def test_what_is_done_to_a_container_by_hand_must_be_repaired(
    converged: Device, change: Callable[[Host, str], None]
) -> None:
    before = converged.identities()
    name = converged.container("web/api")["Name"]

    change(converged.host, before["web/api"][0])

    def repaired() -> bool:
        found = converged.runs("web/api")
        return bool(
            found
            and not found["State"]["Paused"]
            and found["Name"] == name
            and list(found["NetworkSettings"]["Networks"]) == [f"{converged.prefix}web_default"]
        )

    eventually(repaired, REPAIRED_S, "it is as it was")
    converged.converge()
    assert converged.identities()["web/db"] == before["web/db"]
    assert eventually(lambda: converged.events("drift"), REPAIRED_S, "the event drift")[0]["app"] == "web"


def test_a_removed_network_must_come_back_with_its_users(converged: Device) -> None:
    network = f"{converged.prefix}web_default"
    for container in converged.containers().values():
        converged.host.api.disconnect_container_from_network(container["Id"], network)
    converged.host.api.remove_network(network)

    def repaired() -> bool:
        found = [converged.runs(key) for key in ("web/api", "web/db")]
        return all(each and list(each["NetworkSettings"]["Networks"]) == [network] for each in found)

    eventually(repaired, REPAIRED_S, "both are on the network again")
    converged.converge()


def test_a_crash_loop_must_be_told_once_with_its_exit_code_and_last_words(device: Device, client: Stranger) -> None:
    crashing = service(command=["sh", "-c", "echo the last words; exit 7"])
    device.start()
    device.cloud.publish({"web": app(api=crashing), "log": app(sink=service())})

    (event,) = eventually(lambda: device.events("crash_loop"), 45, "the event crash_loop")
    assert (event["app"], event["service"], event["exit_code"]) == ("web", "api", 7)
    assert "the last words" in event["log"]
    # One bad app does not hold back another.
    device.cloud.wait_for_ack(device.id, verdict="applied", app="log", timeout=30)
    restarts = device.container("web/api")["RestartCount"]
    eventually(lambda: device.container("web/api")["RestartCount"] > restarts + 1, 60, "it crashes on")
    assert len(device.events("crash_loop")) == 1
    api = client.retained(device.up("state"))["apps"]["web"]["services"]["api"]
    assert api["status"] in {"restarting", "running", "starting"}
    assert api["exit_code"] in {7, None}
    assert "7" in api["reason"]["message"]
    assert "the last words" in api["reason"]["message"]
