"""A payload on a target topic → `Target`, in the protocol's order: size, JSON, signatures, schema, header, keys.

Only what can be told from the document itself is decided here. Whose it is, whether it is expired, stale or a fork,
and what the apps mean, is the intake's. The protocol judges those before unknown keys: `read_version` reads what they
need, `check_keys` is the rest, and `read_header` is both at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import TypeGuard

from device_agent.model import canonical
from device_agent.model.errors import MOST_PROBLEMS, Problem, Refused
from device_agent.model.target import DEVICE, FLEET, Json, Target, Version
from device_agent.wire import dsse, payload
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.payload import DEFAULT_LIMITS, LARGEST_INTEGER, Limits
from device_agent.wire.topics import ID

SCHEMA = 1

KEYS = frozenset(
    ("schema", "scope", "epoch", "revision", "release", "issued_at", "expires_at", "allow_empty", "hold", "apps")
)
_RELEASE_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a refused document says of itself, as far as it can be read: for the ack that refuses it."""

    version: Version | None = None
    release: str | None = None
    digest: str | None = None


def read_target(
    raw: bytes,
    content_type: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trusted: TrustedKeys | None = None,
) -> Target:
    """`open_target`, then `read_header`."""
    return read_header(open_target(raw, content_type, limits, trusted), raw=raw, content_type=content_type)


def open_target(
    raw: bytes,
    content_type: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    trusted: TrustedKeys | None = None,
) -> Json:
    """The target's body, out of its compression and its envelope. Without trusted keys an envelope is opened as it is.

    Raises `Refused`: `too_large`, `malformed` or `signature`.
    """
    document = payload.read(raw, content_type, limits)
    if dsse.is_envelope(document):
        document = payload.parse(dsse.open_envelope(document, trusted, dsse.TARGET))
    elif trusted is not None:
        raise Refused("signature", "not signed, and keys are configured")
    if not isinstance(document, dict):
        raise Refused("malformed", "a target is an object")
    return document


def glimpse(body: Json) -> Glimpse:
    """Never fails: what cannot be read is left out."""
    if not isinstance(body, dict):
        return Glimpse()
    epoch, revision, release = body.get("epoch"), body.get("revision"), body.get("release")
    try:
        digest = canonical.digest(body)
    except Refused:
        digest = None
    return Glimpse(
        version=Version(epoch, revision) if _is_number(epoch) and _is_number(revision) else None,
        release=release if isinstance(release, str) and len(release) <= _RELEASE_LENGTH else None,
        digest=digest,
    )


def read_header(body: Json, *, raw: bytes, content_type: str | None = None) -> Target:
    """The target that `body` is. Raises `Refused`: `schema`, `invalid` or `unsupported`, with every wrong place."""
    target = read_version(body, raw=raw, content_type=content_type)
    check_keys(body)
    return target


def read_version(body: Json, *, raw: bytes, content_type: str | None = None) -> Target:
    """The target, its keys not checked yet: call `check_keys` before anything is made of `apps`.

    Raises `Refused`: `schema`, or `invalid` for a header that cannot be read.
    """
    if not isinstance(body, dict):
        raise Refused("malformed", "a target is an object")
    schema = body.get("schema")
    if not _is_number(schema) or schema != SCHEMA:
        said = "there is none" if "schema" not in body else f"it is {str(schema)[:20]}"
        message = f"schema must be {SCHEMA}, {said}"
        raise Refused("schema", message, (Problem("/schema", message),))
    problems = tuple(islice(_header_problems(body), MOST_PROBLEMS))
    if problems:
        raise Refused("invalid", _summary(problems, "invalid"), problems)
    named = body["scope"]
    apps = body.get("apps")
    return Target(
        scope=FLEET if named.get("device") is None else DEVICE,
        version=Version(body["epoch"], body["revision"]),
        digest=canonical.digest(body),
        release=body.get("release"),
        issued_at=body.get("issued_at"),
        expires_at=body.get("expires_at"),
        allow_empty=body.get("allow_empty", False),
        apps=apps if isinstance(apps, dict) else {},
        raw=raw,
        content_type=content_type or payload.JSON,
        fleet=named["fleet"],
        device=named.get("device"),
        hold=body.get("hold", False),
    )


