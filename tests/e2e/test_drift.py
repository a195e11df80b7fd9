"""What people do to containers behind the agent's back is put right; what crashes is told."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from docker.api.client import APIClient
from docker.errors import APIError

from tests.broker import Mosquitto
from tests.e2e.device import Device, Stranger, app, service
from tests.e2e.host import TEST_IMAGE, Host
from tests.eventually import eventually

REPAIRED_S = 20.0
TOLD_S = 2.0
"""An event at the engine is acted on within a second; the rest is for the broker and a busy machine."""

BY_HAND: dict[str, Callable[[Host, str], None]] = {
    "rm-f": lambda host, container: host.api.remove_container(container, force=True),
    "stop": lambda host, container: host.api.stop(container, timeout=1),
    "kill": lambda host, container: host.api.kill(container),
    "network-disconnect": lambda host, container: host.api.disconnect_container_from_network(
        container, next(iter(host.api.inspect_container(container)["NetworkSettings"]["Networks"]))
    ),
}


@pytest.fixture(scope="module")
def shared(broker: Mosquitto, host: Host) -> Iterator[Device]:
    with Device(broker, host) as device:
        device.start()
        web = app(api=service(), db=service(volumes=["data:/data"]))
        device.publish({"web": web | {"volumes": {"data": {}}}})
        yield device


@pytest.fixture
def converged(shared: Device) -> Device:
    """One for all of them: each finds it as it should be."""
    shared.converge()
    return shared


@pytest.mark.parametrize("change", BY_HAND.values(), ids=BY_HAND)
def test_what_is_done_to_a_container_by_hand_must_be_repaired(
    converged: Device, change: Callable[[Host, str], None]
) -> None:
    before, known = converged.identities(), len(converged.events("drift"))
    name = converged.container("web/api")["Name"]

    change(converged.host, before["web/api"][0])

    def repaired() -> bool:
        found = converged.runs("web/api")
        return bool(
            found
            and found["Name"] == name
            and list(found["NetworkSettings"]["Networks"]) == [f"{converged.prefix}web_default"]
        )

    eventually(repaired, REPAIRED_S, "it is as it was")
    converged.converge()
    assert converged.identities()["web/db"] == before["web/db"]
    told = eventually(lambda: converged.events("drift")[known:], REPAIRED_S, "the event drift")
    assert told[0]["app"] == "web"


def test_a_paused_container_must_be_told_and_left_to_who_paused_it(converged: Device, client: Stranger) -> None:
    before, known = converged.identities(), len(converged.events("paused"))
    converged.host.api.pause(before["web/api"][0])

    def reason() -> dict[str, Any]:
        return client.retained(converged.up("state"))["apps"]["web"]["services"]["api"]["reason"] or {}

    eventually(lambda: reason().get("code") == "paused", REPAIRED_S, "the reason paused")
    assert converged.identities() == before
    (told,) = eventually(lambda: converged.events("paused")[known:], REPAIRED_S, "the event paused")
    assert (told["app"], told["service"]) == ("web", "api")
    converged.host.api.unpause(before["web/api"][0])
    converged.converge()
    assert converged.identities() == before


def test_a_renamed_container_must_run_on_and_get_its_name_back(converged: Device) -> None:
    before, known = converged.identities(), len(converged.events("drift"))
    name = converged.container("web/api")["Name"]
    converged.host.api.rename(before["web/api"][0], f"{converged.prefix}another-name")

    told = eventually(lambda: converged.events("drift")[known:], REPAIRED_S, "the event drift")
    assert (told[0]["service"], told[0]["message"]) == ("api", "it was renamed")
    eventually(lambda: converged.container("web/api")["Name"] == name, REPAIRED_S, "its name")
    converged.converge()
    assert converged.identities() == before


def test_a_container_must_keep_its_fixed_name_through_a_replacement(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service(container_name="one"))})
    device.converge()
    before = device.container("web/api")
    assert before["Name"] == f"/{device.prefix}one"

    device.publish({"web": app(api=service(2, container_name="one"))})
    device.converge()

    after = device.container("web/api")
    assert after["Name"] == f"/{device.prefix}one"
    assert after["Id"] != before["Id"]
    device.publish({"web": app(api=service(2, container_name="two"))})
    device.converge()
    renamed = device.container("web/api")
    assert (renamed["Name"], renamed["Id"]) == (f"/{device.prefix}two", after["Id"])
    assert renamed["State"]["StartedAt"] == after["State"]["StartedAt"]


def test_a_changed_limit_must_be_told_at_once_and_put_right(converged: Device) -> None:
    before, known = converged.identities(), len(converged.events("drift"))
    name = converged.container("web/api")["Name"]
    converged.host.api.update_container(before["web/api"][0], mem_limit=64 * 2**20, memswap_limit=64 * 2**20)

    told = eventually(lambda: converged.events("drift")[known:], TOLD_S, "the event drift")
    assert (told[0]["service"], told[0]["message"]) == ("api", "its memory limit was changed to 64 MiB")

    def repaired() -> bool:
        found = converged.runs("web/api")
        return bool(found and found["Name"] == name and not found["HostConfig"]["Memory"])

    eventually(repaired, REPAIRED_S, "it has no limit again")
    converged.converge()
    assert converged.identities()["web/db"] == before["web/db"]


def test_a_copy_made_by_hand_must_go(converged: Device) -> None:
    before, known = converged.identities(), len(converged.events("drift"))
    labels = converged.container("web/api")["Config"]["Labels"]
    copy = converged.host.api.create_container(
        f"{TEST_IMAGE}:1",
        name=f"{converged.prefix}copy",
        labels={name: value for name, value in labels.items() if not name.endswith(("image", "revision"))},
    )
    converged.host.api.start(copy)

    told = eventually(lambda: converged.events("drift")[known:], REPAIRED_S, "the event drift")
    assert told[0]["service"] == "api"
    eventually(
        lambda: copy["Id"] not in {c["Id"] for c in converged.host.containers(converged.label)},
        REPAIRED_S,
        "the copy is gone",
    )
    converged.converge()
    assert converged.identities() == before


def test_an_image_that_lost_its_tag_must_stop_nothing(device: Device) -> None:
    image = f"{TEST_IMAGE}-{device.id}:1"
    device.host.tag(f"{TEST_IMAGE}:1", image)
    device.start()
    device.publish({"web": app(api={**service(), "image": image})})
    device.converge()
    before = device.identities()
    device.host.untag(image)
    device.host.api.rename(before["web/api"][0], f"{device.prefix}seen")

    eventually(lambda: device.events("drift"), REPAIRED_S, "the agent has looked")
    device.converge()
    assert device.identities() == before


def test_a_removed_network_must_come_back_with_its_users(converged: Device) -> None:
    network = f"{converged.prefix}web_default"
    # Faster than the agent would be to connect them again.
    with converged.frozen():
        for container in converged.containers().values():
            converged.host.api.disconnect_container_from_network(container["Id"], network)
        converged.host.api.remove_network(network)

    def repaired() -> bool:
        found = [converged.runs(key) for key in ("web/api", "web/db")]
        return all(each and list(each["NetworkSettings"]["Networks"]) == [network] for each in found)

    eventually(repaired, REPAIRED_S, "both are on the network again")
    converged.converge()


def test_a_volume_removed_while_its_container_was_stopped_must_come_back_and_be_told(converged: Device) -> None:
    api, volume = converged.host.api, f"{converged.prefix}web_data"
    known = len(converged.events("volume_recreated"))
    with converged.frozen():
        db = converged.container("web/db")["Id"]
        assert not api.exec_inspect(_run(api, db, "touch /data/kept"))["ExitCode"]
        api.stop(db, timeout=1)
        with pytest.raises(APIError, match="volume is in use"):
            api.remove_volume(volume, force=True)
        api.remove_container(db)
        api.remove_volume(volume)

    (told,) = eventually(lambda: converged.events("volume_recreated")[known:], REPAIRED_S, "the event")
    assert (told["app"], told["volume"]) == ("web", volume)
    # The state that tells of it comes later than the event: the one that is retained may be of before.
    found = eventually(lambda: converged.runs("web/db"), REPAIRED_S, "it runs again")
    converged.converge()
    assert [mount["Name"] for mount in found["Mounts"]] == [volume]
    assert api.exec_inspect(_run(api, found["Id"], "test -e /data/kept"))["ExitCode"]


def _run(api: APIClient, container: str, script: str) -> str:
    id_: str = api.exec_create(container, ["sh", "-c", script])["Id"]
    api.exec_start(id_)
    return id_


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
    # The engine waits longer and longer between two tries: then the state has time to say so.

    def restarting() -> dict[str, Any] | None:
        api = client.retained(device.up("state"))["apps"]["web"]["services"]["api"]
        return api["reason"] if api["status"] == "restarting" else None

    reason = eventually(restarting, 30, "the state says that it is restarting")
    assert reason["code"] == "crash_loop"
    assert "exited with 7" in reason["message"]
    assert "the last words" in reason["message"]
