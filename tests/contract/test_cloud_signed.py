"""A cloud that signs, against a real Mosquitto that cannot be trusted."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.cloud import Cloud
from cloud_sim.connection import Misconfigured
from cloud_sim.keys import generate, read_signing_keys
from device_agent.model.target import Version
from device_agent.wire.commands import read_command
from device_agent.wire.dsse import TARGET, load_trusted_keys, open_envelope, seal
from device_agent.wire.payload import inflate
from device_agent.wire.topics import FleetTopics
from tests.broker import Mosquitto, Peer, mosquitto
from tests.builders import payload
from tests.cloud_device import PlainDevice
from tests.eventually import eventually
from tests.signing import ALICE, BOB, MALLORY, trusted

pytestmark = pytest.mark.broker

WAIT_S = 15.0
APPS = {"web": {"services": {"api": {"image": "api:1"}}}}
CHANGED = {"web": {"services": {"api": {"image": "api:2"}}}}
EVIL = {"miner": {"services": {"api": {"image": "evil:1"}}}}


@pytest.fixture(scope="module")
def shared() -> Iterator[Mosquitto]:
    with mosquitto() as broker:
        yield broker


@dataclass(frozen=True, slots=True)
class Place:
    """A fleet of its own on a broker that others use as well."""

    mosquitto: Mosquitto
    fleet: str

    @property
    def topic(self) -> str:
        return f"fleet/v1/{self.fleet}/down/target"

    @property
    def url(self) -> str:
        return self.mosquitto.url


@pytest.fixture
def broker(shared: Mosquitto) -> Place:
    return Place(shared, f"plant-{secrets.token_hex(4)}")


def retained(broker: Place) -> bytes:
    with Peer(broker.mosquitto) as peer:
        peer.subscribe(broker.topic)
        return eventually(lambda: peer.on(broker.topic), WAIT_S, "a retained target")[0].payload


def put(broker: Place, content: bytes) -> None:
    with Peer(broker.mosquitto) as peer:
        peer.publish(broker.topic, content, retain=True)


def opened(raw: bytes, *keys: Ed25519PrivateKey) -> Any:
    """Its body, when every one of `keys` has signed it."""
    return json.loads(open_envelope(json.loads(inflate(raw)), trusted(*keys, threshold=len(keys)), TARGET))


def test_what_is_published_is_signed_by_every_key_and_proven_by_digest(broker: Place, tmp_path: Path) -> None:
    with (
        Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE, BOB]) as cloud,
        PlainDevice(broker.mosquitto, broker.fleet, "d1"),
    ):
        cloud.publish(APPS)
        cloud.publish(CHANGED, device="d1")
        # The digests are of what is inside, on both sides.
        cloud.wait_converged(WAIT_S, ["d1"])
        body = opened(retained(broker), ALICE, BOB)
    assert body["scope"] == {"fleet": broker.fleet, "device": None}
    assert (body["epoch"], body["revision"], body["apps"]) == (1, 1, APPS)


def test_somebody_who_only_watches_needs_no_key_to_prove_it(broker: Place, tmp_path: Path) -> None:
    with (
        Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE]) as cloud,
        PlainDevice(broker.mosquitto, broker.fleet, "d1"),
    ):
        cloud.publish(APPS)
        with Cloud(broker.url, broker.fleet, database=":memory:") as other:
            other.wait_converged(WAIT_S, ["d1"])


def test_a_large_one_is_signed_and_travels_compressed(broker: Place, tmp_path: Path) -> None:
    many = {f"a{n}": {"services": {"api": {"image": f"api:{n}"}}} for n in range(2000)}
    with Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE]) as cloud:
        cloud.publish(many)
        raw = retained(broker)
    assert raw.startswith(b"\x1f\x8b")
    assert opened(raw, ALICE)["apps"] == many


def test_what_the_broker_lost_comes_back_as_it_was_signed(broker: Place, tmp_path: Path) -> None:
    with Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE]) as cloud:
        cloud.publish(APPS)
        before = retained(broker)
    put(broker, b"")
    # No key is at hand, and none is needed.
    with Cloud(broker.url, broker.fleet, database=tmp_path / "db"):
        assert retained(broker) == before


@pytest.mark.parametrize(
    "signers",
    [[], [MALLORY]],
    ids=["unsigned", "a stranger's"],
)
@pytest.mark.parametrize("known", [True, False], ids=["with a database", "without"])
def test_a_broker_cannot_slip_in_what_would_be_signed_next(
    broker: Place, tmp_path: Path, signers: list[Ed25519PrivateKey], known: bool
) -> None:
    if known:
        with Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE]) as cloud:
            cloud.publish(APPS)
    forged = payload(EVIL, revision=99, fleet=broker.fleet)
    put(broker, seal(forged, signers) if signers else forged)
    told: list[str] = []
    with Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE], tell=told.append) as cloud:
        last = cloud.last()
        assert (last.apps if last else None) == (APPS if known else None)
        assert cloud.next_version() == (Version(1, 2) if known else Version(1, 1))
        assert any("is no target for it" in said for said in told)
        if known:
            assert opened(retained(broker), ALICE)["apps"] == APPS


def test_what_it_published_itself_before_is_no_forgery(broker: Place, tmp_path: Path) -> None:
    with Cloud(broker.url, broker.fleet, database=tmp_path / "db") as cloud:
        cloud.publish(APPS)
    told: list[str] = []
    with Cloud(broker.url, broker.fleet, database=tmp_path / "db", keys=[ALICE], tell=told.append) as cloud:
        assert told == []
        assert cloud.publish(CHANGED).version == Version(1, 2)
        assert opened(retained(broker), ALICE)["apps"] == CHANGED


class Ended:
    def __init__(self, broker: Place, folder: Path, *arguments: str) -> None:
        environment = {
            "CLOUD_SIM_MQTT_URL": broker.url,
            "CLOUD_SIM_FLEET": broker.fleet,
            "CLOUD_SIM_DATABASE": str(folder / "db"),
        }
        ended = CliRunner().invoke(app, list(arguments), env=environment)
        assert ended.exit_code == 0, ended.output
        self.out, self.err = ended.stdout, ended.stderr


def test_publish_signs_anew_when_the_keys_change(broker: Place, tmp_path: Path) -> None:
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"apps": APPS, "release": "a"}))
    (tmp_path / "keys").mkdir()
    old, new = tmp_path / "keys" / "old.key", tmp_path / "keys" / "new.key"
    for key in (old, new):
        generate(key)

    def publish(*keys: Path) -> Ended:
        signing = [word for key in keys for word in ("--key", str(key))]
        return Ended(broker, tmp_path, "publish", str(target), "--no-wait", *signing)

    publish(old)
    assert "nothing has changed" in publish(old).out
    assert "published to the fleet: 1.2" in publish(old, new).out
    both = load_trusted_keys(tmp_path / "keys", 2)
    assert b'"revision":2' in open_envelope(json.loads(retained(broker)), both, TARGET)
    # One of the two has signed it already, and more signatures than needed do no harm.
    assert "nothing has changed" in publish(new).out
    assert "was signed, this one is not" in publish().err


def test_commands_are_signed_by_every_key(broker: Place, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    keys = [tmp_path / "keys" / name for name in ("a.key", "b.key")]
    for key in keys:
        generate(key)
    topics = FleetTopics("fleet/v1", broker.fleet)
    to_one, to_all = topics.of("d1").command("stop"), topics.broadcast("plan")
    with Peer(broker.mosquitto) as peer, PlainDevice(broker.mosquitto, broker.fleet, "d1") as device:
        device.replies = {"stop": {"status": "ok", "result": {"app": "web"}}}
        peer.subscribe(to_one)
        peer.subscribe(to_all)
        signing = [word for key in keys for word in ("--key", str(key))]
        assert Ended(broker, tmp_path, "command", "stop", "web", "--device", "d1", *signing).out == "app: web\n"
        # A large one, as a target inside can be, travels compressed.
        with Cloud(broker.url, broker.fleet, database=":memory:", keys=read_signing_keys(keys)) as cloud:
            noise = secrets.token_hex(50_000)
            cloud.ask("plan", {"target": noise}).close()
            with pytest.raises(Misconfigured, match="24 h at most"):
                cloud.ask("stop", {"app": "web"}, device="d1", expires_s=25 * 3600)
        one, every = (eventually(lambda topic=topic: peer.on(topic), WAIT_S, topic)[0] for topic in (to_one, to_all))
    both = load_trusted_keys(tmp_path / "keys", 2)
    stop, plan = (read_command(each.payload, trusted=lambda: both) for each in (one, every))
    assert stop.signed
    assert plan.signed
    assert (stop.signed.verb, stop.signed.fleet, stop.signed.device) == ("stop", broker.fleet, "d1")
    assert (plan.signed.verb, plan.signed.device) == ("plan", None)
    assert plan.args == {"target": noise}
    assert every.payload.startswith(b"\x1f\x8b")
    assert device.asked == [("stop", {"app": "web"}), ("plan", {"target": noise})]
