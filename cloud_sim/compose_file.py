"""A Compose file becomes an app of a target.

Variables, profiles, paths, `env_file`, `extends` and `include` are resolved by the Compose of this machine (`docker
compose` or `docker-compose`). Without one the file is read here, and refused when it needs one of the last three.
Version 1 refuses keys that are newer than itself, so that it is asked only for what cannot be done here.
What resolving adds and a target does not want is taken out again, so that the same file gives the same target wherever
it is published from, and so that the agent names its networks and volumes itself.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from cloud_sim import compose_contents, variables, yaml_file
from device_agent.model.errors import Problem, Refused
from device_agent.model.target import Json

Document: TypeAlias = dict[str, Json]

_NEEDS_COMPOSE_SERVICE = ("extends", "env_file", "label_file")
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
    folder = file.resolve().parent
    needs = _needs_compose(raw)
    told: tuple[str, ...] = ()
    if compose and (needs or not compose.first):
        resolved, told = _resolve(compose, file, raw, app, profiles)
    elif needs:
        what = "this needs Compose, and there is none here: install it, or publish what `docker compose config` prints"
        raise Refused("invalid", what, needs)
    else:
        resolved = _read(file, raw)
    if not compose or compose.first:
        resolved = _chosen(resolved, profiles)
    document = compose_contents.resolved(_stripped(resolved, app), folder, _known(file))
    return ComposeApp(app, document, (*told, *_local_binds(document, folder)))


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


def _resolve(
    compose: Compose, file: Path, raw: Mapping[str, Json], app: str, profiles: Sequence[str]
) -> tuple[Document, tuple[str, ...]]:
    """What Compose makes of it, and what it warns of."""
    folder = str(file.resolve().parent)
    chosen = [argument for profile in profiles for argument in ("--profile", profile)]
    whole = nullcontext(file.resolve())
    with _for_version_1(raw, file.resolve().parent) if compose.first else whole as path:
        answer = subprocess.run(  # noqa: S603
            [*compose.command, "-p", app, "--project-directory", folder, "-f", str(path), *chosen, "config"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd=folder,
            encoding="utf-8",
            errors="replace",
            timeout=60,
        )
    said = answer.stderr.strip().replace(str(path), str(file))
    if answer.returncode:
        raise Refused("invalid", f"`{compose} config` refuses {file}: {said}")
    # `config` writes every dollar sign of a value twice, so that its output is a Compose file again.
    document: Document = variables.unescape(yaml_file.load(answer.stdout))
    if compose.first:
        document |= {key: value for key, value in raw.items() if key.startswith("x-")}
        past = {key: value for key, value in raw.items() if key in compose_contents.SECTIONS}
        document = compose_contents.from_version_1(document, _substituted(file, past))
    return document, tuple(_warning(line) for line in said.splitlines())


@contextmanager
def _for_version_1(raw: Mapping[str, Json], folder: Path) -> Iterator[Path]:
    """What it can read of it, for as long as it is read: beside the file, because paths in it are told from there."""
    given = compose_contents.for_version_1({key: value for key, value in raw.items() if key != "name"})
    try:
        with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".compose-", suffix=".json", encoding="utf-8") as copy:
            json.dump(given, copy)
            copy.flush()
            yield Path(copy.name)
    except OSError as error:
        raise Refused("invalid", f"Compose 1 needs a copy of the file in {folder}: {error.strerror}") from error


def _warning(line: str) -> str:
    """The words of a line that Compose logs."""
    message = re.search(r'level=\S+ msg=("(?:[^"\\]|\\.)*")', line)
    return f"Compose says: {json.loads(message[1]) if message else line}"


def _needs_compose(raw: Mapping[str, Json]) -> tuple[Problem, ...]:
    services = raw.get("services")
    problems = [Problem("/include", "files are included by Compose")] if "include" in raw else []
    for service, body in services.items() if isinstance(services, dict) else ():
        problems += [
            Problem(f"/services/{service}/{key}", "is resolved by Compose")
            for key in _NEEDS_COMPOSE_SERVICE
            if isinstance(body, dict) and key in body
        ]
    return tuple(problems)


def _chosen(document: Document, profiles: Sequence[str]) -> Document:
    """Without the services that are only in other profiles."""
    services = document.get("services")
    if not isinstance(services, dict):
        return document
    active = {*profiles, *filter(None, os.environ.get("COMPOSE_PROFILES", "").split(","))}

    def in_use(body: Json) -> bool:
        own = body.get("profiles") if isinstance(body, dict) else None
        return not own or "*" in active or not active.isdisjoint(map(str, own))

    return {**document, "services": {name: body for name, body in services.items() if in_use(body)}}


def _read(file: Path, raw: Mapping[str, Json]) -> Document:
    document = _substituted(file, raw)
    services = document.get("services")
    for body in services.values() if isinstance(services, dict) else ():
        if isinstance(body, dict) and isinstance(body.get("environment"), (dict, list)):
            body["environment"] = _passed_through(body["environment"], _known(file))
        if isinstance(body, dict) and isinstance(body.get("volumes"), list):
            body["volumes"] = [_with_absolute_path(mount, file.resolve().parent) for mount in body["volumes"]]
    return document


def _with_absolute_path(mount: Json, folder: Path) -> Json:
    """A bind mount whose path on the host is told from the Compose file's folder, or from home."""
    if isinstance(mount, str) and mount.startswith((".", "~")):
        source, colon, rest = mount.partition(":")
        return os.path.normpath(folder / Path(source).expanduser()) + colon + rest
    if isinstance(mount, dict) and mount.get("type") == "bind" and isinstance(mount.get("source"), str):
        return {**mount, "source": os.path.normpath(folder / Path(mount["source"]).expanduser())}
    return mount


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
