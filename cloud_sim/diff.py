"""What one target changes against another: a line for each app, service or key."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from device_agent.model.target import Json

_SECRET = re.compile(r"(passw|secret|token|credential|private|api_?key)|^content$", re.IGNORECASE)
_SHOWN_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Change:
    """`old` is None for what is added, `new` for what is removed; both are short texts to be read."""

    path: tuple[str, ...]
    """The app, then `services` and the service, then the keys below it."""
    old: str | None
    new: str | None

    def __str__(self) -> str:
        name = "/".join(self.path)
        if self.old is None:
            return f"+ {name}: {self.new}"
        if self.new is None:
            return f"- {name}: {self.old}"
        return f"~ {name}: {self.old} → {self.new}"


def diff(old: Mapping[str, Json], new: Mapping[str, Json]) -> tuple[Change, ...]:
    """From the apps of one target to those of another."""
    return tuple(_changes((), old, new))


def _changes(path: tuple[str, ...], old: Mapping[str, Json], new: Mapping[str, Json]) -> Iterator[Change]:
    for key in sorted({*old, *new}):
        here = (*path, key)
        if key not in new:
            yield Change(here, _shown(here, old[key]), None)
        elif key not in old:
            yield Change(here, None, _shown(here, new[key]))
        elif _equal(old[key], new[key]):
            continue
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            yield from _changes(here, old[key], new[key])
        else:
            yield Change(here, _shown(here, old[key]), _shown(here, new[key]))


def _equal(old: Json, new: Json) -> bool:
    """Equal as JSON: `true` is not 1."""
    return json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)


def _shown(path: tuple[str, ...], value: Json) -> str:
    """An app or a service by what it runs, anything else as JSON, cut short; what looks like a secret not at all."""
    if isinstance(value, dict) and len(path) == 1 and "services" in value:
        return f"services {', '.join(sorted(value['services']))}" if isinstance(value["services"], dict) else "app"
    if isinstance(value, dict) and len(path) == 3 and path[1] == "services":  # noqa: PLR2004 - app, services, service
        return f"image {value.get('image', '?')}"
    if value is None:
        return "null (removed here)" if len(path) == 1 else "null"
    if _SECRET.search(path[-1]):
        return "(hidden)"
    text = json.dumps(_without_secrets(value), ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


def _without_secrets(value: Json) -> Json:
    if isinstance(value, dict):
        return {key: "(hidden)" if _SECRET.search(key) else _without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden_assignment(item) if isinstance(item, str) else _without_secrets(item) for item in value]
    return value


def _hidden_assignment(item: str) -> str:
    """`NAME=value`, as in the short form of `environment`."""
    name, found, _ = item.partition("=")
    return f"{name}=(hidden)" if found and _SECRET.search(name) else item
