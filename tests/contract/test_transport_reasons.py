"""What a broker says, with codes and properties that no real one can be brought to send, and what comes of it."""

import queue

import pytest

from device_agent.adapters.mqtt import MqttTransport, Pace
from device_agent.ports import Connected, Disconnected, Published, TransportEvent, Will
from tests.broker import free_ports
from tests.contract.scripted_broker import CONNACK, SUBACK, Scripted, connack, disconnect, reference
from tests.contract.transport_bench import ID, SESSION, TARGET, device
from tests.eventually import eventually

WILL = Will(SESSION, b"", 0)
SECOND_TRY = Pace(connect=0.5, first=0.05, longest=0.1)


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ((CONNACK, SUBACK + disconnect(0x8E)), "duplicate_identity", "Session taken over"),
        ((CONNACK, SUBACK + disconnect(0x8B)), "lost", "Server shutting down"),
        ((CONNACK, SUBACK + disconnect(0x97)), "refused", "Quota exceeded"),
        ((CONNACK, SUBACK + disconnect(0x9C)), "refused", "Use another server"),
        ((CONNACK, SUBACK + disconnect(0x9C, reference("other"))), "lost", "Use another server: other"),
        ((connack(0x85),), "refused", "Client identifier not valid"),
        ((connack(0x88),), "unreachable", "Server unavailable"),
        ((connack(0x89),), "unreachable", "Server busy"),
        ((connack(0x97),), "refused", "Quota exceeded"),
        ((connack(0x9A),), "refused", "Retain not supported"),
        ((connack(0x9B),), "refused", "QoS not supported"),
        ((connack(0x9D, reference("a/path")),), "refused", "Server moved: a/path"),
        ((connack(0x9F),), "unreachable", "Connection rate exceeded"),
        ((b"\xf0\x00",), "unreachable", "before"),
        ((b"",), "unreachable", "no answer"),
        ((CONNACK, b""), "unreachable", "no answer"),
    ],
)
def test_what_a_broker_says_becomes_a_code(answers: tuple[bytes, ...], code: str, words: str) -> None:
    with (
        Scripted(*answers) as broker,
        device(broker.settings(), pace=Pace(connect=0.5, first=30), subscriptions=(TARGET,)) as one,
    ):
        told = one.expect(Disconnected)
        assert (told.code, words in told.message) == (code, True), told


@pytest.mark.parametrize(
    ("version", "answers"),
    [("5", (CONNACK, b"\x90\x05\x00\x01\x00\x01\x87")), ("3.1.1", (b"\x20\x02\x00\x00", b"\x90\x04\x00\x01\x01\x80"))],
)
def test_a_refused_subscription_is_no_connection(version: str, answers: tuple[bytes, ...]) -> None:
    # Mosquitto's ACL files judge what is delivered and grant every subscription, so this needs another broker.
    with (
        Scripted(*answers) as broker,
        device(broker.settings(version), subscriptions=("allowed", TARGET)) as one,
    ):
        refused = one.expect(Disconnected)
        assert refused.code == "refused"
        assert TARGET in refused.message
        assert one.events.empty()
        assert one.transport.publish(SESSION, b"{}", qos=1, retain=True) is None


@pytest.mark.parametrize(
    ("version", "answers"),
    [("5", (CONNACK, b"\x90\x05\x00\x01\x00\x01\x87")), ("3.1.1", (b"\x20\x02\x00\x00", b"\x90\x04\x00\x01\x01\x80"))],
)
def test_an_optional_subscription_may_be_refused(version: str, answers: tuple[bytes, ...]) -> None:
    with (
        Scripted(*answers) as broker,
        device(broker.settings(version), subscriptions=(TARGET,), optional=("not allowed",)) as one,
    ):
        assert one.expect(Connected).refused == ("not allowed",)


def test_what_connect_announces() -> None:
    with Scripted(b"") as broker, device(broker.settings(), pace=Pace(connect=0.5, first=30)) as one:
        one.expect(Disconnected)
    packet = broker.heard[0]
    assert packet[0] == 0x10
    # Clean start false, Will retained with QoS 1.
    assert packet[packet.index(b"MQTT") + 5] == 0b00101100
    assert b"\x11" + (3600).to_bytes(4, "big") in packet
    assert b"\x27" + (2 * 1024 * 1024 + 65536).to_bytes(4, "big") in packet
    assert b"\x21\x00\x0a" in packet
    assert ID.encode() in packet


