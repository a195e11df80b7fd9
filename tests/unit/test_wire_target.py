import gzip
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.model.canonical import digest
from device_agent.model.errors import Refused
from device_agent.model.target import Version
from device_agent.wire.dsse import TrustedKeys, keyid, seal
from device_agent.wire.payload import Limits
from device_agent.wire.target import Glimpse, check_keys, glimpse, ignored_keys, open_target, read_target, read_version

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
TRUSTED = TrustedKeys({keyid(KEY.public_key()): KEY.public_key()})

BODY: dict[str, Any] = {
    "schema": 1,
    "scope": {"fleet": "plant7", "device": None},
    "epoch": 1,
    "revision": 42,
    "release": "2026.11.22-a",
    "issued_at": "2026-11-22T10:00:00Z",
    "expires_at": None,
    "apps": {"web": {"services": {"api": {"image": "a:1"}}}},
}


def raw(**changes: Any) -> bytes:
    """The target with some keys changed; `...` leaves one out."""
    return json.dumps({key: value for key, value in {**BODY, **changes}.items() if value is not ...}).encode()


def refusal(payload: bytes, **settings: Any) -> tuple[str, list[str]]:
    with pytest.raises(Refused) as refused:
        read_target(payload, **settings)
    return refused.value.code, [problem.pointer for problem in refused.value.problems]


def test_a_fleet_target() -> None:
    payload = raw()
    target = read_target(payload)
    assert (target.scope, target.fleet, target.device) == ("fleet", "plant7", None)
    assert target.version == Version(1, 42)
    assert target.release == "2026.11.22-a"
    assert (target.issued_at, target.expires_at) == ("2026-11-22T10:00:00Z", None)
    assert target.allow_empty is False
    assert target.apps == BODY["apps"]
    assert target.digest == digest(BODY)
    assert target.raw == payload
    assert target.content_type == "application/json"


def test_a_device_target_may_remove_apps() -> None:
    target = read_target(raw(scope={"fleet": "plant7", "device": "d1"}, apps={"web": None}, allow_empty=True))
    assert (target.scope, target.fleet, target.device) == ("device", "plant7", "d1")
    assert target.apps == {"web": None}
    assert target.allow_empty is True


def test_the_least_there_can_be() -> None:
    least = {"schema": 1, "scope": {"fleet": "f"}, "epoch": 0, "revision": 0, "apps": {}}
    target = read_target(json.dumps(least).encode())
    assert (target.scope, target.version, target.release) == ("fleet", Version(0, 0), None)


def test_the_digest_is_of_the_body_however_it_travels() -> None:
    plain = read_target(raw())
    packed = gzip.compress(raw())
    for payload in (packed, seal(raw(), [KEY]), gzip.compress(seal(raw(), [KEY])), json.dumps(BODY, indent=3).encode()):
        again = read_target(payload)
        assert again.digest == plain.digest
        assert again.raw == payload
    assert read_target(packed, "application/json+gzip").content_type == "application/json+gzip"


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"scope": ...}, "/scope"),
        ({"scope": "fleet"}, "/scope"),
        ({"scope": {}}, "/scope/fleet"),
        ({"scope": {"fleet": "Plant"}}, "/scope/fleet"),
        ({"scope": {"fleet": 7}}, "/scope/fleet"),
        ({"scope": {"fleet": "plant7", "device": ""}}, "/scope/device"),
        ({"scope": {"fleet": "plant7", "device": ["d1"]}}, "/scope/device"),
        ({"scope": {"fleet": "plant7", "group": "a"}}, "/scope/group"),
        ({"epoch": ...}, "/epoch"),
        ({"epoch": True}, "/epoch"),
        ({"epoch": "1"}, "/epoch"),
        ({"revision": ...}, "/revision"),
        ({"revision": -1}, "/revision"),
        ({"revision": 1.0}, "/revision"),
        ({"revision": None}, "/revision"),
        ({"release": ""}, "/release"),
        ({"release": 7}, "/release"),
        ({"release": "a\nb"}, "/release"),
        ({"release": "a" * 201}, "/release"),
        ({"issued_at": "now"}, "/issued_at"),
        ({"issued_at": 1}, "/issued_at"),
        ({"expires_at": "2026-11-22T10:00:00"}, "/expires_at"),
        ({"expires_at": "2026-13-22T10:00:00Z"}, "/expires_at"),
        ({"allow_empty": None}, "/allow_empty"),
        ({"allow_empty": "yes"}, "/allow_empty"),
        ({"hold": 1}, "/hold"),
        ({"apps": ...}, "/apps"),
        ({"apps": None}, "/apps"),
        ({"apps": []}, "/apps"),
        ({"apps": {"web": None}}, "/apps/web"),
        ({"apps": {"web": []}}, "/apps/web"),
        ({"apps": {"a/b~c": 1}}, "/apps/a~1b~0c"),
    ],
)
def test_a_wrong_header_is_invalid(changes: dict[str, Any], pointer: str) -> None:
    assert refusal(raw(**changes)) == ("invalid", [pointer])


