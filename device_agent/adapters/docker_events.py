"""The engine's events, sifted: what can make an own object differ, and not what a healthcheck does every few seconds.

The engine sifts by type and action; what belongs to others is dropped here. Networks and volumes carry no labels in
their events: whose they are is known from the last listing.
"""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from device_agent.model.observed import LABEL_APP, LABEL_DEVICE, LABEL_FILLS, EngineEvent, instance_of

OPENED = EngineEvent("stream", "open", "")

_CONTAINER = ("create", "start", "die", "oom", "destroy", "rename", "pause", "unpause", "update", "health_status")
"""Not `kill`, `stop`, `restart`: their `die` or `start` says it. Not `exec_…`: every healthcheck is one."""
_NETWORK = ("create", "connect", "disconnect", "destroy", "remove")
_VOLUME = ("create", "destroy")
_IMAGE = ("pull", "tag", "untag", "delete", "import", "load")
_FILTERS = {
    "type": ["container", "network", "volume", "image"],
    "event": sorted({*_CONTAINER, *_NETWORK, *_VOLUME, *_IMAGE}),
}


def events_path(since: float) -> str:
    """`since`: the time, because the engine confirms the stream before it listens: so it tells that moment too."""
    return f"/events?since={since:.3f}&filters=" + quote(json.dumps(_FILTERS))


def event(line: bytes, owner: str, apps: Mapping[str, str]) -> EngineEvent | None:
    """The event in a line, or None when it is not our business. `apps`: network id, volume name, container id → app."""
    document: dict[str, Any] = json.loads(line)
    actor = document.get("Actor") or {}
    attributes: Mapping[str, str] = actor.get("Attributes") or {}
    kind, action, id_ = document.get("Type") or "", document.get("Action") or "", actor.get("ID") or ""
    match kind:
        case "container":
            if attributes.get(LABEL_DEVICE) != owner or LABEL_FILLS in attributes:
                return None
            app, service = attributes.get(LABEL_APP), instance_of(attributes) or None
            return EngineEvent(kind, action, id_, attributes.get("name", ""), app, service)
        case "network" if action in ("connect", "disconnect"):
            app = apps.get(id_) or apps.get(attributes.get("container", ""))
            return EngineEvent(kind, action, id_, attributes.get("name", ""), app) if app else None
        case "network":
            return EngineEvent(kind, action, id_, attributes.get("name", ""), apps.get(id_))
        case "volume" if action in _VOLUME:
            return EngineEvent(kind, action, id_, id_, apps.get(id_))
        case "image":
            return EngineEvent(kind, action, id_, attributes.get("name", ""))
    return None
