"""Ten thousand targets at once: what is judged, what is done, and what is remembered of them."""

import gzip
import tracemalloc
from itertools import pairwise

from device_agent.core.brake import ANSWER_S, CALM_S, MANY
from tests.builders import app, payload, service
from tests.device import TOPICS, Device, settled

COUNT = 10_000
REFUSED = 1_000
LARGE = 1_000


def numbered(revision: int) -> bytes:
    return payload({"web": app(api=service("api:1", environment={"N": f"{revision}"}))}, revision=revision)


def accepted(device: Device) -> list[str]:
    return [told.split()[1] for told in device.told() if told.startswith("accepted")]


def test_a_burst_of_targets_is_one_change_and_is_forgotten() -> None:
    device = settled({"web": app(api=service("api:1"))})
    rows = [payload({"web": app(api=service("api:1", environment={"N": f"{n}"}))}, revision=n) for n in range(2, COUNT)]
    before, acked = len(device.world.containers), len(device.pubacked())
    made: list[str] = []
    device.trouble = made.append
    for row in rows:
        device.broker.arrive(TOPICS.fleet_target, row, retain=True)
    device.converge()
    assert device.state()["have"]["fleet"]["revision"] == COUNT - 1
    assert len(device.world.containers) == before
    assert 1 <= made.count("create") <= 2, set(made)
    assert device.told().count(f"applied 1.{COUNT - 1}") == 1
    assert accepted(device) == ["1.1", f"1.{COUNT - 1}"]
    assert len(device.pubacked()) - acked == len(rows) + 1, "and what is retained, asked for after so many"
    assert not device.broker.unacknowledged
    assert not device.agent.intake._arrived


def test_a_flood_that_comes_ten_by_ten_is_two_changes() -> None:
    """As a real broker sends it: so many, and the next ones when these are acknowledged."""
    device = settled({"web": app(api=service("api:1"))})
    made: list[str] = []
    device.trouble = made.append
    last = 501
    for first in range(2, last, 10):
        for revision in range(first, min(first + 10, last)):
            device.broker.arrive(TOPICS.fleet_target, numbered(revision), retain=True)
        device.wait(0.125)
        assert len(device.broker.unacknowledged) < 10, "or no more would come"
        assert accepted(device) == ["1.1", "1.11"]
    device.converge()
    assert accepted(device) == ["1.1", "1.11", f"1.{last - 1}"]
    assert made.count("create") == 2
    assert not device.broker.unacknowledged
    assert not device.agent.intake._waiting


def test_targets_that_trickle_in_without_a_pause_are_judged_now_and_then() -> None:
    device = settled()
    for revision in range(2, 202):
        device.bring(numbered(revision))
        device.wait(0.5)
    assert accepted(device)[1] == "1.2"
    taken = [int(version.partition(".")[2]) for version in accepted(device)]
    assert [later - earlier for earlier, later in pairwise(taken)][1:] == [60, 60, 60]
    device.converge()
    assert accepted(device)[-1] == "1.201"


def test_a_target_of_each_scope_and_one_a_second_wait_for_nothing() -> None:
    device = settled()
    device.bring(numbered(2))
    device.publish({"db": app(db=service("db:1"))}, device="d1")
    assert accepted(device) == ["1.1", "1.2", "1.1"]
    device.wait(CALM_S)
    device.bring(numbered(3))
    assert accepted(device)[-1] == "1.3"
    assert "subscribe" not in device.fuse.calls


def test_of_a_flood_the_highest_good_one_is_taken() -> None:
    device = settled()
    for revision in range(2, 12):
        device.bring(numbered(revision))
    device.bring(payload({"web": {"services": 1}}, revision=12))
    device.wait(CALM_S)
    assert accepted(device) == ["1.1", "1.2", "1.11"]
    assert not device.broker.unacknowledged


def test_after_a_flood_the_broker_is_asked_for_what_it_may_have_dropped() -> None:
    device = settled()
    for revision in range(2, 2 + MANY + 1):
        device.bring(numbered(revision))
    device.broker.retained[TOPICS.fleet_target] = numbered(100)
    device.converge()
    assert device.fuse.calls.count("subscribe") == 1
    assert accepted(device) == ["1.1", "1.2", "1.100"]
    assert not device.broker.unacknowledged


def test_where_the_broker_retains_nothing_the_last_of_a_flood_is_taken_all_the_same() -> None:
    device = settled()
    for revision in range(2, 2 + MANY + 1):
        device.bring(numbered(revision))
    device.broker.retained.clear()
    device.wait(CALM_S)
    assert accepted(device) == ["1.1", "1.2"]
    assert device.fuse.calls.count("subscribe") == 1
    device.wait(ANSWER_S)
    assert accepted(device) == ["1.1", "1.2", f"1.{MANY + 2}"]


def test_what_waits_must_be_sent_again_when_the_connection_breaks() -> None:
    device = settled({"web": app(api=service("api:1"))})
    for revision in (2, 3, 4):
        apps = {"web": app(api=service("api:1", environment={"N": f"{revision}"}))}
        device.broker.arrive(TOPICS.fleet_target, payload(apps, revision=revision), retain=True)
        device.settle()
    assert device.state()["have"]["fleet"]["revision"] < 4
    assert len(device.broker.unacknowledged) == 2
    device.broker.disconnect()
    device.settle()
    device.wait(2)
    assert device.state()["have"]["fleet"]["revision"] < 4, "what was not acknowledged is the broker's to send again"


def test_a_flood_of_what_is_refused_fills_nothing() -> None:
    device = settled()
    for number in range(REFUSED):
        device.broker.arrive(TOPICS.fleet_target, b"{%d" % number, retain=True)
    device.settle()
    assert not device.broker.unacknowledged
    assert not device.agent.intake._arrived
    assert device.store.outbox_counts().rows <= REFUSED
    assert device.agent.current.read().converged


def test_what_is_refused_and_comes_many_times_does_not_hide_what_there_is_to_fall_back_on() -> None:
    device = settled({"web": app(api=service("api:1"))})
    device.broker.disconnect()
    device.settle()
    good = payload({"web": app(api=service("api:2"))}, revision=2)
    bad = payload({"web": app(api=service("api:2", build="."))}, revision=10_000)
    for content in (good, *[bad] * 6):
        device.broker.arrive(TOPICS.fleet_target, content, retain=True)
    device.broker.connect()
    device.converge()
    assert device.told()[-1] == "applied 1.2"
    assert device.told().count("rejected 1.10000 unsupported") == 1
    assert not device.broker.unacknowledged


def test_ten_large_targets_that_wait_together_take_no_more_memory_than_one() -> None:
    """They are kept as they arrived: inflated, and as JSON, there is one at a time."""

    def arrive(*revisions: int) -> int:
        device = settled({"web": app(api=service("api:1"))})
        filler = {f"F{number}": "x" * 1000 for number in range(LARGE)}
        for revision in revisions:
            apps = {"web": app(api=service("api:1", environment=filler | {"N": f"{revision}"}))}
            row = gzip.compress(payload(apps, revision=revision), 1)
            device.broker.arrive(TOPICS.fleet_target, row, retain=True)
        tracemalloc.start()
        try:
            device.settle()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    one = arrive(2)
    assert one > 2 * LARGE * 1000
    assert arrive(*range(2, 12)) < 1.5 * one
