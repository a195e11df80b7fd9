"""Signing keys: Ed25519, a private one in a file of its own (PKCS #8, PEM, 0600), its public half beside it as `*.pem`.

Devices get the public halves (`DEVICE_AGENT_TRUSTED_KEYS` is a folder of them). The private one stays with whoever
publishes, and belongs neither on the broker nor on a device.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cloud_sim.connection import Misconfigured
from cloud_sim.new_file import PRIVATE, PUBLIC, write_new
from device_agent.wire.dsse import TrustedKeys, keyid

PUBLIC_SUFFIX = ".pem"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What may be shown of a key."""

    keyid: str
    pem: str


def generate(file: Path) -> Path:
    """Make a key: the private half in `file`, the public one in the `.pem` beside it, whose path is the answer.

    Raises `Misconfigured`.
    """
    public = file.with_name(file.name.removesuffix(".key") + PUBLIC_SUFFIX)
    if file.suffix == PUBLIC_SUFFIX:
        raise Misconfigured(f"{file}: *.pem are public keys here, name the private one {file.stem}.key")
    if public.exists():
        raise Misconfigured(f"{public} is there already, and is not written over")
    key = Ed25519PrivateKey.generate()
    write_new(file, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), PRIVATE)
    write_new(public, _pem(key.public_key()), PUBLIC)
    return public


def show(file: Path) -> PublicKey:
    """The public half of a key, private or public. Raises `Misconfigured`."""
    content = _read(file)
    if b"PRIVATE KEY" in content:
        key = _private(file, content).public_key()
    else:
        try:
            loaded = load_pem_public_key(content)
        except ValueError as error:
            raise Misconfigured(f"{file} is no key in PEM: {error}") from error
        if not isinstance(loaded, Ed25519PublicKey):
            raise Misconfigured(f"{file} is not an Ed25519 key")
        key = loaded
    return PublicKey(keyid(key), _pem(key).decode())


def read_signing_keys(files: Sequence[Path]) -> tuple[Ed25519PrivateKey, ...]:
    """Raises `Misconfigured` for what is no private key."""
    return tuple(_private(file, _read(file)) for file in files)


def halves(keys: Sequence[Ed25519PrivateKey], *, threshold: int) -> TrustedKeys:
    """Their public halves, of which `threshold` must have signed."""
    public = {keyid(key): key for key in (private.public_key() for private in keys)}
    return TrustedKeys(public, min(threshold, len(public)))


def _private(file: Path, content: bytes) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError as error:
        raise Misconfigured(
            f"{file} is encrypted: decrypt it for the time of signing (openssl pkey -in {file})"
        ) from error
    except ValueError as error:
        raise Misconfigured(f"{file} is no private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"{file} is not an Ed25519 key")
    return key


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Misconfigured(f"cannot read the key {file}: {error.strerror}") from error


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
