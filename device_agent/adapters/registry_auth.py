"""Credentials for registries, from Docker's `config.json`: read for each pull, so that rotated ones need no restart.

The setting names one such file, or a folder: then each `*.json` in it is one, and together they say it once for each
registry. What is read here leaves in one header to the engine, and to the registry itself; it is in no message.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_agent.model.image import DOCKER_HUB

SETTING = "DEVICE_AGENT_REGISTRY_AUTH"

_HUBS = frozenset(("index.docker.io", "registry-1.docker.io"))
_HELPERS = ("credHelpers", "credsStore")


@dataclass(frozen=True, slots=True)
class Login:
    """A user's password, or a token of identity in its place."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    def header(self, registry: str) -> str:
        """The value of the engine's `X-Registry-Auth`."""
        words = {
            "username": self.username,
            "password": self.password,
            "identitytoken": self.identity_token,
            "serveraddress": "https://index.docker.io/v1/" if registry == DOCKER_HUB else registry,
        }
        return base64.urlsafe_b64encode(json.dumps({k: v for k, v in words.items() if v}).encode()).decode()


@dataclass(frozen=True, slots=True)
class RegistryAuth:
    """`path` is the file or folder, or None: then nobody has to log in anywhere."""

    path: Path | None = None

    def login(self, registry: str) -> Login | None:
        """By the registry's host and port, as in a normalised reference. Raises ValueError, naming the file."""
        return self.logins().get(registry)

    def logins(self) -> dict[str, Login]:
        """By registry. Raises ValueError, naming the file."""
        found: dict[str, Login] = {}
        for file in self._files():
            try:
                logins = _logins(file)
            except OSError as error:
                raise ValueError(f"{file}: {error.strerror}") from None
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from None
            for registry in sorted(found.keys() & logins.keys()):
                raise ValueError(f"{file}: another file of this folder has credentials for {registry} already")
            found |= logins
        return found

    def _files(self) -> list[Path]:
        if self.path is None:
            return []
        if self.path.is_dir():
            return sorted(self.path.glob("*.json"))
        return [self.path]


def _logins(file: Path) -> dict[str, Login]:
    try:
        document = json.loads(file.read_bytes())
    except ValueError:
        # Not with the parser's words: they may quote what is in it.
        raise ValueError("it is not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("it is no Docker config.json: an object is expected")  # noqa: TRY004 - a file's contents
    for helper in _HELPERS:
        if document.get(helper):
            message = f"`{helper}` names a program, which is not on this device: put the credentials into `auths`"
            raise ValueError(message)
    auths = document.get("auths", {})
    if not isinstance(auths, dict):
        raise ValueError("`auths` is not an object")  # noqa: TRY004 - a file's contents
    return {_registry(name): _login(name, entry) for name, entry in auths.items()}


def _registry(name: str) -> str:
    """As Docker reads it: without a scheme, and without a path such as `/v1/`."""
    host = name.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return DOCKER_HUB if host in _HUBS else host


def _login(name: str, entry: Any) -> Login:
    where = f"`auths` for {name}"
    if not isinstance(entry, Mapping) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError(f"{where} is not an object of strings")
    username, password = entry.get("username", ""), entry.get("password", "")
    if entry.get("auth"):
        try:
            username, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            colon = ""
        if not colon:
            raise ValueError(f"{where}: `auth` is not the base64 of USER:PASSWORD")
        password = password.rstrip("\0")
    token = entry.get("identitytoken", "")
    if not token and not (username and password):
        raise ValueError(f"{where}: there is neither `auth`, `username` and `password`, nor `identitytoken`")
    return Login(username, password, token)
