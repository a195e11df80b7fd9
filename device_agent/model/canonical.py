"""Canonical JSON (RFC 8785) and the digests over it: the same on the device and in the cloud."""

import hashlib

import rfc8785

from device_agent.model.errors import Refused
from device_agent.model.target import Json


def canonical(value: Json) -> bytes:
    """The canonical bytes.

    Raises `Refused` (`malformed`) for what RFC 8785 cannot say: integers beyond 2^53, lone surrogates.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise Refused("malformed", f"not representable in canonical JSON: {error}") from error


def digest(value: Json) -> str:
    """`sha256:` and the hexadecimal hash of the canonical bytes."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()
