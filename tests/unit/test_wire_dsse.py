import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.model.errors import Refused
from device_agent.wire.dsse import (
    TARGET,
    TrustedKeys,
    is_envelope,
    keyid,
    load_trusted_keys,
    open_envelope,
    pae,
    seal,
)

ALICE, BOB, MALLORY = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))
BODY = b'{"schema": 1, "text": "\xc3\xa4>?\xff"}'


def trusted(*keys: Ed25519PrivateKey, threshold: int = 1) -> TrustedKeys:
    return TrustedKeys({keyid(key.public_key()): key.public_key() for key in keys}, threshold)


def sealed(*keys: Ed25519PrivateKey, body: bytes = BODY) -> dict[str, Any]:
    envelope: dict[str, Any] = json.loads(seal(body, keys))
    return envelope


def code(envelope: Any, keys: TrustedKeys | None) -> str:
    with pytest.raises(Refused) as refused:
        open_envelope(envelope, keys, TARGET)
    return refused.value.code


def test_the_encoding_is_that_of_the_specification() -> None:
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("ä", b"") == b"DSSEv1 2 \xc3\xa4 0 "


def test_the_keyid_is_the_hash_of_the_der() -> None:
    # openssl pkey -pubin -outform DER | sha256sum
    assert keyid(ALICE.public_key()) == "fd110d301d2f077de1414b8f99f441b1403fab207b2052fbd2c065e4ee8e7dc2"


def test_what_is_sealed_is_opened() -> None:
    envelope = sealed(ALICE)
    assert is_envelope(envelope)
    assert envelope["payloadType"] == TARGET
    assert open_envelope(envelope, trusted(ALICE, BOB), TARGET) == BODY
    assert open_envelope(envelope, None, TARGET) == BODY


def test_without_keys_signatures_are_not_looked_at() -> None:
    assert open_envelope({**sealed(), "signatures": ["?"]}, None, TARGET) == BODY


@pytest.mark.parametrize("document", [None, [], "", 1, {}, {"schema": 1, "apps": {}}])
def test_what_is_no_envelope(document: Any) -> None:
    assert not is_envelope(document)
    assert code(document, None) == "malformed"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("payloadType", "application/json"),
        ("payloadType", None),
        ("payload", None),
        ("payload", 1),
        ("payload", "ä"),
        ("payload", "a b"),
        ("payload", "aGVsbG8"[:5]),
        ("signatures", None),
        ("signatures", {}),
    ],
)
def test_an_envelope_of_another_form_is_malformed(key: str, value: Any) -> None:
    assert code({**sealed(ALICE), key: value}, trusted(ALICE)) == "malformed"


def changed_payload(envelope: dict[str, Any]) -> None:
    envelope["payload"] = base64.b64encode(BODY + b" ").decode()


