"""SIGTERM: quickly, cleanly, told, and nothing that runs is touched."""

from tests.e2e.device import Device, Stranger, app, service
from tests.eventually import eventually


def test_sigterm_must_end_it_cleanly_and_leave_applications_running(device: Device, client: Stranger) -> None:
    device.start()
    device.publish({"web": app(api=service(), db=service())})
    before = device.identities()

    # `stop` waits as long as an engine would.
    assert device.stop() == 0

    session = client.retained(device.up("session"))
    assert (session["online"], session["reason"]) == (False, "stopped")
    assert device.identities() == before
    assert all(container["State"]["Running"] for container in device.containers().values())
    assert not (device.folder / "control.sock").exists()
    snapshot = device.snapshot()
    assert (snapshot.sound, snapshot.outbox) == ("ok", 0)

    device.start()
    device.converge()
    assert device.identities() == before


def test_sigterm_while_the_broker_is_away_must_end_it_as_well(device: Device) -> None:
    device.start_offline(MQTT_URL="mqtt://127.0.0.1:9")
    assert device.stop() == 0


def test_a_lost_agent_must_be_told_by_the_broker(device: Device, client: Stranger) -> None:
    # MQTT 3.1.1 has no Will Delay: the death is told at once.
    device.start(MQTT_VERSION="3.1.1")
    device.kill()
    lost = eventually(
        lambda: (told := client.retained(device.up("session")))["online"] is False and told, 10, "the Will"
    )
    assert (lost["reason"], lost["session"]) == ("lost", device.session)


def test_sigterm_must_not_wait_for_a_slow_stop_and_must_leave_the_replacement_running(
    device: Device, client: Stranger
) -> None:
    # Without an init, sleep is process 1 and ignores SIGTERM: the stop would take all of its grace.
    slow = service(init=False, stop_grace_period="60s")
    device.start()
    device.publish({"web": app(api=slow)})
    old = device.container("web/api")["Id"]
    device.cloud.publish({"web": app(api={**slow, "environment": {"A": "1"}})})
    device.until(lambda: "stop " in device.log(), 20, "the old container is being stopped")

    assert device.stop() == 0

    assert client.retained(device.up("session"))["reason"] == "stopped"
    (new,) = (each for each in device.host.containers(device.label) if each["Id"] != old)
    assert new["State"]["Running"]
    assert "A=1" in new["Config"]["Env"]
    device.start()
    device.converge()
    assert device.container("web/api")["Id"] == new["Id"]
