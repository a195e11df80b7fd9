"""Our envelopes against another implementation of DSSE: what one seals the other opens, and both refuse the same."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from device_agent.model.command import Command, Signed
from device_agent.model.errors import Refused
from device_agent.wire.commands import encode_command, read_command
from device_agent.wire.dsse import COMMAND, TARGET, keyid, open_envelope, pae, seal
from tests.signing import ALICE, BOB, MALLORY, trusted

KEYS = {"alice": ALICE, "bob": BOB, "mallory": MALLORY}
some_keys = st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=3, unique=True)


def theirs(key: Ed25519PrivateKey) -> SSlibKey:
    return SSlibKey.from_crypto(key.public_key(), keyid=keyid(key.public_key()))


def signed_by_them(body: bytes, keys: Sequence[Ed25519PrivateKey], payload_type: str = TARGET) -> dict[str, Any]:
    envelope = Envelope(body, payload_type, {})
    for key in keys:
        envelope.sign(CryptoSigner(key, theirs(key)))
    document: dict[str, Any] = json.loads(json.dumps(envelope.to_dict()))
    return document


def ours_accepts(envelope: dict[str, Any], keys: Sequence[Ed25519PrivateKey], threshold: int) -> bool:
    try:
        open_envelope(envelope, trusted(*keys, threshold=threshold), TARGET)
    except Refused:
        return False
    return True


def theirs_accepts(envelope: dict[str, Any], keys: Sequence[Ed25519PrivateKey], threshold: int) -> bool:
    try:
        Envelope.from_dict(json.loads(json.dumps(envelope))).verify([theirs(key) for key in keys], threshold)
    except VerificationError:
        return False
    return True


@given(st.text(), st.binary())
def test_the_same_bytes_are_signed(payload_type: str, body: bytes) -> None:
    name = payload_type.encode("utf-8", "replace").decode()
    assert pae(name, body) == Envelope(body, name, {}).pae()


@given(st.binary(max_size=300))
def test_what_we_seal_they_open(body: bytes) -> None:
    envelope = Envelope.from_dict(json.loads(seal(body, [ALICE, BOB])))
    assert envelope.payload == body
    assert envelope.verify([theirs(ALICE), theirs(BOB)], 2).keys() == {keyid(k.public_key()) for k in (ALICE, BOB)}


@given(st.binary(max_size=300))
def test_what_they_sign_we_open(body: bytes) -> None:
    assert open_envelope(signed_by_them(body, [ALICE, BOB]), trusted(ALICE, BOB, threshold=2), TARGET) == body


@given(some_keys, some_keys, st.data())
def test_both_accept_the_same(signers: list[str], believed: list[str], data: st.DataObject) -> None:
    threshold = data.draw(st.integers(1, len(believed)))
    envelope = json.loads(seal(b"{}", [KEYS[name] for name in signers]))
    if data.draw(st.booleans(), "damaged"):
        envelope["payload"] = "e30g"
    keys = [KEYS[name] for name in believed]
    assert ours_accepts(envelope, keys, threshold) == theirs_accepts(envelope, keys, threshold)


def test_a_command_that_they_sign_we_read_and_one_that_we_sign_they_open() -> None:
    at = datetime(2026, 11, 22, 10, tzinfo=UTC)
    command = Command("c1", {"app": "web"}, at + timedelta(seconds=60), Signed("stop", "plant7", "d1", at))
    body = encode_command(command)
    envelope = json.dumps(signed_by_them(body, [ALICE, BOB], COMMAND)).encode()
    assert read_command(envelope, trusted=lambda: trusted(ALICE, BOB, threshold=2)) == command
    ours = Envelope.from_dict(json.loads(seal(body, [ALICE], COMMAND)))
    assert (ours.payload, ours.payload_type) == (body, COMMAND)
    assert len(ours.verify([theirs(ALICE)], 1)) == 1


def test_a_signature_over_another_type_opens_nothing() -> None:
    envelope = Envelope(b"{}", "application/vnd.in-toto+json", {})
    envelope.sign(CryptoSigner(ALICE, theirs(ALICE)))
    document = {**envelope.to_dict(), "payloadType": TARGET}
    with pytest.raises(Refused, match="0 of 1 signatures"):
        open_envelope(document, trusted(ALICE), TARGET)
