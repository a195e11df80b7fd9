"""Compose's variables in a file that no Compose is at hand to read: `$NAME`, `${NAME:-default}` and their like."""

import re
from collections.abc import Mapping
from pathlib import Path

from device_agent.model.target import Json

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<operator>:?[-+?])(?P<word>[^${}]*))?\}|(?P<other>))"
)


def substitute(value: Json, variables: Mapping[str, str]) -> Json:
    """Every string within with its variables replaced, keys excepted. Raises `ValueError` for what cannot be."""
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _replacement(match, variables), value)
    if isinstance(value, dict):
        return {key: substitute(inner, variables) for key, inner in value.items()}
    if isinstance(value, list):
        return [substitute(inner, variables) for inner in value]
    return value


def unescape(value: Json) -> Json:
    """`$$` is `$`: what a resolved Compose file still has to have undone."""
    if isinstance(value, str):
        return value.replace("$$", "$")
    if isinstance(value, dict):
        return {key: unescape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [unescape(inner) for inner in value]
    return value


def read_dotenv(file: Path) -> dict[str, str]:
    """The simple lines of a `.env` file, quotes taken off; none when there is no file."""
    if not file.is_file():
        return {}
    result = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        name, found, value = line.strip().removeprefix("export ").partition("=")
        if not found or name.startswith("#"):
            continue
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        result[name.strip()] = value
    return result


def _replacement(match: re.Match[str], variables: Mapping[str, str]) -> str:
    if match["escaped"]:
        return "$"
    if match["other"] is not None:
        raise ValueError(f"cannot resolve the variable at {match.string[match.start() :]!r}")
    name, operator, word = match["plain"] or match["name"], match["operator"] or "", match["word"] or ""
    value = variables.get(name)
    # With a colon, an empty variable counts as one that is not set.
    missing = value is None or (operator.startswith(":") and not value)
    if operator.endswith("?") and missing:
        raise ValueError(f"the variable {name} is not set: {word or 'it is required'}")
    if operator.endswith("+"):
        return "" if missing else word
    if operator.endswith("-") and missing:
        return word
    if value is None:
        raise ValueError(f"the variable {name} is not set, and has no default")
    return value
