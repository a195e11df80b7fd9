"""The port `Transport`: the fake, and the real adapter over Mosquitto and RabbitMQ, MQTT 5 and 3.1.1, pass one suite.

`test_transport_faults.py` is what only a real broker can do.
"""

from collections.abc import Iterator

import pytest

from device_agent.model.errors import Refused
from device_agent.ports import Connected, Disconnected, Published, Received
from tests.broker import OPEN, BrokerContainer, mosquitto
from tests.contract.transport_bench import Bench, FakeBench, RealBench
from tests.rabbitmq import rabbitmq

LIMIT = 20_000


@pytest.fixture(scope="module")
def mosquitto_broker() -> Iterator[BrokerContainer]:
    with mosquitto(f"{OPEN}max_packet_size {LIMIT}\n") as running:
        yield running


@pytest.fixture(scope="module")
def rabbitmq_broker() -> Iterator[BrokerContainer]:
    with rabbitmq(f"mqtt.max_packet_size_authenticated = {LIMIT}\n") as running:
        yield running


REAL = [(broker, version) for broker in ("mosquitto", "rabbitmq") for version in ("5", "3.1.1")]


@pytest.fixture(
    params=[None, *(pytest.param(real, marks=pytest.mark.broker) for real in REAL)],
    ids=["fake", *("-".join(real) for real in REAL)],
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench: Bench
    if request.param is None:
        bench = FakeBench()
    else:
        broker, version = request.param
        bench = RealBench(request.getfixturevalue(f"{broker}_broker"), version=version)
    try:
        yield bench
    finally:
        bench.close()


def test_a_broker_that_is_down_at_the_start_is_waited_for(bench: Bench) -> None:
    bench.start()
    down = bench.expect(Disconnected)
    assert down.code == "unreachable"
    assert down.retry_s > 0
    assert bench.transport.publish(bench.topics.state, b"{}", qos=1, retain=True) is None

    bench.up()

    assert bench.expect(Connected).session == 1


def test_every_connection_has_a_new_session_and_its_will(bench: Bench) -> None:
    bench.up()
    bench.start()
    assert bench.expect(Connected).session == 1

    bench.cut()
    lost = bench.expect(Disconnected)
    assert lost.code == "lost"
    assert bench.expect(Connected).session == 2
    bench.down()

    bench.eventually_retained(bench.topics.session, b"lost 2")


def test_what_is_retained_arrives_after_connected_each_time(bench: Bench) -> None:
    bench.publish(bench.topics.target, b"one", retain=True)
    bench.up()
    bench.start()
    bench.expect(Connected)
    first = bench.expect(Received)
    assert (first.topic, first.payload, first.retained) == (bench.topics.target, b"one", True)
    bench.transport.acknowledge(first.token)

    bench.cut()
    bench.expect(Connected)

    assert bench.expect(Received).payload == b"one"


def test_what_is_retained_arrives_once_more_when_it_is_subscribed_to_again(bench: Bench) -> None:
    bench.publish(bench.topics.target, b"one", retain=True)
    bench.publish(bench.topics.optional[0], b"not asked for", retain=True)
    bench.up()
    bench.start()
    bench.expect(Connected)
    for _ in range(2):
        bench.transport.acknowledge(bench.expect(Received).token)

    bench.transport.subscribe_again()
    again = bench.expect(Received)
    bench.transport.acknowledge(again.token)
    bench.publish(bench.topics.target, b"two")
    live = bench.expect(Received)
    bench.transport.acknowledge(live.token)
    bench.publish(bench.topics.other, b"three")

    assert (again.topic, again.payload, again.retained) == (bench.topics.target, b"one", True)
    # Nothing comes twice, and the connection stands.
    assert (live.payload, bench.expect(Received).payload) == (b"two", b"three")


def test_nothing_is_subscribed_to_again_without_a_connection(bench: Bench) -> None:
    bench.start()
    bench.expect(Disconnected)
    bench.transport.subscribe_again()
    bench.up()
    assert bench.expect(Connected).session == 1


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)
    bench.publish(bench.topics.target, b"kept")
    bench.publish(bench.topics.other, b"forgotten")
    kept, forgotten = bench.expect(Received), bench.expect(Received)
    assert (kept.payload, forgotten.payload) == (b"kept", b"forgotten")
    bench.transport.acknowledge(forgotten.token)
    bench.settle()

    bench.cut()
    bench.expect(Connected)

    again = bench.expect(Received)
    assert again.payload == b"kept"
    # The token of the old connection acknowledges nothing in this one.
    bench.transport.acknowledge(kept.token)
    bench.settle()
    bench.cut()
    bench.expect(Connected)
    last = bench.expect(Received)
    assert last.payload == b"kept"
    bench.transport.acknowledge(last.token)
    bench.settle()
    bench.cut()
    bench.expect(Connected)
    bench.publish(bench.topics.target, b"the only one")
    assert bench.expect(Received).payload == b"the only one"


