import json

import pytest

from cloud_sim.simulation.faults import CRASH, PULL, START
from cloud_sim.simulation.sharing import Shared
from tests.builders import payload
from tests.device import TOPICS
from tests.simulated_device import Simulated

WEB = {"web": {"services": {"api": {"image": "api:1"}}}}
NEXT = {"web": {"services": {"api": {"image": "api:2"}}}}


def settled() -> Simulated:
    device = Simulated().boot()
    device.bring(payload(WEB))
    device.wait(60)
    return device


def test_it_takes_a_target_and_runs_it():
    device = settled()
    assert device.told() == ["accepted", "applying web", "applied web", "applied"]
    state = device.state()
    assert (state["converged"], state["apps"]["web"]["services"]["api"]["status"]) == (True, "running")


def test_the_answer_goes_out_before_anything_else_is_done():
    device = Simulated().boot()
    device.wait(10)
    before = len(device.broker.sent)
    device.broker.arrive(TOPICS.fleet_target, payload(WEB), retain=True)
    while device.soon:
        device.soon.popleft()()
    assert [sent.topic for sent in device.broker.sent[before:]] == [TOPICS.ack]
    assert len(device.broker.acknowledged) == 1


def test_the_answer_goes_out_at_once_though_time_passes_meanwhile(monkeypatch: pytest.MonkeyPatch):
    device = Simulated().boot()
    device.wait(10)
    before = len(device.broker.sent)
    device.broker.arrive(TOPICS.fleet_target, payload(WEB), retain=True)

    def a_moment_later() -> float:
        device.clock.seconds += 1e-6
        return device.clock.seconds

    monkeypatch.setattr(device.clock, "monotonic", a_moment_later)
    while device.soon:
        device.soon.popleft()()
    assert [sent.topic for sent in device.broker.sent[before:]] == [TOPICS.ack]


def test_what_the_engine_takes_is_time():
    device = Simulated(latencies={PULL: 100.0}).boot()
    device.bring(payload(WEB))
    device.wait(40)
    assert device.state()["apps"]["web"]["phase"] == "pulling"
    device.wait(160)
    assert device.told()[-1] == "applied"


def test_devices_with_the_same_targets_share_what_they_want():
    shared = Shared()
    one, other = Simulated(shared).boot(), Simulated(shared).boot()
    for device in (one, other):
        device.wait(5)
        device.bring(payload(WEB))
    wanted = [device.device.agent.reconciler.wanted for device in (one, other)]
    assert wanted[0] is wanted[1]
    other.bring(payload(NEXT, device="d1"), device=True)
    assert other.device.agent.reconciler.wanted.apps["web"].scope == "device"
    assert one.device.agent.reconciler.wanted is wanted[0]


def test_a_refusal_is_shared_and_answered_by_each():
    shared = Shared()
    refused = payload({"web": {"services": {"api": {"build": "."}}}})
    for _ in range(3):
        device = Simulated(shared).boot()
        device.bring(refused)
        device.wait(5)
        assert device.told() == ["rejected unsupported"]
        assert device.acks()[0]["errors"][0]["pointer"] == "/apps/web/services/api/build"


def test_a_pull_that_fails_is_told_and_tried_again():
    device = Simulated(failures={PULL: 1.0}).boot()
    device.bring(payload(WEB))
    device.wait(60)
    assert device.told() == ["accepted", "applying web", "failed web registry_unreachable"]
    device.failures[PULL] = 0.0
    device.wait(600)
    assert device.told()[-1] == "applied"


def test_a_start_that_fails_is_told_and_tried_again():
    device = Simulated(failures={START: 1.0}).boot()
    device.bring(payload(WEB))
    device.wait(60)
    assert device.told()[-1] == "failed web port_in_use"
    device.failures[START] = 0.0
    device.wait(600)
    assert device.told()[-1] == "applied"


def test_a_release_that_crashes_is_rolled_back():
    device = settled()
    device.failures[CRASH] = 1.0
    device.bring(payload(NEXT, revision=2))
    device.wait(30)
    device.failures[CRASH] = 0.0
    device.wait(600)
    assert device.told()[4:] == [
        "accepted",
        "applying web",
        "failed web crash_loop",
        "rolled_back web",
        "rolled_back",
    ]
    assert device.state()["apps"]["web"]["services"]["api"]["image"] == "docker.io/library/api:1"


def test_it_says_farewell():
    device = settled()
    device.device.stop()
    device.settle()
    farewell = json.loads(device.broker.retained[TOPICS.session])
    assert (farewell["online"], farewell["reason"]) == (False, "stopped")
    assert device.device.agent.ending.finished


def test_at_rest_it_sends_nothing():
    device = settled()
    before = len(device.broker.sent)
    device.wait(3600)
    assert len(device.broker.sent) == before
