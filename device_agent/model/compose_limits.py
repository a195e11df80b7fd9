"""How much of the host a container may use: CPU, memory, processes, and what `deploy` says about it.

`deploy` is a second way to say the same. As in Compose, both may say it when they say the same, and
`deploy.restart_policy` outweighs `restart`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from device_agent.model import compose_forms as forms
from device_agent.model import compose_isolation as isolation
from device_agent.model import compose_units as units
from device_agent.model.compose import DeviceLimit, Restart
from device_agent.model.compose_lists import NO_USE
from device_agent.model.compose_units import NotValid
from device_agent.model.place import Place, Reader, by, read, read_fields, read_object
from device_agent.model.target import Json


def _count(highest: int = units.LARGEST, lowest: int = 0) -> Reader:
    """A whole number; 0 is the engine's word for its own default."""
    return by(lambda value: units.integer(value, lowest=lowest, highest=highest) or None)


def _cpu_period(value: Json) -> int | None:
    period = units.integer(value, highest=1_000_000)
    if 0 < period < 1000:  # noqa: PLR2004 - a millisecond
        raise NotValid("must be from 1000 to 1000000 microseconds")
    return period or None


def _cpu_quota(value: Json) -> int | None:
    quota = units.integer(value, lowest=-1)
    if 0 < quota < 1000:  # noqa: PLR2004
        raise NotValid("must be at least 1000 microseconds")
    return quota or None


def _cpuset(value: Json) -> str:
    if not re.fullmatch(r"[0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*", units.text(value)):
        raise NotValid("expected numbers of CPUs, such as 0-3 or 0,2")
    return str(value)


def _memory_and_swap(value: Json) -> int | None:
    return -1 if value in (-1, "-1") else units.limit(value)


def _weight(value: Json) -> int | None:
    weight = units.number(value)
    if weight and not 10 <= weight <= 1000:  # noqa: PLR2004
        raise NotValid("must be from 10 to 1000")
    return weight or None


def _of_devices(key: str, parse: Callable[[Json], int | None]) -> Reader:
    """A list of `{path, KEY}`. 0 is no limit."""

    def one(item: Place) -> DeviceLimit | None:
        fields = read_object(item, {"path": by(forms.host_path), key: by(parse)}, required=("path", key))
        return DeviceLimit(path=fields["path"], limit=fields[key]) if fields[key] else None

    def reader(place: Place) -> tuple[DeviceLimit, ...]:
        return tuple(limit for item in place.items() for limit in read(item, one) if limit)

    return reader


_BLKIO: Mapping[str, Reader] = {
    "weight": by(_weight),
    "weight_device": _of_devices("weight", _weight),
    "device_read_bps": _of_devices("rate", units.limit),
    "device_read_iops": _of_devices("rate", units.integer),
    "device_write_bps": _of_devices("rate", units.limit),
    "device_write_iops": _of_devices("rate", units.integer),
}

LIMITS: Mapping[str, Reader] = {
    "cpus": by(units.cpus),
    "cpu_shares": _count(),
    "cpu_quota": by(_cpu_quota),
    "cpu_period": by(_cpu_period),
    "cpuset": by(_cpuset),
    "mem_limit": by(units.limit),
    "mem_reservation": by(units.limit),
    "memswap_limit": by(_memory_and_swap),
    "mem_swappiness": by(lambda value: units.integer(value, highest=100)),
    "shm_size": by(units.limit),
    "oom_kill_disable": by(units.boolean),
    "oom_score_adj": by(lambda value: units.integer(value, lowest=-1000, highest=1000)),
    "pids_limit": _count(lowest=-1),
    "blkio_config": lambda place: read_object(place, _BLKIO),
    "scale": by(units.integer),
}

# -------------------------------------------------------------------------------------------------- deploy


def _memory(value: Json) -> int | None:
    return units.limit(units.string(value))


