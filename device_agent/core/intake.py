"""Whether an arrived target is accepted, and what the device then wants. The order of checks is the protocol's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from device_agent.core.policy import Policy, offences
from device_agent.core.scopes import effective_apps, effective_digest
from device_agent.core.wanted import Naming, WantedApp, wanted_app
from device_agent.model.errors import Problem, Refused
from device_agent.model.memory import AcceptedTarget, Floor
from device_agent.model.observed import Observed
from device_agent.model.target import DEVICE, FLEET, Identity, Target
from device_agent.model.validate import validate_apps


@dataclass(frozen=True, slots=True)
class Wanted:
    """What this device makes of the scopes."""

    apps: Mapping[str, WantedApp] = field(default_factory=dict)
    digest: str | None = None
    """The effective digest; None when no target is known."""
    warnings: tuple[Problem, ...] = ()
    targets: Mapping[str, Target] = field(default_factory=dict)
    """By scope: what it was made of."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the device has when a target arrives."""

    identity: Identity
    naming: Naming
    policy: Policy
    targets: Mapping[str, AcceptedTarget]
    floors: Mapping[str, Floor]
    has_apps: bool
    """Whether apps are wanted or own containers exist, known from a target or not."""


def want(targets: Mapping[str, Target], naming: Naming, policy: Policy | None) -> Wanted:
    """Lay the scopes over each other and validate. Raises `Refused`.

    `policy` None: what was accepted once is not judged again.
    """
    if not targets:
        return Wanted()
    effective = effective_apps(targets.get(FLEET), targets.get(DEVICE))
    documents = {name: app.document for name, app in effective.items()}
    parsed = validate_apps(documents)
    if policy is not None:
        forbidden = offences(policy, parsed.apps, documents)
        if forbidden:
            raise Refused("policy", f"{len(forbidden)} field(s) against this device's policy", forbidden)
    apps = {name: wanted_app(effective[name], app, naming) for name, app in parsed.apps.items()}
    return Wanted(apps, effective_digest(documents), parsed.warnings, dict(targets))


def admit(target: Target, arrived_for: str, standing: Standing, now: datetime) -> bool:
    """Whether its header lets it in: False for a repetition of what the device has.

    `arrived_for` is the scope of the topic (or of a file's own word). Raises `Refused`: `scope`, `expired`, `stale`
    or `fork`. What a restored backup or a lost database left without its newest target takes that target again.
    """
    _check_scope(target, arrived_for, standing.identity)
    if target.expires_at and now >= datetime.fromisoformat(target.expires_at):
        raise Refused("expired", f"it expired at {target.expires_at}")
    floor = standing.floors.get(target.scope)
    current = standing.targets.get(target.scope)
    if floor and target.version < floor.version:
        raise Refused("stale", f"{target.version} is older than {floor.version}, which this device has accepted")
    has_it = current is not None and current.target.version == target.version
    known = (
        current.target.digest
        if current and has_it
        else floor.digest
        if floor and floor.version == target.version
        else None
    )
    if known not in (None, target.digest):
        raise Refused("fork", f"{target.version} was accepted before with another content")
    return not has_it


def decide(standing: Standing, *arriving: Target) -> Wanted:
    """What the device wants once it has accepted an admitted target, or one of each scope together.

    Raises `Refused`: `unsupported`, `invalid`, `cycle`, `policy` or `empty`.
    """
    targets = {scope: accepted.target for scope, accepted in standing.targets.items()}
    wanted = want({**targets, **{target.scope: target for target in arriving}}, standing.naming, standing.policy)
    meant = any(target.allow_empty or target.hold for target in arriving)
    if not wanted.apps and standing.has_apps and not meant:
        raise Refused("empty", "it would leave this device without any app: say allow_empty if that is meant")
    return wanted


def unknown_scopes(floors: Mapping[str, Floor], targets: Mapping[str, AcceptedTarget]) -> frozenset[str]:
    """Scopes for which a target was accepted once that this device no longer has."""
    return frozenset(floors.keys() - targets.keys())


def own_apps(observed: Observed) -> set[str]:
    """Apps of which the engine shows more than data."""
    files = {volume.app for volume in observed.volumes if volume.app and volume.service}
    return files | {c.app for c in observed.containers} | {n.app for n in observed.networks if n.app}


def adopted_apps(observed: Observed, unknown: frozenset[str]) -> frozenset[str]:
    """Apps with containers made for a target that was lost: nothing may be concluded about them."""
    return frozenset(c.app for c in observed.containers if c.revision.partition(":")[0] in unknown)


def changed_apps(before: Wanted, after: Wanted) -> frozenset[str]:
    """The apps that differ: added, changed or gone."""
    names = before.apps.keys() | after.apps.keys()
    return frozenset(
        name
        for name in names
        if name not in before.apps or name not in after.apps or before.apps[name].digest != after.apps[name].digest
    )


def _check_scope(target: Target, arrived_for: str, identity: Identity) -> None:
    if target.fleet != identity.fleet:
        raise Refused("scope", f"it is for the fleet {target.fleet!r}, this is {identity.fleet!r}", _at("/scope/fleet"))
    if target.device not in (None, identity.device):
        raise Refused(
            "scope", f"it is for the device {target.device!r}, this is {identity.device!r}", _at("/scope/device")
        )
    if target.scope != arrived_for:
        raise Refused("scope", f"a {target.scope} target came where {arrived_for} targets come", _at("/scope/device"))


def _at(pointer: str) -> tuple[Problem, ...]:
    return (Problem(pointer, "it does not fit this device"),)
