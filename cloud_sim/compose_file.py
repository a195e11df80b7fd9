"""A Compose file becomes an app of a target.

Variables, `env_file`, `extends`, `include` and profiles are resolved by the Compose of this machine (`docker compose`
or `docker-compose`). Without one the file is read here, variables included, and refused when it needs more than that.
What resolving adds and a target does not want is taken out again, so that the same file gives the same target wherever
it is published from, and so that the agent names its networks and volumes itself.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from cloud_sim import variables, yaml_file
from device_agent.model.errors import Problem, Refused
from device_agent.model.target import Json

Document: TypeAlias = dict[str, Json]

_NEEDS_COMPOSE_SERVICE = ("extends", "env_file", "label_file", "profiles")
_TOP_LEVEL_ONLY_FOR_COMPOSE = ("name", "version")


@dataclass(frozen=True, slots=True)
class ComposeApp:
    name: str
    document: Document
    warnings: tuple[str, ...] = ()


def read_app(
    file: Path, raw: Mapping[str, Json], *, name: str | None = None, profiles: Sequence[str] = ()
) -> ComposeApp:
    """`raw` is the file as it stands. Raises `Refused` (`invalid`), with what to do about it."""
    app = name or _name(file, raw)
    command = compose_command()
    resolved = _resolve(command, file, app, profiles) if command else _read(file, raw)
    document = _stripped(resolved, app)
    return ComposeApp(app, document, tuple(_local_binds(document, file.resolve().parent)))


@cache
def compose_command() -> tuple[str, ...] | None:
    """How Compose is called on this machine, or None."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            answer = subprocess.run([*command, "version", "--short"], capture_output=True, check=False, timeout=30)  # noqa: S603
            if answer.returncode == 0:
                return command
    return None


def _name(file: Path, raw: Mapping[str, Json]) -> str:
    """The Compose file's own `name`, else its folder's for the usual file names, else the file's."""
    if isinstance(raw.get("name"), str) and "$" not in raw["name"]:
        return str(raw["name"])
    usual = re.fullmatch(r"(docker-)?compose\.ya?ml", file.name)
    word = file.resolve().parent.name if usual else file.name.split(".")[0]
    return re.sub(r"[^a-z0-9_-]", "", word.lower()).lstrip("_-") or "app"


def _resolve(command: tuple[str, ...], file: Path, app: str, profiles: Sequence[str]) -> Document:
    chosen = [argument for profile in profiles for argument in ("--profile", profile)]
    folder = file.resolve().parent
    answer = subprocess.run(  # noqa: S603
        [*command, "-p", app, "--project-directory", str(folder), "-f", str(file.resolve()), *chosen, "config"],
        capture_output=True,
        check=False,
        cwd=folder,
        timeout=60,
    )
    if answer.returncode:
        said = answer.stderr.decode(errors="replace").strip()
        raise Refused("invalid", f"`{' '.join(command)} config` refuses {file}: {said}")
    # `config` writes every dollar sign of a value twice, so that its output is a Compose file again.
    document: Document = variables.unescape(yaml_file.load(answer.stdout.decode()))
    return document


def _read(file: Path, raw: Mapping[str, Json]) -> Document:
    services = raw.get("services")
    problems = [Problem("/include", "files are included by Compose")] if "include" in raw else []
    for service, body in services.items() if isinstance(services, dict) else ():
        problems += [
            Problem(f"/services/{service}/{key}", "is resolved by Compose")
            for key in _NEEDS_COMPOSE_SERVICE
            if isinstance(body, dict) and key in body
        ]
    if problems:
        what = "this file needs Compose, and there is none here: install docker compose, or publish `docker compose config`"
        raise Refused("invalid", what, tuple(problems))
    try:
        known = {**variables.read_dotenv(file.resolve().parent / ".env"), **os.environ}
        document: Document = variables.substitute(dict(raw), known)
    except ValueError as error:
        raise Refused("invalid", f"{file}: {error} (set it in the environment or in .env)") from error
    return document


def _stripped(resolved: Mapping[str, Json], app: str) -> Document:
    """Without what only Compose itself needs, and without defaults written out."""
    document = {
        key: value
        for key, value in resolved.items()
        if key not in _TOP_LEVEL_ONLY_FOR_COMPOSE and value not in (None, {})
    }
    services = document.get("services")
    if isinstance(services, dict):
        document["services"] = {
            name: _stripped_service(body) if isinstance(body, dict) else body for name, body in services.items()
        }
    for kind in ("networks", "volumes"):
        definitions = document.get(kind)
        if isinstance(definitions, dict):
            document[kind] = {name: _stripped_definition(body, f"{app}_{name}") for name, body in definitions.items()}
    if document.get("networks") == {"default": {}}:
        del document["networks"]
    # A round trip, so that what YAML alone can say (a number as a key) is found here and not by the agent.
    stripped: Document = json.loads(json.dumps(document))
    return stripped


def _stripped_service(body: Document) -> Document:
    service = {key: value for key, value in body.items() if value is not None}
    if service.get("networks") == {"default": None} or service.get("networks") == ["default"]:
        del service["networks"]
    if "image" in service:
        # Whoever publishes a file has built and pushed the image already; a device only pulls it.
        service.pop("build", None)
    if isinstance(service.get("ports"), list):
        service["ports"] = [_without(port, mode="ingress") for port in service["ports"]]
    if isinstance(service.get("volumes"), list):
        service["volumes"] = [_without(mount, volume={}, bind={}, tmpfs={}) for mount in service["volumes"]]
    return service


def _stripped_definition(body: Json, own_name: str) -> Document:
    """`config` names what is not named after the project, as the agent does by itself."""
    definition: Document = _without(dict(body or {}), name=own_name, ipam={}, external=False)
    return definition


def _without(value: Json, **defaults: Json) -> Json:
    """An object without the keys that say nothing."""
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if key not in defaults or inner != defaults[key]}


def _local_binds(document: Document, folder: Path) -> Sequence[str]:
    """Files of this machine will not be on the devices, and an operator who binds one should know."""
    found = []
    for service, body in document.get("services", {}).items():
        for mount in body.get("volumes", []) if isinstance(body, dict) else ():
            source = mount.get("source") if isinstance(mount, dict) else str(mount).partition(":")[0]
            bound = isinstance(source, str) and (source.startswith(".") or Path(source).is_relative_to(folder))
            if bound and (not isinstance(mount, dict) or mount.get("type") == "bind"):
                found.append(f"/services/{service}/volumes: {source} is bound from the device, not from this machine")
    return found