def check_keys(body: dict[str, Json]) -> None:
    """Raises `Refused`: `unsupported` for top-level keys that this version does not know, `invalid` for `apps`."""
    strange = (key for key in body if key not in KEYS and not key.startswith("x-"))
    unknown = [Problem(_pointer(key), f"{key[:80]} is not a key of a target") for key in islice(strange, MOST_PROBLEMS)]
    if unknown:
        raise Refused("unsupported", _summary(unknown, "not supported"), tuple(unknown))
    wrong = tuple(islice(_apps_problems(body), MOST_PROBLEMS))
    if wrong:
        raise Refused("invalid", _summary(wrong, "invalid"), wrong)


def ignored_keys(body: Json) -> tuple[Problem, ...]:
    """Warnings about the top-level `x-…` keys: allowed, and without effect."""
    keys = body if isinstance(body, dict) else {}
    return tuple(Problem(_pointer(key), "unknown, ignored") for key in keys if key.startswith("x-"))


def _header_problems(body: dict[str, Json]) -> Iterator[Problem]:
    yield from _scope_problems(body.get("scope"))
    for key in ("epoch", "revision"):
        if not _is_number(body.get(key)):
            yield Problem(f"/{key}", "must be a whole number from 0 to 2^53 - 1")
    release = body.get("release")
    if release is not None and not (
        isinstance(release, str) and 0 < len(release) <= _RELEASE_LENGTH and release.isprintable()
    ):
        yield Problem("/release", f"must be 1 to {_RELEASE_LENGTH} printable characters")
    for key in ("issued_at", "expires_at"):
        if body.get(key) is not None and not _is_time(body[key]):
            yield Problem(f"/{key}", "must be a time with its zone, such as 2026-11-22T10:00:00Z")
    for key in ("allow_empty", "hold"):
        if not isinstance(body.get(key, False), bool):
            yield Problem(f"/{key}", "must be true or false")


def _scope_problems(scope: Json) -> Iterator[Problem]:
    if not isinstance(scope, dict):
        yield Problem("/scope", 'must be {"fleet": …, "device": … or null}')
        return
    if not _is_id(scope.get("fleet")):
        yield Problem("/scope/fleet", "must be a fleet's id")
    if scope.get("device") is not None and not _is_id(scope["device"]):
        yield Problem("/scope/device", "must be a device's id, or null in a fleet's target")
    for key in scope:
        if key not in (FLEET, DEVICE):
            yield Problem(f"/scope{_pointer(key)}", "must be left out: a scope is a fleet and a device")


def _apps_problems(body: dict[str, Json]) -> Iterator[Problem]:
    fleet, hold = body["scope"].get("device") is None, body.get("hold") is True
    if fleet and hold:
        yield Problem("/hold", "only a device's own target can hold: name the device in the scope")
    if hold and "apps" not in body:
        return
    apps = body.get("apps")
    if not isinstance(apps, dict):
        yield Problem("/apps", "must be an object: a name and an app each")
        return
    for name, app in apps.items():
        if app is None and fleet:
            yield Problem(
                f"/apps{_pointer(name)}", "must be an app: null only removes a fleet's app in a device's target"
            )
        elif app is not None and not isinstance(app, dict):
            yield Problem(f"/apps{_pointer(name)}", "must be an app: an object" + ("" if fleet else ", or null"))


def _is_number(value: Json) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST_INTEGER


def _is_id(value: Json) -> bool:
    return isinstance(value, str) and ID.fullmatch(value) is not None


def _is_time(value: Json) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _pointer(key: str) -> str:
    """One step of a JSON pointer (RFC 6901, section 3)."""
    return "/" + key[:200].replace("~", "~0").replace("/", "~1")


def _summary(problems: Sequence[Problem], what: str) -> str:
    count = len(problems)
    if count == 1:
        return f"1 place is {what}"
    return f"{count}{' or more' if count == MOST_PROBLEMS else ''} places are {what}"
