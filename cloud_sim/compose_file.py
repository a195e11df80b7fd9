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

from cloud_sim import compose_contents, variables, yaml_file
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


@dataclass(frozen=True, slots=True)
class Compose:
    """The Compose of this machine. Version 1 prints what is in no profile that is chosen, and knows no `name`."""

    command: tuple[str, ...]
    first: bool

    def __str__(self) -> str:
        return " ".join(self.command)


def read_app(
    file: Path, raw: Mapping[str, Json], *, name: str | None = None, profiles: Sequence[str] = ()
) -> ComposeApp:
    """`raw` is the file as it stands. Raises `Refused` (`invalid`), with what to do about it."""
    app = name or _name(file, raw)
    compose = find_compose()
    document = _stripped(_resolve(compose, file, raw, app, profiles) if compose else _read(file, raw), app)
    folder = file.resolve().parent
    document = compose_contents.resolved(document, folder, _known(file))
    return ComposeApp(app, document, tuple(_local_binds(document, folder)))


@cache
def find_compose() -> Compose | None:
    """How Compose is called here, or None."""
    for command in (("docker", "compose"), ("docker-compose",)):
        if shutil.which(command[0]):
            answer = subprocess.run([*command, "version", "--short"], capture_output=True, check=False, timeout=30)  # noqa: S603
            if answer.returncode == 0:
                return Compose(command, first=answer.stdout.strip().startswith(b"1."))
    return None


def _name(file: Path, raw: Mapping[str, Json]) -> str:
    """The Compose file's own `name`, else its folder's for the usual file names, else the file's."""
    if isinstance(raw.get("name"), str) and "$" not in raw["name"]:
        return str(raw["name"])
    usual = re.fullmatch(r"(docker-)?compose\.ya?ml", file.name)
    word = file.resolve().parent.name if usual else file.name.split(".")[0]
    return re.sub(r"[^a-z0-9_-]", "", word.lower()).lstrip("_-") or "app"


def _resolve(compose: Compose, file: Path, raw: Mapping[str, Json], app: str, profiles: Sequence[str]) -> Document:
    folder = str(file.resolve().parent)
    chosen = [argument for profile in profiles for argument in ("--profile", profile)]
    call = [*compose.command, "-p", app, "--project-directory", folder, "-f"]
    given = {key: value for key, value in raw.items() if key != "name"}
    answer = subprocess.run(  # noqa: S603
        [*call, "-" if compose.first else str(file.resolve()), *chosen, "config"],
        input=json.dumps(compose_contents.for_version_1(given)) if compose.first else "",
        capture_output=True,
        check=False,
        cwd=folder,
        encoding="utf-8",
        errors="replace",
        timeout=60,
    )
    if answer.returncode:
        said = answer.stderr.strip().replace("'./-'", str(file))
        raise Refused("invalid", f"`{compose} config` refuses {file}: {said}")
    # `config` writes every dollar sign of a value twice, so that its output is a Compose file again.
    document: Document = variables.unescape(yaml_file.load(answer.stdout))
    if compose.first:
        active = {*profiles, *filter(None, os.environ.get("COMPOSE_PROFILES", "").split(","))}
        document["services"] = {
            name: body
            for name, body in document.get("services", {}).items()
            if not body.get("profiles") or active & set(body["profiles"])
        }
        document |= {key: value for key, value in raw.items() if key.startswith("x-")}
        past = {key: value for key, value in raw.items() if key in compose_contents.SECTIONS}
        document = compose_contents.from_version_1(document, _substituted(file, past))
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
        what = "this needs Compose, and there is none here: install it, or publish what `docker compose config` prints"
        raise Refused("invalid", what, tuple(problems))
    document = _substituted(file, raw)
    for body in document.get("services", {}).values():
        if isinstance(body, dict) and isinstance(body.get("environment"), (dict, list)):
            body["environment"] = _passed_through(body["environment"], _known(file))
    return document


def _known(file: Path) -> dict[str, str]:
    return {**variables.read_dotenv(file.resolve().parent / ".env"), **os.environ}


def _substituted(file: Path, raw: Mapping[str, Json]) -> Document:
    try:
        document: Document = variables.substitute(dict(raw), _known(file))
    except ValueError as error:
        raise Refused("invalid", f"{file}: {error} (set it in the environment or in .env)") from error
    return document


def _passed_through(environment: Json, known: Mapping[str, str]) -> Json:
    """A variable without a value has the one it has here; none at all, when it has none here."""
    if isinstance(environment, dict):
        return {name: known.get(name) if value is None else value for name, value in environment.items()}
    return [
        entry if "=" in str(entry) else f"{entry}={known[entry]}"
        for entry in environment
        if "=" in str(entry) or entry in known
    ]


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
    for kind in ("networks", "volumes", *compose_contents.SECTIONS):
        definitions = document.get(kind)
        if isinstance(definitions, dict):
            document[kind] = {name: _stripped_definition(body, f"{app}_{name}") for name, body in definitions.items()}
    if document.get("networks") == {"default": {}}:
        del document["networks"]
    # A round trip, so that what YAML alone can say (a number as a key) is found here and not by the agent.
    stripped: Document = json.loads(json.dumps(document))
    return stripped


def _stripped_service(body: Document) -> Document:
    service = {key: value for key, value in body.items() if value is not None and key != "profiles"}
    if isinstance(service.get("environment"), dict):
        service["environment"] = {name: value for name, value in service["environment"].items() if value is not None}
    if isinstance(service.get("depends_on"), dict):
        service["depends_on"] = {name: _without(how, required=True) for name, how in service["depends_on"].items()}
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
