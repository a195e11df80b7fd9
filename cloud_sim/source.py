"""What is to be published: files that are target documents or Compose files, told apart by their content."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloud_sim import yaml_file
from cloud_sim.compose_file import read_app
from cloud_sim.connection import Misconfigured
from device_agent.core.scopes import lay_over
from device_agent.model.errors import Refused
from device_agent.model.target import Json, Target
from device_agent.model.validate import validate_apps

_COUNTED = ("schema", "scope", "epoch", "revision", "issued_at")
"""Keys of a target document that publishing writes itself."""


@dataclass(frozen=True, slots=True)
class Source:
    """The apps of the files, and what a target document says beside them."""

    apps: Mapping[str, Json]
    whole: bool = False
    """A target document: its apps are all the scope's apps. A Compose file is one of them."""
    scope: Mapping[str, Json] = field(default_factory=dict)
    release: str | None = None
    expires_at: str | None = None
    allow_empty: bool = False
    hold: bool = False
    more: Mapping[str, Json] = field(default_factory=dict)
    """Keys of a target document that are published as they are."""
    warnings: tuple[str, ...] = ()


def read_files(files: Sequence[Path], *, app: str | None = None, profiles: Sequence[str] = ()) -> Source:
    """Raises `Misconfigured` for what is no such file, and `Refused` for what cannot be made an app."""
    apps: dict[str, Json] = {}
    warnings: list[str] = []
    for file in files:
        content = _read(file)
        if "apps" in content:
            if len(files) > 1 or app:
                raise Misconfigured(f"{file} is a target document: it is published alone, and names its apps itself")
            return _document(file, content)
        if app and len(files) > 1:
            raise Misconfigured("--app names the app of one Compose file: publish several one by one")
        found = read_app(file, content, name=app, profiles=profiles)
        if found.name in apps:
            raise Misconfigured(f"two files make an app {found.name!r}: give one a `name:`")
        apps[found.name] = found.document
        warnings += found.warnings
    return Source(apps, warnings=tuple(warnings))


def combined(source: Source, last: Mapping[str, Json], *, removed: Sequence[str], replace: bool) -> dict[str, Json]:
    """The apps of the next target: the last one's with those of a Compose file put in, as when a file is pushed."""
    unknown = [name for name in removed if name not in last]
    if unknown:
        there = ", ".join(sorted(last)) or "none"
        raise Misconfigured(f"cannot remove {', '.join(unknown)}: the apps of the last target are {there}")
    kept = {} if source.whole or replace else {name: app for name, app in last.items() if name not in removed}
    return {**kept, **source.apps}


def holds(source: Source, last: Target | None, *, asked: bool | None, device: str | None) -> bool:
    """Whether a device's next target holds it: as asked, or as the document says, or as the last one did."""
    if asked is None:
        return source.hold or (last is not None and last.hold and not source.whole)
    if device is None:
        raise Misconfigured("--hold and --no-hold are for one device: name it with --device")
    return asked


def check(apps: Mapping[str, Json], *, fleet: Target | None) -> tuple[str, ...]:
    """Judge them as a device will, laid over its fleet's target. Returns the warnings; raises `Refused`."""
    effective = lay_over(fleet.apps, apps) if fleet else apps
    parsed = validate_apps({name: app for name, app in effective.items() if app is not None})
    return tuple(f"{warning.pointer}: {warning.message}" for warning in parsed.warnings)


def _read(file: Path) -> Mapping[str, Json]:
    try:
        content = yaml_file.load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError) as error:
        raise Misconfigured(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise Misconfigured(f"{file} is neither JSON nor YAML: {error}") from error
    if not isinstance(content, dict) or not ({"apps", "services", "include"} & content.keys()):
        raise Misconfigured(f"{file} is neither a target (`apps`) nor a Compose file (`services`)")
    return content


def _document(file: Path, content: Mapping[str, Json]) -> Source:
    for key in _not_text(content):
        raise Misconfigured(f"{file}: the key {key!r} must be text: put it between quotes")
    apps, scope = content["apps"], content.get("scope") or {}
    if not isinstance(apps, dict) or not isinstance(scope, dict):
        raise Refused("invalid", f"{file}: `apps` and `scope` of a target are objects")
    own = (*_COUNTED, "apps", "release", "expires_at", "allow_empty", "hold")
    return Source(
        apps,
        whole=True,
        scope=scope,
        release=content.get("release"),
        expires_at=content.get("expires_at"),
        allow_empty=content.get("allow_empty") is True,
        hold=content.get("hold") is True,
        more={key: value for key, value in content.items() if key not in own},
    )


def _not_text(value: object) -> Iterator[object]:
    """Keys that YAML has, and JSON has not. Of a Compose file Compose sees to them."""
    if isinstance(value, dict):
        yield from (key for key in value if not isinstance(key, str))
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _not_text(inner)
