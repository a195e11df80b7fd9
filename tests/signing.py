"""Keys for tests: always the same three."""

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from device_agent.wire.dsse import TrustedKeys, keyid

ALICE, BOB, MALLORY = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2, 3))


def trusted(*keys: Ed25519PrivateKey, threshold: int = 1) -> TrustedKeys:
    return TrustedKeys({keyid(key.public_key()): key.public_key() for key in keys}, threshold)


def public_pem(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def trust(folder: Path, **keys: Ed25519PrivateKey) -> Path:
    """A folder of trusted keys with exactly these, as an operator makes it."""
    folder.mkdir(exist_ok=True)
    for file in folder.glob("*.pem"):
        if file.stem not in keys:
            file.unlink()
    for name, key in keys.items():
        (folder / f"{name}.pem").write_bytes(public_pem(key))
    return folder
