"""Ten thousand targets at once: what is judged, what is done, and what is remembered of them."""

from tests.builders import app, payload, service
from tests.device import TOPICS, settled

COUNT = 10_000
REFUSED = 1_000


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
    assert len([told for told in device.told() if told.startswith("accepted")]) <= 3
    assert len(device.pubacked()) - acked == len(rows)
    assert not device.broker.unacknowledged
    assert not device.agent.intake._arrived


def test_a_burst_that_comes_ten_by_ten_must_be_few_changes() -> None:
    """As a real broker sends it: so many, and the next ones when these are acknowledged."""
    device = settled({"web": app(api=service("api:1"))})
    made: list[str] = []
    device.trouble = made.append
    last = 501
    for first in range(2, last, 10):
        for revision in range(first, min(first + 10, last)):
            apps = {"web": app(api=service("api:1", environment={"N": f"{revision}"}))}
            device.broker.arrive(TOPICS.fleet_target, payload(apps, revision=revision), retain=True)
        device.settle()
        assert len(device.broker.unacknowledged) < 10, "or no more would come"
    assert len([told for told in device.told() if told.startswith("accepted")]) <= 1 + 2
    device.wait(1.5)
    device.converge()
    assert device.state()["have"]["fleet"]["revision"] == last - 1
    assert made.count("create") <= 3
    assert not device.broker.unacknowledged
    assert not device.agent.intake._waiting


def test_what_waits_must_be_sent_again_when_the_connection_breaks() -> None:
    device = settled({"web": app(api=service("api:1"))})
    for revision in (2, 3, 4):
        apps = {"web": app(api=service("api:1", environment={"N": f"{revision}"}))}
        device.broker.arrive(TOPICS.fleet_target, payload(apps, revision=revision), retain=True)
        device.settle()
    assert device.state()["have"]["fleet"]["revision"] < 4
    assert len(device.broker.unacknowledged) == 1
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
