"""Configs and secrets: content of the target itself that a container finds as a file.

Their content stands in the document alone. A message about one names it, and never says what is in it.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from device_agent.model import compose_units as units
from device_agent.model.compose import File
from device_agent.model.compose_lists import NO_USE, WHEN_PUBLISHING
from device_agent.model.compose_units import NotSupported, NotValid
from device_agent.model.place import Place, Reader, by, read, read_object
from device_agent.model.target import Json

CONFIGS, SECRETS = "configs", "secrets"
HELD_AT = "/.device-agent"
"""Where a container has the volume that its files are in (`adapters/docker_files`)."""
_FOLDER = {CONFIGS: "/", SECRETS: "/run/secrets"}


def _external(value: Json) -> bool:
    if value is not False:
        raise NotSupported("there is no store of them on a device: give the content itself")
    return False


_DEFINITION: Mapping[str, Reader] = {"content": by(units.string), "external": by(_external)}
_DEFINITION_REFUSED = {
    "file": f"`file` {WHEN_PUBLISHING}",
    "environment": f"`environment` {WHEN_PUBLISHING}",
    **dict.fromkeys(("driver", "driver_opts"), "nothing is fetched from elsewhere: give the `content` itself"),
    "template_driver": "a content is taken as it is: what is in it is resolved before it is published",
}
_DEFINITION_IGNORED = {"name": NO_USE, "labels": NO_USE}


def definition(place: Place) -> dict[str, Any]:
    """A config or a secret of the app."""
    required = (
        ()
        if isinstance(place.value, dict) and {"file", "environment", "external"} & place.value.keys()
        else ("content",)
    )
    return read_object(place, _DEFINITION, required, refused=_DEFINITION_REFUSED, ignored=_DEFINITION_IGNORED)


def contents(app: Mapping[str, Json], section: str) -> dict[str, str]:
    """Name → content as the app declares them; what is wrong with one is told where it is declared."""
    declared = app.get(section)
    found: dict[str, str] = {}
    for name, body in declared.items() if isinstance(declared, dict) else ():
        content = body.get("content") if isinstance(body, dict) else None
        found[name] = content if isinstance(content, str) else ""
    return found


def _id(value: Json) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", units.string(value)) or int(value) >= 2**32 - 1:
        raise NotValid('expected the number of a user or a group as a string, such as "1000"')
    return int(value)


_GRANT: Mapping[str, Reader] = {
    "source": by(units.text),
    "target": by(units.text),
    "uid": by(_id),
    "gid": by(_id),
    "mode": by(units.file_mode),
}


def _file(place: Place, section: str) -> File:
    short = not isinstance(place.value, dict)
    fields = {"source": units.text(place.value)} if short else read_object(place, _GRANT, required=("source",))
    source = fields.pop("source")
    if source not in place.names.contents.get(section, {}):
        more = () if short else ("source",)
        raise NotValid(f"the app declares nothing of this name under `{section}`", *more)
    target = posixpath.normpath("/" + posixpath.join(_FOLDER[section], fields.pop("target", source)).lstrip("/"))
    if target == "/":
        raise NotValid("expected the path of a file", "target")
    if f"{target}/".startswith(f"{HELD_AT}/"):
        raise NotValid(f"`{HELD_AT}` is the agent's own place in a container with configs or secrets")
    return File(target=target, content=place.names.contents[section][source], **fields)


def files(section: str) -> Reader:
    """What a service has of its app's `configs` or `secrets`: (where it is said, the file)."""

    def reader(place: Place) -> tuple[tuple[Place, File], ...]:
        return tuple((item, file) for item in place.items() for file in read(item, lambda one: _file(one, section)))

    return reader


def settle(fields: dict[str, Any]) -> None:
    """Both kinds are one thing to a container. Their order means nothing, so they are sorted by target."""
    granted = [*fields.pop(CONFIGS, ()), *fields.pop(SECRETS, ())]
    mounted = [(mount.target, mount.read_only) for mount in fields.get("volumes", ())]
    mounted += [(entry.partition(":")[0], False) for entry in fields.get("tmpfs", ())]
    taken: set[str] = set()
    for where, file in granted:
        if file.target in taken:
            where.invalid(f"there is another file at `{file.target}` already")
        for problem in beside(file, mounted):
            where.invalid(problem)
        taken.add(file.target)
    _check_nested(granted)
    fields["files"] = tuple(sorted((file for _, file in granted), key=lambda file: file.target))


def _check_nested(granted: Iterable[tuple[Place, File]]) -> None:
    """What is in a folder comes right after it in this order."""
    outer = ""
    for where, file in sorted(granted, key=lambda each: each[1].target.split("/")):
        if outer and file.target.startswith(f"{outer}/"):
            where.invalid(f"`{outer}` is a file, too: nothing can be in it")
        else:
            outer = file.target


def beside(file: File, mounted: Iterable[tuple[str, bool]]) -> Iterator[str]:
    """What keeps a file from being mounted beside other mounts: (where, whether it is read-only)."""
    above: dict[str, bool] = {}
    for folder, read_only in mounted:
        if f"{folder}/".startswith(f"{HELD_AT}/"):
            yield f"`{folder}` is in `{HELD_AT}`, the agent's own place in a container with configs or secrets"
        elif f"{folder}/".startswith(f"{file.target}/"):
            yield f"something else is mounted on `{folder}`"
        elif file.target.startswith(f"{folder}/"):
            above[folder] = read_only
    nearest = max(above, key=len, default="")
    if nearest and above[nearest]:
        yield f"the engine cannot make `{file.target}`: what is mounted on `{nearest}` is read-only"
