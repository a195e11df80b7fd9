"""How an image comes to the device: `pull_policy`, `pull_refresh_after`, and one platform for a reference."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from device_agent.model import compose_units as units
from device_agent.model.compose import App
from device_agent.model.compose_units import NotSupported, NotValid
from device_agent.model.image import normalise
from device_agent.model.place import Place, Reader, by
from device_agent.model.target import Json

_SAME = {"if_not_present": "missing"}
_EVERY = {"daily": "1d", "weekly": "1w"}
_LEAST = 1_000_000_000
_POLICY = re.compile(r"every_((?:[0-9]+[wdhms])+)")


def _policy(value: Json) -> str:
    policy = _SAME.get(units.text(value), value)
    if policy == "build":
        raise NotSupported("build on the device is not supported: publish an image")
    if policy in ("always", "missing", "never", "refresh", *_EVERY):
        return str(policy)
    if every := _POLICY.fullmatch(str(policy)):
        _interval(every[1])
        return str(policy)
    raise NotValid("expected always, missing, never, daily, weekly, every_<duration> (every_12h) or refresh")


def _interval(value: Json) -> int:
    nanoseconds = units.duration(value)
    if nanoseconds < _LEAST:
        raise NotValid("must be at least 1s")
    return nanoseconds


PULLING: Mapping[str, Reader] = {"pull_policy": by(_policy), "pull_refresh_after": by(_interval)}


def settle(place: Place, fields: dict[str, Any]) -> None:
    """Every way to say an interval is `refresh` with `pull_refresh_after`."""
    policy, after = fields.get("pull_policy", "missing"), "pull_refresh_after"
    if policy == "refresh":
        if after not in place.value:
            place.invalid("is required: `pull_policy` is refresh", after)
        return
    if after in place.value:
        place.invalid("goes with `pull_policy: refresh` only", after)
        fields.pop(after, None)
    every = _EVERY.get(policy) or policy.removeprefix("every_") * policy.startswith("every_")
    if every:
        fields |= {"pull_policy": "refresh", after: units.duration(every)}


def one_platform(root: Place, apps: Mapping[str, App]) -> None:
    """An engine keeps one image under a reference: services cannot have it for two platforms."""
    first: dict[str, tuple[str | None, str]] = {}
    for app, name, image, platform in _platforms(apps):
        had, where = first.setdefault(image, (platform, root.pointer(app, "services", name)))
        if had != platform:
            message = (
                f"{where} has {image} for {had or 'the device itself'}, this for {platform or 'the device itself'}"
            )
            root.invalid(
                f"{message}: say the same of both, or publish it under two names", app, "services", name, "platform"
            )


def _platforms(apps: Mapping[str, App]) -> Iterable[tuple[str, str, str, str | None]]:
    for app, definition in apps.items():
        for name, service in definition.services.items():
            if service.image:
                yield app, name, normalise(service.image), service.platform
