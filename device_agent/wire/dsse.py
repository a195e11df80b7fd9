"""DSSE v1 envelopes with Ed25519 signatures, around a target or a command (github.com/secure-systems-lab/dsse).

Signed is the pre-authentication encoding of the payload type and the bytes themselves: nothing is canonicalised, and
the bytes that were verified are the bytes that are read. A `keyid` is a hint at which key to try first, and decides
nothing. `cryptography` is imported only where a key is used: an agent without keys never loads it.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from device_agent.model.errors import Refused
from device_agent.model.target import Json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

TARGET = "application/vnd.device-agent.target.v1+json"
COMMAND = "application/vnd.device-agent.command.v1+json"
"""Payload types. Each is part of what is signed: a signed target is never taken for a command, nor the reverse."""

# Each is tried against each key: this bounds the time that a hostile envelope can cost.
_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The keys, by keyid, of which `threshold` different ones must have signed."""

    keys: Mapping[str, "Ed25519PublicKey"]
    threshold: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= len(self.keys):
            raise ValueError(f"signature threshold {self.threshold}: there are {len(self.keys)} trusted keys")


def load_trusted_keys(folder: Path, threshold: int = 1) -> TrustedKeys:
    """The public keys in `folder`/*.pem (SubjectPublicKeyInfo). Raises ValueError: none, unreadable, or not Ed25519."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    keys: dict[str, Ed25519PublicKey] = {}
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix == ".pem")
    except OSError as error:
        raise ValueError(f"trusted keys: {error}") from error
    for file in files:
        try:
            key = load_pem_public_key(file.read_bytes())
        except (OSError, ValueError) as error:
            raise ValueError(f"trusted keys: {file} is not a public key: {error}") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError(f"trusted keys: {file} is not an Ed25519 key")  # noqa: TRY004 - a setting's value
        keys[keyid(key)] = key
    if not keys:
        raise ValueError(f"trusted keys: no *.pem in {folder}")
    return TrustedKeys(keys, threshold)


def keyid(key: "Ed25519PublicKey") -> str:
    """The hexadecimal sha-256 of the key's SubjectPublicKeyInfo in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def pae(payload_type: str, body: bytes) -> bytes:
    """The pre-authentication encoding: what is signed."""
    name = payload_type.encode()
    return b" ".join((b"DSSEv1", str(len(name)).encode(), name, str(len(body)).encode(), body))


def seal(body: bytes, keys: Iterable["Ed25519PrivateKey"], payload_type: str = TARGET) -> bytes:
    """An envelope around `body`, signed by each of `keys`."""
    signed = pae(payload_type, body)
    signatures = [
        {"keyid": keyid(key.public_key()), "sig": base64.b64encode(key.sign(signed)).decode()} for key in keys
    ]
    envelope = {"payload": base64.b64encode(body).decode(), "payloadType": payload_type, "signatures": signatures}
    return json.dumps(envelope, separators=(",", ":")).encode()


def is_envelope(document: Json) -> bool:
    """Whether it looks like one. Targets and commands have none of these keys."""
    return isinstance(document, dict) and not document.keys().isdisjoint(("payload", "payloadType", "signatures"))


def open_envelope(document: Json, trusted: TrustedKeys | None, payload_type: str) -> bytes:
    """The bytes inside. With `trusted` keys, verified before anybody reads them; without, as they are.

    Raises `Refused`: `malformed` (no envelope of this type) or `signature` (too few good ones).
    """
    if not isinstance(document, dict):
        raise Refused("malformed", "not an envelope: not an object")
    says, payload, signatures = (document.get(key) for key in ("payloadType", "payload", "signatures"))
    if says != payload_type:
        raise Refused("malformed", f"not such an envelope: payloadType is not {payload_type}")
    if not isinstance(payload, str) or not isinstance(signatures, list):
        raise Refused("malformed", "not an envelope: payload must be a string and signatures a list")
    body = _base64(payload)
    if body is None:
        raise Refused("malformed", "not an envelope: payload is not base64")
    if trusted is not None:
        _verify(pae(payload_type, body), signatures, trusted)
    return body


def _verify(signed: bytes, signatures: list[Json], trusted: TrustedKeys) -> None:
    if len(signatures) > _SIGNATURES:
        raise Refused("signature", f"{len(signatures)} signatures: at most {_SIGNATURES} are looked at")
    good: set[str] = set()
    for signature in signatures:
        if not isinstance(signature, dict) or not isinstance(text := signature.get("sig"), str):
            continue
        raw = _base64(text)
        # The hinted key first. One that has signed counts once, so it need not be tried again.
        untried = trusted.keys.keys() - good
        hinted = untried & {hint} if isinstance(hint := signature.get("keyid"), str) else set()
        for name in (*hinted, *(untried - hinted)):
            if raw is not None and _is_signed(trusted.keys[name], raw, signed):
                good.add(name)
                break
    if len(good) < trusted.threshold:
        raise Refused(
            "signature", f"{len(good)} of {trusted.threshold} signatures by trusted keys ({len(signatures)} in all)"
        )


def _is_signed(key: "Ed25519PublicKey", signature: bytes, signed: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415

    try:
        key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _base64(text: str) -> bytes | None:
    """Standard or URL-safe, as DSSE demands, with or without padding; None when it is neither."""
    try:
        raw = text.rstrip("=").replace("-", "+").replace("_", "/").encode("ascii")
        return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return None
