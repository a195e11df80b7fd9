"""From the engine's listings and inspections to what `Observed` is made of. Pure.

A container whose labels do not name an app and a service is nobody's: it is left alone.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from device_agent.model.image import normalise
from device_agent.model.observed import (
    LABEL_APP,
    LABEL_DEPENDS_ON,
    LABEL_DEVICE,
    LABEL_IMAGE,
    LABEL_NETWORK,
    LABEL_RELEASE,
    LABEL_REVISION,
    LABEL_SERVICE,
    LABEL_SPEC,
    LABEL_UPDATE_LOCK,
    LABEL_VOLUME,
    UPDATE_LOCK,
    Container,
    Health,
    Limits,
    Network,
    Status,
    Volume,
    instance_of,
)

Json = dict[str, Any]

NETWORKS, VOLUMES, IMAGES = "/networks", "/volumes", "/images/json"

_HEALTH = {"(healthy)": Health.HEALTHY, "(unhealthy)": Health.UNHEALTHY, "(health: starting)": Health.STARTING}
_CODE = re.compile(r"\((-?\d+)\)")
_ENDED = frozenset({Status.EXITED, Status.DEAD, Status.RESTARTING})
_PODMAN = {"stopping": Status.RUNNING, "stopped": Status.EXITED}
"""Its own words; `configured` and `initialized` are created."""
_CPU = 1_000_000_000
_CPU_PERIOD = 100_000
"""The kernel's, in microseconds, where only a quota is given."""
_NEVER = "0001-01-01T00:00:00Z"


def containers_path(owner: str) -> str:
    """Own containers only, told by the label's value: two agents may share an engine."""
    return "/containers/json?all=1&filters=" + quote(json.dumps({"label": [f"{LABEL_DEVICE}={owner}"]}))


