"""Scenario 5: whatever is wrong with a target, nothing changes, and the answer says why and where.

One device for all of them: that nothing changes is what is shown.
"""

import gzip
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device_agent.wire import dsse
from tests.broker import Mosquitto
from tests.e2e.device import Device, Stranger, app, service, stranger
from tests.e2e.host import Host
from tests.eventually import eventually

ANSWERED_S = 30.0
CURRENT = 10
"""The revision that the device runs."""
GOOD = {"web": {**app(api=service(volumes=["data:/data"])), "volumes": {"data": {}}}}


def document(device: Device, *, revision: int = CURRENT + 1, apps: Any = None, **changed: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "scope": {"fleet": device.fleet, "device": None},
        "epoch": 1,
        "revision": revision,
        "release": "bad",
        "apps": GOOD if apps is None else apps,
        **changed,
    }


def with_service(**keys: Any) -> dict[str, Any]:
    return {"web": app(api=service(**keys))}


def encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


@pytest.fixture(scope="module")
def settled(broker: Mosquitto, host: Host) -> Iterator[Device]:
    with Device(broker, host) as device:
        device.start()
        device.cloud.publish(GOOD, more={"revision": CURRENT, "release": "good"})
        eventually(lambda: device.acks(verdict="applied", app=None), 30, "the good target is applied")
        state = stranger(broker)
        eventually(lambda: state.retained(device.up("state")).get("converged"), 10, "the state tells so")
        yield device


def refused(device: Device, client: Stranger, payload: bytes, **more: Any) -> dict[str, Any]:
    """Publish it: the ack that refuses it, after a look at everything that must not have changed."""
    before, heard = device.identities(), len(device.acks())
    state = client.retained(device.up("state"))

    client.publish(more.pop("topic", device.fleet_target), payload, **more)
    eventually(lambda: len(device.acks()) > heard, ANSWERED_S, "an ack")
    (ack,) = device.acks()[heard:]

    assert device.identities() == before
    assert device.host.volumes(device.label) == [f"{device.prefix}web_data"]
    assert device.snapshot().targets == {"fleet": (1, CURRENT)}
    assert device.snapshot().floors == {"fleet": (1, CURRENT)}
    assert client.retained(device.up("state"))["apps"] == state["apps"]
    assert ack["verdict"] == "rejected"
    assert ack["message"]
    return ack


def pointers(ack: dict[str, Any]) -> list[str]:
    assert all(error["message"] for error in ack["errors"])
    return [error["pointer"] for error in ack["errors"]]


BY_CONTENT = [
    pytest.param({"schema": 2}, "schema", ["/schema"], id="schema"),
    pytest.param({"scope": {"fleet": "another", "device": None}}, "scope", ["/scope/fleet"], id="scope-fleet"),
    pytest.param({"expires_at": "2020-01-01T00:00:00Z"}, "expired", None, id="expired"),
    pytest.param({"revision": CURRENT - 1}, "stale", None, id="stale"),
    pytest.param({"revision": CURRENT}, "fork", None, id="fork"),
    pytest.param({"aps": {}}, "unsupported", ["/aps"], id="unsupported-at-the-top"),
    pytest.param(
        {"apps": {"web": {**app(api=service(build=".", volums=[])), "servces": {}}}},
        "unsupported",
        ["/apps/web/servces", "/apps/web/services/api/build", "/apps/web/services/api/volums"],
        id="unsupported",
    ),
    pytest.param(
        {"apps": {"web": app(api=service(mem_limit="64 bananas", ports=["99999:80"]), db={"command": "x"})}},
        "invalid",
        ["/apps/web/services/api/mem_limit", "/apps/web/services/api/ports/0", "/apps/web/services/db"],
        id="invalid",
    ),
    pytest.param(
        {"apps": with_service(depends_on=["nobody"])},
        "invalid",
        ["/apps/web/services/api/depends_on"],
        id="unknown-name",
    ),
    pytest.param({"apps": {"web": None}}, "invalid", ["/apps/web"], id="null-in-a-fleet-target"),
    pytest.param(
        {"apps": {"web": app(api=service(depends_on=["db"]), db=service(depends_on=["api"]))}},
        "cycle",
        ["/apps/web/services/"],
        id="cycle",
    ),
    pytest.param(
        {"apps": with_service(privileged=True, cap_add=["SYS_ADMIN"], network_mode="host", volumes=["/etc:/host"])},
        "policy",
        [
            "/apps/web/services/api/cap_add",
            "/apps/web/services/api/network_mode",
            "/apps/web/services/api/privileged",
            "/apps/web/services/api/volumes/0",
        ],
        id="policy",
    ),
    pytest.param({"apps": {}}, "empty", None, id="empty"),
]


