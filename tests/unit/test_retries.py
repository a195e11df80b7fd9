"""What fails again and again: it is tried for ever, and is not written for ever."""

from datetime import timedelta

import pytest

from device_agent.core.backoff import CAP_S
from device_agent.model.errors import EngineError, Kind
from device_agent.runtime.retries import ALIKE
from tests.builders import app, service
from tests.device import TOPICS, Device, settled

NETWORKED = {"web": app(api=service("api:1", networks=["default"]))}
ALONE = {"web": app(api=service("api:1"))}
WEB_NETWORK = ("web", "network default")


def leaving_a_network() -> Device:
    """Something that is not ours stays on it."""
    device = settled(NETWORKED, revision=1)

    def trouble(called: str) -> None:
        if called == "remove_network":
            raise EngineError("network_in_use", "it has active endpoints", Kind.OUTSIDE)

    device.trouble = trouble
    device.publish(ALONE, revision=2)
    device.converge()
    return device


def test_a_network_that_cannot_be_removed_holds_nothing_up_and_is_tried_again() -> None:
    device = leaving_a_network()
    assert device.told()[-1] == "applied 1.2"
    device.wait(1800)
    device.trouble = lambda _name: None
    device.wait(900)
    assert [network.name for network in device.world.networks.values() if network.labels] == []
    assert device.store.rows.attempts == {}


def test_what_is_tried_for_ever_is_neither_written_nor_told_for_ever() -> None:
    device = leaving_a_network()
    device.wait(3600)
    assert device.store.rows.attempts[WEB_NETWORK].count == ALIKE
    states = len(device.broker.on(TOPICS.state))
    device.fuse.reset()
    device.wait(4 * 3600)
    assert device.fuse.calls.count("remove_network") > 30
    assert device.fuse.calls.count("commit") == 0
    assert len(device.broker.on(TOPICS.state)) == states


def test_after_a_restart_it_waits_as_after_any_failure() -> None:
    device = leaving_a_network()
    device.wait(3600)
    device.cut_power()
    device.boot()
    assert "remove_network" not in device.fuse.calls
    device.wait(CAP_S)
    assert "remove_network" in device.fuse.calls
    device.fuse.reset()
    device.wait(3600)
    assert 5 < device.fuse.calls.count("remove_network") < 60
    assert device.agent.reconciler.retries.rows[WEB_NETWORK].count > ALIKE


def test_an_agent_that_is_started_again_and_again_tries_it_no_more_often() -> None:
    device = leaving_a_network()
    device.wait(3600)
    written = device.store.rows.attempts[WEB_NETWORK]
    tries = 0
    for _ in range(3 * 60):
        device.cut_power()
        device.boot()
        device.wait(20)
        tries += device.fuse.calls.count("remove_network")
    assert 3 < tries < 30, "one in 150 s on average, as without a restart"
    assert device.store.rows.attempts[WEB_NETWORK] == written


@pytest.mark.parametrize("jump", [timedelta(days=-20000), timedelta(days=-1), timedelta(days=1)])
def test_a_clock_that_is_wrong_at_a_start_neither_skips_the_wait_nor_makes_it_longer(jump: timedelta) -> None:
    device = leaving_a_network()
    device.wait(3600)
    device.cut_power()
    device.clock.time += jump
    device.boot()
    assert "remove_network" not in device.fuse.calls
    device.wait(CAP_S)
    assert "remove_network" in device.fuse.calls


def test_the_next_try_of_what_has_failed_less_often_is_kept() -> None:
    device = leaving_a_network()
    while device.store.rows.attempts[WEB_NETWORK].count < ALIKE - 1:
        device.wait(1)
    next_at = device.store.rows.attempts[WEB_NETWORK].next_at
    device.cut_power()
    device.boot()
    assert device.agent.reconciler.retries.rows[WEB_NETWORK].next_at == next_at
    device.cut_power()
    device.clock.pass_(CAP_S)
    device.boot()
    assert "remove_network" in device.fuse.calls, "its time has come while no agent ran"
