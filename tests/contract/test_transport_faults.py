"""The MQTT adapter with a real Mosquitto that is killed, frozen, secured, and shared with a clone."""

import contextlib
import itertools
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device_agent.adapters.mqtt import Broker, MqttTransport, Pace, parse_url
from device_agent.ports import Connected, Disconnected, Published, Received, TransportEvent, Will
from tests.broker import OPEN, BrokerContainer, Cable, Mosquitto, Peer, mosquitto, password_line
from tests.certificates import Authority
from tests.contract.transport_bench import ID, QUICK, SESSION, TARGET, RealBench, device, next_event
from tests.eventually import eventually
from tests.rabbitmq import RabbitMQ, rabbitmq

pytestmark = pytest.mark.broker

VERSIONS = ("5", "3.1.1")
DURABLE = (
    OPEN + "persistence true\npersistence_location /mosquitto/data/\nautosave_on_changes true\nautosave_interval 1\n"
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Mosquitto]:
    with mosquitto() as running:
        yield running


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with rabbitmq() as running:
        yield running


def plain(broker: Mosquitto, version: Any = "5") -> Broker:
    return Broker(parse_url(broker.url), version=version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_broker_killed_and_started_again_is_found_again(version: str) -> None:
    with mosquitto(DURABLE) as broker, device(plain(broker, version)) as one:
        one.expect(Connected)
        with Peer(broker) as cloud:
            cloud.publish(TARGET, b"one", retain=True)
        assert one.expect(Received).payload == b"one"

        broker.kill()
        assert one.expect(Disconnected).code == "lost"
        assert one.expect(Disconnected).code == "unreachable"
        broker.start()

        # A try that reached only the port has taken a number, too.
        assert one.expect(Connected).session > 1
        with Peer(broker) as cloud:
            cloud.publish(TARGET, b"two", retain=True)
        eventually(lambda: one.expect(Received).payload == b"two", 10, "the new target")


def test_a_frozen_broker_is_noticed_by_the_keep_alive(shared: Mosquitto) -> None:
    pace = Pace(keepalive=2, first=0.05, longest=0.3, connect=1, stood=0.1)
    with device(plain(shared), pace=pace) as one:
        one.expect(Connected)
        shared.freeze()
        try:
            assert one.expect(Disconnected, timeout=6).code == "lost"
            assert one.expect(Disconnected, timeout=6).code == "unreachable"
        finally:
            shared.thaw()
        one.expect(Connected)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with-something-to-say"])
def test_a_half_open_link_is_noticed_within_one_and_a_half_keep_alives(shared: Mosquitto, busy: bool) -> None:
    pace = Pace(keepalive=2, first=0.05, longest=0.3, connect=1, stood=0.1)
    cable = Cable(shared.host, shared.port)
    cable.plug()
    with device(Broker(parse_url(f"mqtt://127.0.0.1:{cable.port}")), pace=pace) as one:
        one.expect(Connected)
        # Its kernel goes on acknowledging, so nothing but the silence tells.
        cable.freeze()
        frozen_at = time.monotonic()
        if busy:
            one.transport.publish(SESSION, b"{}", qos=1, retain=True)
        lost = one.expect(Disconnected, timeout=6)
        took = time.monotonic() - frozen_at
        assert (lost.code, "silent for 3 s" in lost.message) == ("lost", True)
        assert took <= 1.5 * pace.keepalive + 0.3
        cable.unplug()
        cable.plug()
        one.expect(Connected)
    cable.unplug()


def test_a_stop_does_not_wait_for_a_frozen_broker(shared: Mosquitto) -> None:
    with device(plain(shared)) as one:
        one.expect(Connected)
        shared.freeze()
        try:
            one.transport.stop((SESSION, b"stopped"), 0.5)
            assert not one.transport._thread.is_alive()
        finally:
            shared.thaw()
    with Peer(shared) as cloud:
        cloud.subscribe(SESSION)
        # The broker may read the farewell after all. It was not acknowledged in time, so the Will comes, too.
        eventually(lambda: [heard.payload for heard in cloud.on(SESSION)][-1:] == [b"lost 1"], 10, "the Will has come")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["mosquitto", "rabbitmq"])
def test_two_devices_with_one_id_do_not_fight(request: pytest.FixtureRequest, kind: str, version: Any) -> None:
    broker: BrokerContainer = request.getfixturevalue({"mosquitto": "shared", "rabbitmq": "rabbit"}[kind])
    pace = Pace(first=0.02, longest=0.1, duplicate=60, stood=30, suspicious=4)
    settings = Broker(parse_url(broker.url), version=version)
    with device(settings, pace=pace) as one, device(settings, pace=pace) as other:
        connections = 0
        gave_way: Disconnected | None = None
        for each in itertools.cycle((one, other)):
            with contextlib.suppress(queue.Empty):
                event = each.events.get(timeout=0.05)
                connections += isinstance(event, Connected)
                if isinstance(event, Disconnected) and event.code == "duplicate_identity":
                    gave_way = event
                    break
    assert gave_way is not None
    assert gave_way.retry_s >= pace.duplicate
    assert connections <= 2 * pace.suspicious + 2