@pytest.mark.parametrize(("changed", "code", "where"), BY_CONTENT)
def test_a_bad_target_must_be_refused_whole(
    settled: Device, client: Stranger, changed: dict[str, Any], code: str, where: list[str] | None
) -> None:
    ack = refused(settled, client, encoded(document(settled, **changed)))

    assert ack["code"] == code
    assert ack["scope"] == "fleet"
    assert (ack["epoch"], ack["revision"]) == (1, changed.get("revision", CURRENT + 1))
    assert (ack["have"]["epoch"], ack["have"]["revision"]) == (1, CURRENT)
    if where is not None:
        found = pointers(ack)
        assert len(found) >= len(where)
        for start in where:
            assert any(pointer.startswith(start) for pointer in found), (start, found)


MALFORMED = {
    "not-json": b'{"schema": 1, "apps": {',
    "not-utf-8": b"\xff\xfe\x00",
    "no-object": b"[1, 2]",
    "a-key-twice": b'{"schema": 1, "schema": 1}',
    "nan": b'{"schema": NaN}',
    "too-deep": b'{"a": ' * 70 + b"1" + b"}" * 70,
    "half-a-gzip": gzip.compress(b"{}" * 100)[:-4],
}


@pytest.mark.parametrize("payload", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_target_must_be_called_malformed(settled: Device, client: Stranger, payload: bytes) -> None:
    ack = refused(settled, client, payload)
    assert ack["code"] == "malformed"
    assert "revision" not in ack


def test_a_target_over_the_size_limit_must_be_answered(settled: Device, client: Stranger) -> None:
    body = encoded(document(settled, **{"x-filler": "x" * 1_100_000}))
    assert refused(settled, client, body)["code"] == "too_large"


def test_a_small_payload_that_inflates_without_end_must_be_answered(settled: Device, client: Stranger) -> None:
    bomb = gzip.compress(b" " * 64 * 1024 * 1024)
    assert refused(settled, client, bomb)["code"] == "too_large"


def test_a_target_of_another_device_on_this_ones_topic_must_be_refused(settled: Device, client: Stranger) -> None:
    body = document(settled, scope={"fleet": settled.fleet, "device": "somebody-else"})
    ack = refused(settled, client, encoded(body), topic=settled.own_target)
    assert (ack["code"], pointers(ack)) == ("scope", ["/scope/device"])


def test_a_fork_must_also_be_told_as_an_event(settled: Device, client: Stranger) -> None:
    known = len(settled.events("target_fork"))
    refused(settled, client, encoded(document(settled, revision=CURRENT, release=secrets.token_hex(4))))
    eventually(lambda: len(settled.events("target_fork")) == known + 1, ANSWERED_S, "the event target_fork")


def test_an_empty_payload_must_change_nothing_and_be_told(settled: Device, client: Stranger) -> None:
    before, known, acks = settled.identities(), len(settled.events("target_cleared")), len(settled.acks())

    client.publish(settled.fleet_target, b"")

    eventually(lambda: len(settled.events("target_cleared")) == known + 1, ANSWERED_S, "the event target_cleared")
    assert settled.identities() == before
    assert settled.snapshot().targets == {"fleet": (1, CURRENT)}
    assert len(settled.acks()) == acks


def test_after_all_of_that_a_good_target_must_still_be_applied(settled: Device, client: Stranger) -> None:
    try:
        refused(settled, client, encoded(document(settled, apps={})))
        apps = {**GOOD, "log": app(sink=service())}
        client.publish(settled.fleet_target, encoded(document(settled, revision=CURRENT + 1, apps=apps)))
        settled.cloud.wait_for_ack(settled.id, verdict="applied", app=None, revision=CURRENT + 1, timeout=30)
        assert settled.identities().keys() == {"web/api", "log/sink"}
    finally:
        # Nothing that another test would see: the device is gone after this module's last test, which this is.
        settled.stop()


def test_only_what_a_trusted_key_has_signed_must_be_accepted(device: Device, client: Stranger) -> None:
    trusted, other = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    keys = device.folder / "keys"
    keys.mkdir()
    (keys / "cloud.pem").write_bytes(trusted.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    device.start(TRUSTED_KEYS=str(keys))
    unsigned = encoded(document(device, revision=1))

    for payload in (unsigned, dsse.seal(unsigned, [other])):
        heard = len(device.acks())
        client.publish(device.fleet_target, payload)
        eventually(lambda heard=heard: len(device.acks()) > heard, ANSWERED_S, "an ack")
        (ack,) = device.acks()[heard:]
        assert (ack["verdict"], ack["code"]) == ("rejected", "signature")
    assert device.identities() == {}

    client.publish(device.fleet_target, dsse.seal(unsigned, [trusted]))
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, revision=1, timeout=30)
    assert device.identities().keys() == {"web/api"}

    newer = json.loads(dsse.seal(encoded(document(device, revision=2)), [trusted]))
    newer["payload"] = newer["payload"][:-8] + "AAAAAAA="
    heard = len(device.acks())
    client.publish(device.fleet_target, json.dumps(newer).encode())
    eventually(lambda: len(device.acks()) > heard, ANSWERED_S, "an ack")
    assert device.acks()[heard]["code"] == "signature"