def changed_signature(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()


def no_signatures(envelope: dict[str, Any]) -> None:
    envelope["signatures"] = []


def other_types(envelope: dict[str, Any]) -> None:
    envelope["signatures"] = [None, 1, [], {}, {"sig": 1}, {"sig": ""}, {"sig": "ä"}, {"sig": "AA=="}]


def signed_another_type(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["sig"] = base64.b64encode(ALICE.sign(pae("application/json", BODY))).decode()


def signed_the_bare_bytes(envelope: dict[str, Any]) -> None:
    envelope["signatures"][0]["sig"] = base64.b64encode(ALICE.sign(BODY)).decode()


def too_many(envelope: dict[str, Any]) -> None:
    envelope["signatures"] *= 17


@pytest.mark.parametrize(
    "damage",
    [
        changed_payload,
        changed_signature,
        no_signatures,
        other_types,
        signed_another_type,
        signed_the_bare_bytes,
        too_many,
    ],
)
def test_signatures_that_do_not_count(damage: Callable[[dict[str, Any]], None]) -> None:
    envelope = sealed(ALICE)
    damage(envelope)
    assert code(envelope, trusted(ALICE)) == "signature"


def test_a_stranger_does_not_count() -> None:
    assert code(sealed(MALLORY), trusted(ALICE, BOB)) == "signature"
    assert open_envelope(sealed(MALLORY, ALICE), trusted(ALICE, BOB), TARGET) == BODY


def test_the_threshold_counts_different_keys() -> None:
    both = trusted(ALICE, BOB, threshold=2)
    assert code(sealed(ALICE), both) == "signature"
    assert code(sealed(ALICE, ALICE, ALICE), both) == "signature"
    assert code(sealed(ALICE, MALLORY), both) == "signature"
    assert open_envelope(sealed(ALICE, BOB), both, TARGET) == BODY
    assert open_envelope(sealed(MALLORY, BOB, ALICE), both, TARGET) == BODY


def test_one_signature_in_two_spellings_is_one_key() -> None:
    envelope = sealed(ALICE)
    (signature,) = envelope["signatures"]
    envelope["signatures"].append({"keyid": keyid(BOB.public_key()), "sig": signature["sig"].rstrip("=")})
    assert code(envelope, trusted(ALICE, BOB, threshold=2)) == "signature"


@pytest.mark.parametrize("hint", ["", "nonsense", None, 1, [], {}, "bob"])
def test_a_keyid_is_a_hint_only(hint: Any) -> None:
    envelope = sealed(ALICE)
    envelope["signatures"][0]["keyid"] = keyid(BOB.public_key()) if hint == "bob" else hint
    assert open_envelope(envelope, trusted(ALICE, BOB), TARGET) == BODY
    envelope = sealed(MALLORY)
    envelope["signatures"][0]["keyid"] = keyid(ALICE.public_key())
    assert code(envelope, trusted(ALICE)) == "signature"
    del envelope["signatures"][0]["keyid"]
    assert code(envelope, trusted(ALICE)) == "signature"


def test_standard_and_url_safe_base64_with_and_without_padding() -> None:
    for strip in (False, True):
        envelope = sealed(ALICE)
        for holder, key in ((envelope, "payload"), (envelope["signatures"][0], "sig")):
            text = holder[key].replace("+", "-").replace("/", "_")
            holder[key] = text.rstrip("=") if strip else text
        assert open_envelope(envelope, trusted(ALICE), TARGET) == BODY


def pem(key: Any) -> bytes:
    raw: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return raw


def test_keys_are_loaded_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "alice.pem").write_bytes(pem(ALICE))
    (tmp_path / "bob.pem").write_bytes(pem(BOB))
    (tmp_path / "README").write_text("not a key")
    assert load_trusted_keys(tmp_path, 2).keys.keys() == trusted(ALICE, BOB).keys.keys()
    assert open_envelope(sealed(BOB), load_trusted_keys(tmp_path), TARGET) == BODY
    with pytest.raises(ValueError, match="threshold 3"):
        load_trusted_keys(tmp_path, 3)
    with pytest.raises(ValueError, match="threshold 0"):
        load_trusted_keys(tmp_path, 0)


def test_one_key_under_two_names_is_one_key(tmp_path: Path) -> None:
    (tmp_path / "alice.pem").write_bytes(pem(ALICE))
    (tmp_path / "again.pem").write_bytes(pem(ALICE))
    with pytest.raises(ValueError, match="there are 1"):
        load_trusted_keys(tmp_path, 2)


def test_keys_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone"):
        load_trusted_keys(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"no \*.pem"):
        load_trusted_keys(tmp_path)
    (tmp_path / "a.pem").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"a\.pem is not a public key"):
        load_trusted_keys(tmp_path)
    (tmp_path / "a.pem").write_bytes(pem(generate_private_key(SECP256R1())))
    with pytest.raises(ValueError, match=r"a\.pem is not an Ed25519 key"):
        load_trusted_keys(tmp_path)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_no_changed_byte_gets_through(data: st.DataObject) -> None:
    raw = bytearray(base64.b64decode(sealed(ALICE)["payload"]))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    envelope = {**sealed(ALICE), "payload": base64.b64encode(raw).decode()}
    assert code(envelope, trusted(ALICE)) == "signature"