def test_every_place_is_told() -> None:
    assert refusal(raw(epoch=-1, revision=None, release=3)) == ("invalid", ["/epoch", "/revision", "/release"])
    assert refusal(raw(groups={}, window=1)) == ("unsupported", ["/groups", "/window"])


@pytest.mark.parametrize("schema", [..., None, 0, 2, "1", True, 1.5, {}])
def test_another_schema_comes_before_all_else(schema: Any) -> None:
    assert refusal(raw(schema=schema, scope=..., other=1)) == ("schema", ["/schema"])


def test_unknown_keys_are_unsupported_and_x_keys_are_warnings() -> None:
    assert refusal(raw(**{"a/b": 1})) == ("unsupported", ["/a~1b"])
    body = json.loads(raw(**{"x-note": "for people", "hold": False}))
    assert read_target(json.dumps(body).encode()).apps == BODY["apps"]
    assert [problem.pointer for problem in ignored_keys(body)] == ["/x-note"]


def test_a_device_target_holds_and_needs_no_apps_for_it() -> None:
    scope = {"fleet": "plant7", "device": "d1"}
    held = read_target(raw(scope=scope, hold=True, apps=...))
    assert (held.hold, held.apps) == (True, {})
    assert read_target(raw(scope=scope, hold=True)).apps == BODY["apps"]
    assert not read_target(raw(scope=scope)).hold
    assert refusal(raw(scope=scope, hold=False, apps=...)) == ("invalid", ["/apps"])
    assert refusal(raw(scope=scope, hold=True, apps=[])) == ("invalid", ["/apps"])
    assert refusal(raw(hold=True)) == ("invalid", ["/hold"])


def test_the_version_is_read_before_the_keys_are_checked() -> None:
    body = json.loads(raw(unknown=1))
    assert read_version(body, raw=b"").version == Version(1, 42)
    with pytest.raises(Refused):
        check_keys(body)


@pytest.mark.parametrize("payload", [b"", b"[]", b"null", b"1", b'"text"', b"{", b"\xff"])
def test_what_is_no_object_is_malformed(payload: bytes) -> None:
    assert refusal(payload) == ("malformed", [])


def test_size_comes_before_json_and_json_before_signatures() -> None:
    small = Limits(payload=100, inflated=1000)
    assert refusal(b"{" * 101, limits=small, trusted=TRUSTED)[0] == "too_large"
    assert refusal(gzip.compress(b" " * 1001), limits=small, trusted=TRUSTED)[0] == "too_large"
    assert refusal(b"{" * 100, limits=small, trusted=TRUSTED)[0] == "malformed"
    assert refusal(b'{"schema": 2}', limits=small, trusted=TRUSTED)[0] == "signature"


def test_with_keys_only_what_is_signed_gets_in() -> None:
    assert read_target(seal(raw(), [KEY]), trusted=TRUSTED).version == Version(1, 42)
    assert refusal(raw(), trusted=TRUSTED)[0] == "signature"
    stranger = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    assert refusal(seal(raw(), [stranger]), trusted=TRUSTED)[0] == "signature"
    # Verified before it is read: what is inside does not matter to a stranger's refusal.
    assert refusal(seal(b"{{{", [stranger]), trusted=TRUSTED)[0] == "signature"
    assert refusal(seal(b"{{{", [KEY]), trusted=TRUSTED)[0] == "malformed"
    assert refusal(seal(b"[]", [KEY]), trusted=TRUSTED)[0] == "malformed"
    assert refusal(seal(seal(raw(), [KEY]), [KEY]), trusted=TRUSTED)[0] == "schema"


def test_without_keys_an_envelope_is_opened_unverified() -> None:
    assert open_target(seal(raw(), [])) == json.loads(raw())


@pytest.mark.parametrize(
    ("body", "seen"),
    [
        (None, Glimpse()),
        ([], Glimpse()),
        ({}, Glimpse(digest=digest({}))),
        (
            {"epoch": 1, "revision": 2, "release": "a"},
            Glimpse(Version(1, 2), "a", digest({"epoch": 1, "revision": 2, "release": "a"})),
        ),
        (
            {"epoch": "1", "revision": 2, "release": 3},
            Glimpse(digest=digest({"epoch": "1", "revision": 2, "release": 3})),
        ),
        ({"a": 2**60}, Glimpse()),
    ],
)
def test_a_glimpse_never_fails(body: Any, seen: Glimpse) -> None:
    assert glimpse(body) == seen
