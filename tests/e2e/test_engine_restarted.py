"""Scenario 4, the engine: restarted under a running agent, in peace and in the middle of an apply."""

from collections.abc import Callable

import pytest

from tests.e2e.device import CONVERGE_S, Device, Stranger, app, service
from tests.e2e.host import OwnEngine
from tests.e2e.oracle import judge
from tests.eventually import eventually

WAYS: dict[str, Callable[[OwnEngine], None]] = {"terminated": OwnEngine.stop, "killed": OwnEngine.kill}


@pytest.mark.parametrize("end", WAYS.values(), ids=WAYS)
def test_an_engine_restarted_in_the_middle_of_an_apply_must_not_keep_it_from_converging(
    own_device: Device, own_engine: OwnEngine, client: Stranger, end: Callable[[OwnEngine], None]
) -> None:
    device = own_device
    # Without an init it takes all of its grace to stop: the engine goes while the old one is being stopped.
    slow = service(init=False, stop_grace_period="2s")
    device.start()
    device.publish({"web": app(api=slow, db=service()), "log": app(sink=service())})
    before = device.identities()
    apps = {"web": app(api={**slow, "environment": {"RELEASE": 2}}, db=service()), "log": app(sink=service(2))}
    published = device.cloud.publish(apps)
    device.until(lambda: "stop " in device.log(), 20, "the apply is in its middle")

    end(own_engine)
    own_engine.start()

    judge(device, client, published, apps)
    # What the target leaves as it is was stopped with the engine, and not made anew.
    assert device.identities()["web/db"][0] == before["web/db"][0]


def test_an_engine_that_is_away_must_be_told_and_nothing_be_concluded(
    own_device: Device, own_engine: OwnEngine, client: Stranger
) -> None:
    device = own_device
    apps = {"web": app(api=service(), db=service())}
    device.start()
    published = device.publish(apps)
    before = device.identities()

    own_engine.stop()
    try:
        told = eventually(
            lambda: (state := client.retained(device.up("state"))).get("engine", {}).get("status") == "away" and state,
            20,
            "the state says that the engine is away",
        )
        assert told["converged"] is False
        assert told["apps"].keys() == {"web"}
    finally:
        own_engine.start()

    device.until(lambda: device.status()["converged"], CONVERGE_S, "it has converged")
    judge(device, client, published, apps)
    assert {key: id_ for key, (id_, _) in device.identities().items()} == {key: id_ for key, (id_, _) in before.items()}
    # The event stream was taken up again.
    device.host.remove(before["web/api"][0])
    eventually(lambda: device.runs("web/api"), 20, "what is removed by hand comes back")