@pytest.mark.parametrize("version", VERSIONS)
def test_a_clone_is_told_and_not_fought(shared: Mosquitto, version: str) -> None:
    pace = Pace(first=0.05, longest=0.1, duplicate=60, stood=30, suspicious=3)
    with device(plain(shared, version), pace=pace) as one:
        for _ in range(pace.suspicious):
            one.expect(Connected)
            with Peer(shared, client_id=ID):
                taken = one.expect(Disconnected)
            if taken.code == "duplicate_identity":
                break
        assert taken.code == "duplicate_identity"
        assert taken.retry_s >= 60


@pytest.mark.parametrize("version", VERSIONS)
def test_refused_credentials_are_tried_again_slowly_and_read_anew(tmp_path: Path, version: Any) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong\n")
    config = "allow_anonymous false\npassword_file /mosquitto/config/passwords\n"
    with mosquitto(config, files={"passwords": password_line("d1", "right")}) as broker:
        settings = Broker(parse_url(broker.url), version=version, username="d1", password_file=secret)
        with device(settings) as one:
            refused = one.expect(Disconnected)
            assert refused.code == "refused"
            assert QUICK.refused / 2 <= refused.retry_s <= QUICK.refused
            assert "wrong" not in refused.message

        with device(settings, pace=Pace(refused=0.2, refused_longest=0.4)) as one:
            waits = [one.expect(Disconnected).retry_s for _ in range(4)]
            assert 0.1 <= waits[0] <= 0.2
            assert all(0.2 <= wait <= 0.4 for wait in waits[1:])
            secret.write_text("right\n")
            one.expect(Connected)


def test_a_publish_that_the_broker_does_not_take_is_told() -> None:
    with (
        mosquitto(OPEN + "acl_file /mosquitto/config/acl\n", files={"acl": b"topic read #\n"}) as broker,
        device(plain(broker)) as one,
    ):
        one.expect(Connected)
        handle = one.transport.publish(SESSION, b"{}", qos=1, retain=True)
        answer = one.expect(Published)
        assert answer.handle == handle
        assert "Not authorized" in answer.refused


@pytest.mark.parametrize("version", VERSIONS)
def test_an_exception_in_deliver_costs_a_connection_and_not_the_message(shared: Mosquitto, version: str) -> None:
    with device(plain(shared, version)) as one:
        one.expect(Connected)

        def fails(event: TransportEvent) -> None:
            one.deliver = one.events.put
            raise RuntimeError("out of order")

        one.deliver = fails
        with Peer(shared) as cloud:
            cloud.publish(TARGET, b"again")

        broken = one.expect(Disconnected)
        assert (broken.code, broken.message) == ("lost", "internal error: RuntimeError: out of order")
        one.expect(Connected)
        again = one.expect(Received)
        assert again.payload == b"again"
        one.transport.acknowledge(again.token)
        assert one.transport._thread.is_alive()


def test_nothing_is_published_after_a_connection_was_given_up(shared: Mosquitto) -> None:
    with device(plain(shared), pace=Pace(first=30)) as one:
        one.expect(Connected)

        def fails(event: TransportEvent) -> None:
            one.deliver = one.events.put
            raise RuntimeError("out of order")

        one.deliver = fails
        with Peer(shared) as cloud:
            cloud.publish(TARGET, b"")
        one.expect(Disconnected)
        assert one.transport.publish(SESSION, b"{}", qos=1, retain=True) is None


