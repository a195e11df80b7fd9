"""A Compose file's configs and secrets: files and variables of this machine become content, which devices can read.

What no service is given is left out. Version 1 of Compose knows only files: what else there is goes past it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from device_agent.model.errors import Problem, Refused
from device_agent.model.target import Json

SECTIONS = ("configs", "secrets")
_UNKNOWN_TO_VERSION_1 = ("content", "environment")


def resolved(document: Mapping[str, Json], folder: Path, variables: Mapping[str, str]) -> dict[str, Json]:
    """Raises `Refused` with every file and variable that cannot be read."""
    result = dict(document)
    problems: list[Problem] = []
    for section in SECTIONS:
        definitions = result.get(section)
        if not isinstance(definitions, dict):
            continue
        used = set(_used(document, section))
        result[section] = {}
        for name, body in definitions.items():
            if name in used:
                try:
                    result[section][name] = _with_content(body, folder, variables)
                except ValueError as error:
                    problems.append(Problem(f"/{section}/{name}", str(error)))
        if not result[section]:
            del result[section]
    if problems:
        raise Refused("invalid", "configs or secrets cannot be read here", tuple(problems))
    return result


def for_version_1(raw: Mapping[str, Json]) -> dict[str, Json]:
    """With a file in the place of each definition that it does not know."""
    given = dict(raw)
    for section in SECTIONS:
        if isinstance(raw.get(section), dict):
            past = _past_version_1(raw, section)
            given[section] = {name: {"file": "./-"} if name in past else body for name, body in raw[section].items()}
    return given


def from_version_1(document: Mapping[str, Json], raw: Mapping[str, Json]) -> dict[str, Json]:
    """With the definitions again that it was not told. `raw` has its variables replaced."""
    result = dict(document)
    for section in SECTIONS:
        if isinstance(result.get(section), dict):
            result[section] = {**result[section], **_past_version_1(raw, section)}
    return result


def _past_version_1(raw: Mapping[str, Json], section: str) -> dict[str, Json]:
    definitions = raw.get(section)
    return {
        name: body
        for name, body in (definitions.items() if isinstance(definitions, dict) else ())
        if isinstance(body, dict) and any(key in body for key in _UNKNOWN_TO_VERSION_1)
    }


def _used(document: Mapping[str, Json], section: str) -> Iterator[str]:
    services = document.get("services")
    for body in services.values() if isinstance(services, dict) else ():
        granted = body.get(section) if isinstance(body, dict) else None
        for grant in granted if isinstance(granted, list) else ():
            name = grant.get("source") if isinstance(grant, dict) else grant
            if isinstance(name, str):
                yield name


def _with_content(body: Json, folder: Path, variables: Mapping[str, str]) -> Json:
    """Raises ValueError."""
    if not isinstance(body, dict) or "content" in body:
        return body
    rest = {key: value for key, value in body.items() if key not in ("file", "environment")}
    if isinstance(body.get("file"), str):
        return {**rest, "content": _read(folder / Path(body["file"]).expanduser())}
    if isinstance(body.get("environment"), str):
        if body["environment"] not in variables:
            raise ValueError(f"the variable {body['environment']} is not set: set it in the environment or in .env")
        return {**rest, "content": variables[body["environment"]]}
    return body


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeError as error:
        raise ValueError(f"{file} is not text in UTF-8") from error
