"""What a device makes of its scopes: the device target's apps laid over the fleet's, app by app.

A cloud that has both targets computes the same effective apps and the same digest, and so proves convergence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.model.canonical import digest
from device_agent.model.errors import Problem, Refused
from device_agent.model.target import DEVICE, FLEET, Json, Target, Version, printed_revision

EXTENDS = "x-extends"
_MAPS_THAT_MAY_BE_LISTS = frozenset({"environment", "labels", "sysctls"})


@dataclass(frozen=True, slots=True)
class EffectiveApp:
    """One app as this device is to run it, still raw, and the target that it comes from."""

    name: str
    document: Json = field(repr=False)
    scope: str
    version: Version
    release: str | None

    @property
    def revision(self) -> str:
        return printed_revision(self.scope, self.version)


def effective_apps(fleet: Target | None, device: Target | None) -> dict[str, EffectiveApp]:
    """By name. Raises `Refused` (`invalid`) when the device target extends what the fleet's does not have."""
    apps: dict[str, EffectiveApp] = {}
    if fleet:
        for name, document in fleet.apps.items():
            apps[name] = EffectiveApp(name, document, FLEET, fleet.version, fleet.release)
    if device:
        for name, document in lay_over(fleet.apps if fleet else {}, device.apps).items():
            if document is None:
                apps.pop(name, None)
            elif name in device.apps:
                apps[name] = EffectiveApp(name, document, DEVICE, device.version, device.release)
    return apps


def lay_over(fleet: Mapping[str, Json], device: Mapping[str, Json]) -> dict[str, Json]:
    """The raw apps of both scopes as one: an app of `device` replaces, extends (`x-extends`) or removes (None).

    Removed apps stay in the result as None.
    """
    result = dict(fleet)
    problems = []
    for name, document in device.items():
        if not isinstance(document, dict) or EXTENDS not in document:
            result[name] = document
        elif document[EXTENDS] != FLEET:
            problems.append(Problem(_pointer(name), "the only thing to extend is the fleet's app: write 'fleet'"))
        elif fleet.get(name) is None:
            problems.append(Problem(_pointer(name), f"the fleet's target has no app {name!r} to extend"))
        else:
            changes = {key: value for key, value in document.items() if key != EXTENDS}
            result[name] = _merged(fleet[name], changes)
    if problems:
        raise Refused("invalid", f"{len(problems)} app(s) cannot be extended", tuple(problems))
    return result


def effective_digest(apps: Mapping[str, Json]) -> str:
    """`sha256:…` over the canonical JSON of the effective raw apps, removed ones left out."""
    return digest({name: document for name, document in apps.items() if document is not None})


def _pointer(app: str) -> str:
    return f"/apps/{app.replace('~', '~0').replace('/', '~1')}/{EXTENDS}"


def _merged(base: Json, change: Json, key: str = "") -> Json:
    """RFC 7396 (JSON Merge Patch): objects key by key, null removes, everything else replaces."""
    if not isinstance(change, dict):
        return change
    if isinstance(base, list) and key in _MAPS_THAT_MAY_BE_LISTS:
        base = dict(item.partition("=")[::2] for item in base if isinstance(item, str))
    result = dict(base) if isinstance(base, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value, name)
    return result
