"""A device that asks for signatures: what it takes, what it refuses, and how its keys change."""

import gzip
import shutil
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.core.brake import CALM_S
from device_agent.runtime.intake import SETTLE_S
from device_agent.wire.dsse import load_trusted_keys, seal
from tests.builders import app, payload, service
from tests.device import Device
from tests.signing import ALICE, BOB, MALLORY, trust

ONE = {"web": app(api=service("api:1"))}
TWO = {"web": app(api=service("api:2"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trust(tmp_path / "keys", alice=ALICE)


def asking(folder: Path, threshold: int = 1) -> Device:
    device = Device(images=("api:1", "api:2"), trusted=partial(load_trusted_keys, folder, threshold))
    device.boot()
    device.wait(SETTLE_S)
    return device


def signed(*keys: Ed25519PrivateKey, revision: int = 1, **more: object) -> bytes:
    return seal(payload(TWO if revision > 1 else ONE, revision=revision, **more), keys)


def refusal(device: Device) -> str:
    ack = device.acks()[-1]
    assert ack["verdict"] == "rejected", ack
    return str(ack["code"])


def test_a_signed_target_is_taken_and_remembered(folder: Path) -> None:
    device = asking(folder)
    device.bring(signed(ALICE))
    device.converge()
    assert device.told()[0] == "accepted 1.1"
    device.stop()
    device.boot()
    device.converge()
    assert device.ups() == {"web/api"}
    assert device.told()[-1] == "applied 1.1"


@pytest.mark.parametrize(
    "arrives",
    [payload(TWO, revision=2), signed(MALLORY, revision=2), signed(revision=2)],
    ids=["bare", "a stranger's", "none"],
)
def test_without_a_good_signature_nothing_changes(folder: Path, arrives: bytes) -> None:
    device = asking(folder)
    device.bring(signed(ALICE))
    device.converge()
    runs = dict(device.world.containers)
    device.bring(arrives)
    assert refusal(device) == "signature"
    assert not device.broker.unacknowledged
    assert device.world.containers == runs
    assert device.state()["have"]["fleet"]["revision"] == 1


def test_a_hostile_broker_can_neither_replay_nor_readdress(folder: Path) -> None:
    device = asking(folder)
    old, new = signed(ALICE), signed(ALICE, revision=2)
    device.bring(new)
    device.wait(CALM_S)
    device.bring(old)
    assert refusal(device) == "stale"
    device.bring(signed(ALICE, revision=3, device="d2"), device=True)
    assert refusal(device) == "scope"
    device.bring(signed(ALICE, revision=3), device=True)
    assert refusal(device) == "scope"
    device.bring(signed(ALICE, revision=3, fleet="plant8"))
    assert refusal(device) == "scope"
    device.bring(b"")
    device.converge()
    assert device.state()["have"]["fleet"]["revision"] == 2
    assert device.state()["have"]["device"] is None
    assert device.told().count("applied 1.2") == 1


def test_so_many_different_keys_must_have_signed(folder: Path) -> None:
    trust(folder, alice=ALICE, bob=BOB)
    device = asking(folder, threshold=2)
    device.bring(signed(ALICE))
    assert refusal(device) == "signature"
    device.bring(signed(ALICE, ALICE))
    assert refusal(device) == "signature"
    device.bring(signed(ALICE, BOB))
    device.converge()
    assert device.ups() == {"web/api"}


def test_keys_are_rotated_while_the_agent_runs(folder: Path) -> None:
    device = asking(folder)
    device.bring(signed(ALICE))
    device.bring(signed(BOB, revision=2))
    assert refusal(device) == "signature"
    # Both for a time: either is enough.
    trust(folder, alice=ALICE, bob=BOB)
    device.bring(signed(BOB, revision=2))
    device.bring(signed(ALICE, revision=3))
    # And the old one is gone for good.
    trust(folder, bob=BOB)
    device.bring(signed(ALICE, revision=4))
    assert refusal(device) == "signature"
    device.bring(signed(BOB, revision=5))
    device.converge()
    assert device.state()["have"]["fleet"]["revision"] == 5


def test_keys_that_cannot_be_read_refuse_everything_and_change_nothing(folder: Path) -> None:
    device = asking(folder)
    device.bring(signed(ALICE))
    device.converge()
    shutil.rmtree(folder)
    device.bring(signed(ALICE, revision=2))
    assert refusal(device) == "signature"
    assert "no signature can be checked" in device.acks()[-1]["message"]
    assert device.ups() == {"web/api"}
    trust(folder, alice=ALICE)
    device.bring(signed(ALICE, revision=2))
    device.converge()
    assert device.state()["have"]["fleet"]["revision"] == 2


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_file_is_judged_as_the_broker_is(folder: Path, packed: bool) -> None:
    device = asking(folder)

    def apply(content: bytes) -> dict[str, object]:
        raw = gzip.compress(content) if packed else content
        answer: dict[str, object] = device.ask("apply", target=raw.decode("utf-8", "surrogateescape"))
        return answer

    for bad in (payload(ONE), signed(MALLORY)):
        assert apply(bad)["error"]["code"] == "signature"  # type: ignore[index]
    assert apply(signed(ALICE, revision=2))["status"] == "ok"
    assert apply(signed(ALICE))["error"]["code"] == "stale"  # type: ignore[index]


def test_what_is_no_text_is_malformed(folder: Path) -> None:
    device = asking(folder)
    for verb in ("apply", "plan"):
        assert device.ask(verb, target="\ud800")["error"]["code"] == "malformed"