@pytest.mark.parametrize("said", [b"", connack(0x83)], ids=["nothing", "an error of its own"])
def test_a_broker_that_cannot_give_back_the_session_is_asked_for_a_new_one(said: bytes) -> None:
    # A RabbitMQ cluster that has lost the node with the session's queue.
    pace = Pace(connect=0.2, first=0.05, longest=0.1)
    with Scripted(said, times=2, again=(CONNACK, SUBACK)) as broker, device(broker.settings(), pace=pace) as one:
        told = [one.expect(Disconnected).message for _ in range(2)]
        one.expect(Connected)
    assert ["a new session is asked for" in message for message in told] == [False, True]
    clean_start = [bool(packet[packet.index(b"MQTT") + 5] & 0b10) for packet in broker.heard if packet[0] == 0x10]
    assert clean_start == [False, False, True]


@pytest.mark.parametrize("reason", [0x9C, 0x9D])
def test_another_server_is_gone_to(reason: int) -> None:
    with Scripted(CONNACK, SUBACK) as other:
        named = connack(reason, reference(f"127.0.0.1:{other.port} nowhere.invalid"))
        with Scripted(named) as broker, device(broker.settings(), pace=SECOND_TRY) as one:
            told = one.expect(Disconnected)
            assert told.code == "unreachable"
            assert str(other.port) in told.message
            assert one.expect(Connected).session == 2


def test_another_server_that_is_not_there_is_not_gone_to_for_ever() -> None:
    (nobody,) = free_ports(1)
    named = connack(0x9C, reference(f"127.0.0.1:{nobody}"))
    with Scripted(named, again=(CONNACK, SUBACK)) as broker, device(broker.settings(), pace=SECOND_TRY) as one:
        assert "Use another server" in one.expect(Disconnected).message
        assert str(nobody) in one.expect(Disconnected).message
        one.expect(Connected)


@pytest.mark.parametrize("reason", [0x89, 0x9F])
def test_a_busy_broker_is_left_alone_for_a_while(reason: int) -> None:
    with (
        Scripted(connack(reason)) as broker,
        device(broker.settings(), pace=Pace(connect=0.5, first=1, longest=60)) as one,
    ):
        assert 30 <= one.expect(Disconnected).retry_s <= 60


def test_what_is_granted_otherwise_is_told_in_words() -> None:
    keepalive, expiry, no_retain = b"\x13\x00\x1e", b"\x11\x00\x00\x00\x3c", b"\x25\x00"
    with Scripted(connack(0, keepalive + expiry + no_retain), SUBACK) as broker, device(broker.settings()) as one:
        remarks = one.expect(Connected).remarks
    assert [remark.partition(":")[0] for remark in remarks] == [
        "the broker sets the keep-alive to 30 s, not 60 s",
        "the broker keeps the session for 60 s, not 3600 s",
        "the broker retains nothing",
    ]


def test_a_keep_alive_that_is_turned_off_is_told() -> None:
    with Scripted(connack(0, b"\x13\x00\x00"), SUBACK) as broker, device(broker.settings()) as one:
        assert "turns the keep-alive off" in one.expect(Connected).remarks[0]


def test_the_keep_alive_that_the_broker_sets_is_the_one_that_counts() -> None:
    with (
        Scripted(connack(0, b"\x13\x00\x01"), SUBACK, b"") as broker,
        device(broker.settings(), pace=Pace(keepalive=60, first=30)) as one,
    ):
        one.expect(Connected)
        lost = one.expect(Disconnected, timeout=3)
        assert "silent for 1.5 s" in lost.message
        assert broker.heard[2] == b"\xc0\x00", "a ping came first"


def test_no_more_is_sent_than_the_broker_takes_at_once() -> None:
    puback = b"\x40\x02\x00\x02"
    with Scripted(connack(0, b"\x21\x00\x01"), SUBACK, b"", puback) as broker, device(broker.settings()) as one:
        assert one.expect(Connected).receive_maximum == 1
        first = one.transport.publish(SESSION, b"{}", qos=1, retain=True)
        eventually(lambda: len(broker.heard) == 3, 5, "the first is there, and not acknowledged yet")
        assert one.transport.publish(SESSION, b"{}", qos=1, retain=True) is None
        assert one.transport.publish(SESSION, b"{}", qos=0, retain=False) is not None
        assert one.expect(Published).handle == first
        assert one.transport.publish(SESSION, b"{}", qos=1, retain=True) is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_the_end_of_the_thread_is_told() -> None:
    told: queue.Queue[str] = queue.Queue()

    def deliver(_: TransportEvent) -> None:
        raise SystemExit("the end")

    with Scripted(CONNACK, SUBACK) as broker:
        transport = MqttTransport(broker.settings(), ID, pace=SECOND_TRY, died=told.put)
        transport.start(subscriptions=(TARGET,), will=lambda _: WILL, sessions=lambda: 1, deliver=deliver)
        assert "the end" in told.get(timeout=5)
        transport.stop(None, 1)