def test_sessions_and_will_that_fail_are_asked_again(shared: Mosquitto) -> None:
    events: queue.Queue[TransportEvent] = queue.Queue()
    answers: Iterator[Any] = iter([OSError("no space"), 7])

    def sessions() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    transport = MqttTransport(plain(shared), "plant7.d2", pace=QUICK)
    transport.start(subscriptions=(), will=lambda _: Will(SESSION, b"", 0), sessions=sessions, deliver=events.put)
    try:
        assert "no space" in next_event(events, Disconnected, 5).message
        assert next_event(events, Connected, 5).session == 7
    finally:
        transport.stop(None, 5)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mosquitto, Path]]:
    """A broker that wants client certificates, and a folder: ca, cert and key of a client, and another authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority()
    certificate, key = authority.issue("localhost", "127.0.0.1")
    config = (
        OPEN + "listener 8883\nallow_anonymous true\ncafile /mosquitto/config/ca.pem\nrequire_certificate true\n"
        "certfile /mosquitto/config/server.pem\nkeyfile /mosquitto/config/server.key\n"
    )
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "other.pem").write_bytes(Authority("somebody else").pem)
    for name, content in zip(("d1.pem", "d1.key"), authority.issue("d1"), strict=True):
        (folder / name).write_bytes(content)
    files = {"ca.pem": authority.pem, "server.pem": certificate, "server.key": key}
    with mosquitto(config, files=files) as running:
        yield running, folder


# paho leaves the socket of a failed handshake to the reference count: closed at once, and warned about.
paho_drops_the_socket = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")


def tls(broker: Mosquitto, folder: Path, *, host: str = "127.0.0.1", ca: str = "ca.pem") -> Broker:
    return Broker(
        parse_url(f"mqtts://{host}:{broker.tls_port}"),
        ca_file=folder / ca,
        cert_file=folder / "d1.pem",
        key_file=folder / "d1.key",
    )


def test_tls_with_both_sides_checked(secure: tuple[Mosquitto, Path]) -> None:
    with device(tls(*secure)) as one:
        one.expect(Connected)
        with Peer(secure[0]) as cloud:
            cloud.publish(TARGET, b"x" * 100_000)
        assert len(one.expect(Received).payload) == 100_000
        assert one.transport.publish(SESSION, b"y" * 500_000, qos=1, retain=False) is not None
        assert one.expect(Published).refused is None


@paho_drops_the_socket
def test_tls_a_broker_of_another_authority_is_not_talked_to(secure: tuple[Mosquitto, Path], tmp_path: Path) -> None:
    broker, folder = secure
    settings = tls(broker, folder)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes((folder / "other.pem").read_bytes())
    settings = Broker(settings.address, ca_file=trusted, cert_file=settings.cert_file, key_file=settings.key_file)
    with device(settings) as one:
        down = one.expect(Disconnected)
        assert down.code == "unreachable"
        assert "certificate verify failed" in down.message

        # Files are read anew for each connection.
        trusted.write_bytes((folder / "ca.pem").read_bytes())
        one.expect(Connected)


@paho_drops_the_socket
def test_tls_a_certificate_for_another_name_is_refused(secure: tuple[Mosquitto, Path]) -> None:
    with device(tls(*secure, host="127.0.0.2")) as one:
        down = one.expect(Disconnected)
        assert down.code == "unreachable"
        assert "127.0.0.2" in down.message


def test_tls_a_client_without_a_certificate_does_not_get_in(secure: tuple[Mosquitto, Path]) -> None:
    broker, folder = secure
    settings = Broker(parse_url(f"mqtts://127.0.0.1:{broker.tls_port}"), ca_file=folder / "ca.pem")
    with device(settings) as one:
        assert one.expect(Disconnected).code == "unreachable"


def test_tls_a_missing_file_is_told_by_name(secure: tuple[Mosquitto, Path]) -> None:
    with device(tls(*secure, ca="gone.pem")) as one:
        assert "gone.pem" in one.expect(Disconnected).message


def test_the_retry_is_jittered_capped_and_starts_anew_after_a_good_connection(shared: Mosquitto) -> None:
    bench = RealBench(shared, pace=Pace(first=0.01, longest=0.08, stood=0.2, spread=0.02))
    try:
        bench.start()
        waits = [bench.expect(Disconnected).retry_s for _ in range(12)]
        assert all(0.01 <= wait <= 0.08 for wait in waits)
        assert waits[0] <= 0.02
        assert len(set(waits)) == len(waits)
        bench.up()
        bench.expect(Connected)
        eventually(lambda: bench.mqtt._live is not None and bench.mqtt._live.stood_s() > 0.2, 5, "it stood")
        bench.cut()
        assert bench.expect(Disconnected).retry_s <= 0.02
    finally:
        bench.close()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_flood_of_qos_0_is_dropped_while_much_waits(shared: Mosquitto, version: str) -> None:
    with device(plain(shared, version)) as one, Peer(shared) as cloud:
        one.expect(Connected)
        for number in range(100):
            cloud.client.publish(TARGET, b"%d" % number, qos=0)
        cloud.publish(TARGET, b"after the flood")
        first: list[Received] = []
        while not first or first[-1].payload != b"after the flood":
            first.append(one.expect(Received))
        # The session may still have something empty: what a test before this one has cleared.
        flood = [received.payload for received in first[:-1] if received.payload]
        assert flood == [b"%d" % number for number in range(len(flood))]
        assert 20 < len(flood) < 40
        for received in first:
            one.transport.acknowledge(received.token)
        cloud.client.publish(TARGET, b"once more", qos=0)
        assert one.expect(Received).payload == b"once more"