def inspect_path(container_id: str) -> str:
    return f"/containers/{container_id}/json"


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing says of a container, before anything of its inspection is added."""

    container: Container
    mark: tuple[Status, int | None]
    """An inspection holds as long as this is the same."""


@dataclass(frozen=True, slots=True)
class Inspected:
    mark: tuple[Status, int | None]
    status: Status
    exit_code: int | None
    restart: str
    created_at: str | None
    started_at: str | None
    restarts: int
    error: str
    limits: Limits
    bound: frozenset[tuple[int, str]]
    """Fixed host ports it is to have, also while it does not run."""


def listed_containers(body: bytes) -> tuple[Listed, ...]:
    return tuple(_listed(item) for item in json.loads(body) if _ours(item.get("Labels") or {}))


def with_inspection(listed: Listed, inspected: Inspected | None, networks: Mapping[str, str]) -> Container:
    """The whole container. An attachment of one that never ran has no network id yet: it will be the one so named."""
    c = listed.container
    # The engine tells that a container has died before its listing shows it; an inspection waits until it is through.
    attached = {name: id_ or networks.get(name, "") for name, id_ in c.networks.items()}
    if inspected is None:
        return replace(c, networks=attached, exit_code=listed.mark[1])
    ended = inspected.status in _ENDED or inspected.error
    return replace(
        c,
        status=inspected.status,
        health=c.health if inspected.status is c.status else None,
        networks=attached,
        published=c.published | inspected.bound,
        exit_code=inspected.exit_code if ended else None,
        restart=inspected.restart,
        limits=inspected.limits,
        created_at=inspected.created_at,
        started_at=inspected.started_at,
        restarts=inspected.restarts,
        error=inspected.error,
    )


def inspected_container(body: bytes, mark: tuple[Status, int | None]) -> Inspected:
    document: Json = json.loads(body)
    state: Json = document["State"]
    status = _status(state.get("Status") or "")
    error = state.get("Error") or ""
    if not error and state.get("OOMKilled") and status in _ENDED:
        error = "oom"
    started = state.get("StartedAt") or ""
    host: Json = document.get("HostConfig") or {}
    return Inspected(
        mark=mark,
        status=status,
        exit_code=state.get("ExitCode"),
        restart=(host.get("RestartPolicy") or {}).get("Name") or "no",
        created_at=document.get("Created") or None,
        started_at=None if started in ("", _NEVER) else started,
        restarts=document.get("RestartCount") or 0,
        error=error,
        limits=_limits(host),
        bound=frozenset(_bound(host.get("PortBindings") or {})),
    )


def networks(owner: str) -> Callable[[bytes], tuple[Network, ...]]:
    def parse(body: bytes) -> tuple[Network, ...]:
        return tuple(_network(item, owner) for item in json.loads(body))

    return parse


def volumes(owner: str) -> Callable[[bytes], tuple[Volume, ...]]:
    def parse(body: bytes) -> tuple[Volume, ...]:
        return tuple(_volume(item, owner) for item in json.loads(body).get("Volumes") or ())

    return parse


def images(body: bytes) -> dict[str, str]:
    """Every reference under which an image can be used → its id. `<none>` stands for no reference."""
    found: dict[str, str] = {}
    for item in json.loads(body):
        id_ = item["Id"]
        found[id_] = id_
        for reference in (*(item.get("RepoTags") or ()), *(item.get("RepoDigests") or ())):
            if "<none>" not in reference:
                found[normalise(reference)] = id_
    return found


def _ours(labels: Mapping[str, str]) -> bool:
    return bool(labels.get(LABEL_APP)) and bool(labels.get(LABEL_SERVICE))


def _listed(item: Json) -> Listed:
    labels: Mapping[str, str] = item["Labels"]
    status = _status(item.get("State") or "")
    text: str = item.get("Status") or ""
    code = _CODE.search(text) if status in _ENDED else None
    exit_code = int(code.group(1)) if code else None
    attached = (item.get("NetworkSettings") or {}).get("Networks") or {}
    container = Container(
        id=item["Id"],
        name=_name(item),
        app=labels[LABEL_APP],
        service=instance_of(labels),
        spec=labels.get(LABEL_SPEC, ""),
        image=normalise(labels.get(LABEL_IMAGE) or item.get("Image") or ""),
        image_id=item.get("ImageID") or "",
        status=status,
        release=labels.get(LABEL_RELEASE, ""),
        revision=labels.get(LABEL_REVISION, ""),
        depends_on=tuple(word for word in labels.get(LABEL_DEPENDS_ON, "").split(",") if word),
        networks={name: (endpoint or {}).get("NetworkID") or "" for name, endpoint in attached.items()},
        update_lock=labels.get(LABEL_UPDATE_LOCK) or UPDATE_LOCK,
        published=frozenset(_public(item.get("Ports") or ())),
        health=next((health for mark, health in _HEALTH.items() if mark in text), None),
    )
    return Listed(container, (status, exit_code))


def _name(item: Json) -> str:
    # A legacy link adds names with two slashes, one for each container that links to it.
    names: list[str] = [name.removeprefix("/") for name in item.get("Names") or ()]
    id_: str = item["Id"]
    return next((name for name in names if "/" not in name), id_[:12])


def _status(text: str) -> Status:
    try:
        return Status(text)
    except ValueError:
        return _PODMAN.get(text, Status.CREATED)


def _public(ports: Iterable[Json]) -> Iterator[tuple[int, str]]:
    for port in ports:
        if port.get("PublicPort"):
            yield port["PublicPort"], port.get("Type") or "tcp"


def _bound(bindings: Mapping[str, list[Json] | None]) -> Iterator[tuple[int, str]]:
    for key, choices in bindings.items():
        protocol = key.partition("/")[2] or "tcp"
        for choice in choices or ():
            port = choice.get("HostPort") or ""
            if port.isdecimal() and port != "0":
                yield int(port), protocol


def _limits(host: Json) -> Limits:
    quota, period = host.get("CpuQuota") or 0, host.get("CpuPeriod") or _CPU_PERIOD
    by_quota = quota * _CPU // period if quota > 0 else 0
    return Limits(
        cpus=host.get("NanoCpus") or by_quota,
        cpu_shares=host.get("CpuShares") or 0,
        cpuset=host.get("CpusetCpus") or "",
        memory=host.get("Memory") or 0,
        memory_reservation=host.get("MemoryReservation") or 0,
        memory_swap=host.get("MemorySwap") or 0,
        pids=host.get("PidsLimit") or 0,
        blkio_weight=host.get("BlkioWeight") or 0,
        retries=(host.get("RestartPolicy") or {}).get("MaximumRetryCount") or 0,
    )


def _network(item: Json, owner: str) -> Network:
    labels = _labels(item, owner)
    return Network(item["Name"], item["Id"], labels.get(LABEL_APP), labels.get(LABEL_NETWORK), labels.get(LABEL_SPEC))


def _volume(item: Json, owner: str) -> Volume:
    labels = _labels(item, owner)
    service = instance_of(labels) or None
    return Volume(item["Name"], labels.get(LABEL_APP), labels.get(LABEL_VOLUME), labels.get(LABEL_SPEC), service)


def _labels(item: Json, owner: str) -> Mapping[str, str]:
    """An own object's labels; none for a foreign one."""
    labels: Mapping[str, str] = item.get("Labels") or {}
    return labels if labels.get(LABEL_DEVICE) == owner else {}