def test_what_is_published_while_it_is_offline_arrives_later(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)
    bench.down()
    bench.expect(Disconnected)

    bench.publish(bench.topics.target, b"meanwhile")
    bench.up()

    bench.expect(Connected)
    assert bench.expect(Received).payload == b"meanwhile"


def test_a_published_message_is_acknowledged_by_its_handle(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)

    handles = [bench.transport.publish(bench.topics.state, b"%d" % number, qos=1, retain=True) for number in range(5)]
    assert None not in handles
    assert len(set(handles)) == len(handles)
    assert [bench.expect(Published) for _ in handles] == [Published(handle) for handle in handles if handle]
    bench.eventually_retained(bench.topics.state, b"4")


def test_qos_0_is_published_and_never_acknowledged(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)

    assert bench.transport.publish(bench.topics.state, b"progress", qos=0, retain=True) is not None
    handle = bench.transport.publish(bench.topics.other, b"event", qos=1, retain=False)

    assert bench.expect(Published).handle == handle
    bench.eventually_retained(bench.topics.state, b"progress")


def test_nothing_is_queued_while_offline(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)
    bench.down()
    bench.expect(Disconnected)

    assert bench.transport.publish(bench.topics.state, b"offline", qos=1, retain=True) is None
    assert bench.transport.publish(bench.topics.state, b"offline", qos=0, retain=True) is None
    bench.up()
    bench.expect(Connected)

    handle = bench.transport.publish(bench.topics.other, b"first", qos=1, retain=True)
    assert bench.expect(Published).handle == handle
    bench.eventually_retained(bench.topics.other, b"first")
    assert bench.retained(bench.topics.state) is None


def test_what_the_broker_never_takes_is_refused_and_the_connection_stays(bench: Bench) -> None:
    bench.up()
    bench.start()
    limit = bench.expect(Connected).maximum_packet_size
    if not bench.tells_limits:
        # MQTT 3.1.1 has no property to tell it in: what is left is the largest packet there can be.
        assert limit == 268_435_455

    with pytest.raises(Refused) as refused:
        bench.transport.publish(bench.topics.state, b"x" * limit, qos=1, retain=True)

    assert refused.value.code == "too_large"
    handle = bench.transport.publish(bench.topics.state, b"small", qos=1, retain=True)
    assert bench.expect(Published).handle == handle


def test_an_emptied_retained_message_arrives_empty(bench: Bench) -> None:
    bench.publish(bench.topics.target, b"one", retain=True)
    bench.up()
    bench.start()
    bench.transport.acknowledge(bench.expect(Received).token)

    bench.publish(bench.topics.target, b"", retain=True)

    assert bench.expect(Received).payload == b""


def test_a_stop_says_farewell_and_the_will_is_silent(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)

    bench.transport.stop((bench.topics.session, b"stopped 1"), 5)

    bench.eventually_retained(bench.topics.session, b"stopped 1")
    bench.settle()
    assert bench.retained(bench.topics.session) == b"stopped 1"
    assert bench.transport.publish(bench.topics.state, b"{}", qos=1, retain=True) is None
    assert not bench.thread_lives()


def test_a_stop_without_a_connection_returns(bench: Bench) -> None:
    bench.start()
    bench.expect(Disconnected)

    bench.transport.stop((bench.topics.session, b"stopped"), 5)

    assert bench.retained(bench.topics.session) is None
    assert not bench.thread_lives()


def test_correlation_data_and_a_response_topic_travel_where_the_protocol_has_them(bench: Bench) -> None:
    bench.up()
    bench.start()
    bench.expect(Connected)

    bench.publish(bench.topics.other, b"ask", response_topic=bench.topics.state, correlation=b"\x00\xff")
    asked = bench.expect(Received)

    mqtt_5 = bench.tells_limits
    assert asked.response_topic == (bench.topics.state if mqtt_5 else None)
    assert asked.correlation == (b"\x00\xff" if mqtt_5 else None)
    assert bench.transport.publish(bench.topics.state, b"yes", qos=1, retain=True, correlation=b"\x00\xff")
    bench.eventually_retained(bench.topics.state, b"yes")


def test_many_subscriptions_are_all_granted_before_connected(bench: Bench) -> None:
    bench.up()
    bench.start()
    assert bench.expect(Connected).refused == ()

    for topic in bench.topics.optional:
        bench.publish(topic, topic.encode())
        received = bench.expect(Received)
        assert received.payload == topic.encode()
        bench.transport.acknowledge(received.token)