_LIMITS: Mapping[str, Reader] = {"cpus": by(units.cpus), "memory": by(_memory), "pids": _count(lowest=-1)}
_RESERVATIONS: Mapping[str, Reader] = {"memory": by(_memory), "devices": isolation.device_requests}
_RESOURCES: Mapping[str, Reader] = {
    "limits": lambda place: read_object(place, _LIMITS),
    "reservations": lambda place: read_object(
        place, _RESERVATIONS, ignored=dict.fromkeys(("cpus", "generic_resources"), NO_USE)
    ),
}
_CONDITIONS: Mapping[str, str] = {
    "none": "no",
    "no": "no",
    "on-failure": "on-failure",
    "any": "always",
    "always": "always",
    "unless-stopped": "unless-stopped",
}
_RESTART_POLICY: Mapping[str, Reader] = {
    "condition": by(units.one_of(*_CONDITIONS)),
    "max_attempts": _count(highest=2**31 - 1),
}


def _restart_policy(place: Place) -> Restart:
    """Without a condition, `any`, as the specification has it."""
    fields = read_object(place, _RESTART_POLICY, ignored=dict.fromkeys(("delay", "window"), NO_USE))
    policy = _CONDITIONS[fields.get("condition", "any")]
    attempts = fields.get("max_attempts") or 0
    if attempts and policy != "on-failure":
        raise NotValid("goes only with the condition on-failure", "max_attempts")
    return Restart(policy=policy, max_retries=attempts)  # type: ignore[arg-type]


_DEPLOY: Mapping[str, Reader] = {
    "replicas": by(units.integer),
    "resources": lambda place: read_object(place, _RESOURCES),
    "restart_policy": _restart_policy,
}
DEPLOY_IGNORED = dict.fromkeys(
    ("mode", "placement", "update_config", "rollback_config", "endpoint_mode", "labels"), NO_USE
)
_SAME: tuple[tuple[str, str, str], ...] = (
    ("cpus", "limits", "cpus"),
    ("mem_limit", "limits", "memory"),
    ("pids_limit", "limits", "pids"),
    ("mem_reservation", "reservations", "memory"),
)


def deploy(place: Place) -> dict[str, Any]:
    return {} if place.value is None else read_fields(place, _DEPLOY, ignored=DEPLOY_IGNORED)


def settle(place: Place, fields: dict[str, Any]) -> None:
    """Put the service's fields together: what `deploy` says among them, and what goes with what."""
    deployed = fields.pop("deploy", {})
    resources = deployed.get("resources", {})
    for key, section, name in _SAME:
        given = resources.get(section, {}).get(name)
        if given is None:
            continue
        if fields.get(key) not in (None, given):
            place.invalid(f"says something else than `{key}`", "deploy", "resources", section, name)
        fields[key] = given
    if "replicas" in deployed:
        if fields.get("scale") not in (None, deployed["replicas"]):
            place.invalid("says something else than `scale`", "deploy", "replicas")
        fields["scale"] = deployed["replicas"]
    if "restart_policy" in deployed:
        fields["restart"] = deployed["restart_policy"]
    requests = (*fields.pop("gpus", ()), *resources.get("reservations", {}).get("devices", ()))
    fields["device_requests"] = requests
    blkio = fields.pop("blkio_config", {})
    fields["blkio_weight"] = blkio.pop("weight", None)
    fields["blkio_devices"] = {key: limits for key, limits in blkio.items() if limits}
    _check(place, fields)


def _check(place: Place, fields: Mapping[str, Any]) -> None:
    """What every engine refuses."""
    memory, swap, reserved = (fields.get(key) for key in ("mem_limit", "memswap_limit", "mem_reservation"))
    for key in ("cpu_quota", "cpu_period"):
        if fields.get(key) and fields.get("cpus"):
            place.invalid("excludes `cpus`: they are two ways to say one thing", key)
    if swap and swap > 0 and not memory:
        place.invalid("needs `mem_limit`: it is memory and swap together", "memswap_limit")
    elif swap and swap > 0 and memory > swap:
        place.invalid("is below `mem_limit`: it is memory and swap together", "memswap_limit")
    if memory and reserved and reserved > memory:
        place.invalid("is above the limit", *_written(place, "mem_reservation", "reservations"))


def _written(place: Place, key: str, section: str) -> tuple[str, ...]:
    return (key,) if key in place.value else ("deploy", "resources", section, "memory")
