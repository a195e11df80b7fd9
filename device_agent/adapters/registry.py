"""How big an image is: its manifest, asked of the registry itself. The engine tells no sizes before it pulls.

Just enough of the distribution protocol's API v2 for that (manifests, one small blob, token and basic authentication).
What cannot be read here, because of a proxy, a mirror or an authority that only the engine knows, is not known: the
pull then does without. Credentials go to the registry over TLS, or over loopback, and to no host that it redirects to.
"""

import base64
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from device_agent.adapters.registry_auth import Login
from device_agent.model.image import DOCKER_HUB, fits_platform, normalise

TIMEOUT_S = 5.0
MOST_BYTES = 4 * 2**20
"""Of an answer: manifests are limited to 4 MiB."""

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_LOOPBACK = re.compile(r"(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?")
_OF_A_REFUSAL = ("WWW-Authenticate", "Retry-After", "Date")
_WORD = re.compile(r'(\w+)="([^"]*)"')


class Unknown(Exception):  # noqa: N818 - an answer too
    """The registry does not tell it, for the reason that this is."""


@dataclass(frozen=True, slots=True)
class Layers:
    """What an image is made of, the lowest layer first."""

    image_id: str
    """The digest of its configuration, which is its id for most engines."""
    sizes: tuple[int, ...]
    """In bytes, as they travel."""
    contents: tuple[str, ...]
    """The digests of what they are unpacked to: what an engine compares."""


def layers(image: str, platform: str, login: Login | None) -> Layers:
    """For a platform (`linux/arm64`). Raises `Unknown`."""
    registry, digest = _registry(image, login)
    try:
        manifest = registry.get(f"manifests/{digest}", (*_INDEXES, *_MANIFESTS))
        if "manifests" in manifest:
            manifest = registry.get(f"manifests/{_chosen(manifest, platform)}", _MANIFESTS)
        config = registry.get(f"blobs/{manifest['config']['digest']}", ())
        return Layers(
            str(manifest["config"]["digest"]),
            tuple(int(layer["size"]) for layer in manifest["layers"]),
            tuple(str(content) for content in config["rootfs"]["diff_ids"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown(f"{registry.host}: {str(error) or type(error).__name__}") from None


def asked_to_wait_s(image: str, login: Login | None) -> float:
    """How long the registry wants to be left alone (`Retry-After`, RFC 9110, 10.2.3); 0 where it does not say."""
    registry, digest = _registry(image, login)
    try:
        registry.get(f"manifests/{digest}", (*_INDEXES, *_MANIFESTS))
    except _Refused as refused:
        return refused.wait_s
    except (OSError, ValueError):
        return 0.0
    return 0.0


def _registry(image: str, login: Login | None) -> tuple["_Registry", str]:
    """Where an image is, and its tag or digest there."""
    host, _, rest = normalise(image).partition("/")
    name, at, digest = rest.partition("@")
    if not at:
        name, _, digest = rest.rpartition(":")
    return _Registry(host, name, login), digest


def _chosen(index: Mapping[str, Any], platform: str) -> str:
    for entry in index["manifests"]:
        has = entry.get("platform") or {}
        words = [str(has.get(key) or "") for key in ("os", "architecture", "variant")]
        if fits_platform(platform, *words):
            return str(entry["digest"])
    raise ValueError(f"there is none for {platform}")


class _Refused(ValueError):  # noqa: N818 - an answer of the registry
    def __init__(self, status: int, challenge: str, wait_s: float) -> None:
        super().__init__(f"it answers {status}")
        self.status = status
        self.challenge = challenge
        self.wait_s = wait_s


def _wait_s(after: str, date: str) -> float:
    """Of seconds, or of a time by the clock of who says it."""
    if after.isdecimal():
        return float(after)
    try:
        return max(0.0, (parsedate_to_datetime(after) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


class _Registry:
    def __init__(self, host: str, name: str, login: Login | None) -> None:
        self.host = host
        self._plain = bool(_LOOPBACK.fullmatch(host))
        address = "registry-1.docker.io" if host == DOCKER_HUB else host
        self._base = f"{'http' if self._plain else 'https'}://{address}/v2/{name}/"
        self._login = login
        self._authorization = ""

    def get(self, path: str, accept: tuple[str, ...]) -> dict[str, Any]:
        headers = {"Accept": ", ".join(accept)} if accept else {}
        try:
            return self._fetch(self._base + path, headers, self._authorization)
        except _Refused as refused:
            if refused.status != HTTPStatus.UNAUTHORIZED or self._authorization:
                raise
            self._authorization = self._authorized(refused.challenge)
        return self._fetch(self._base + path, headers, self._authorization)

    def _authorized(self, challenge: str) -> str:
        """The value of `Authorization` that a challenge asks for (RFC 7235; the distribution project's token flow)."""
        scheme, _, parameters = challenge.partition(" ")
        words = dict(_WORD.findall(parameters))
        basic = self._basic()
        if scheme.lower() == "basic":
            return basic
        realm = words.pop("realm", "")
        if not realm.startswith("https://") and not self._plain:
            raise ValueError("its tokens are not given over TLS")
        query = {key: words[key] for key in ("service", "scope") if key in words}
        answer = self._fetch(f"{realm}?{urllib.parse.urlencode(query)}", {}, basic)
        return f"Bearer {answer.get('token') or answer['access_token']}"

    def _basic(self) -> str:
        if self._login is None or not self._login.password:
            return ""
        words = f"{self._login.username}:{self._login.password}"
        return "Basic " + base64.b64encode(words.encode()).decode()

    def _fetch(self, url: str, headers: Mapping[str, str], authorization: str) -> dict[str, Any]:
        request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - http and https only, as built above
        if authorization:
            request.add_unredirected_header("Authorization", authorization)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                body = answer.read(MOST_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                challenge, after, date = (error.headers.get(name) or "" for name in _OF_A_REFUSAL)
                raise _Refused(error.code, challenge, _wait_s(after, date)) from None
        if len(body) > MOST_BYTES:
            raise ValueError("it answers with more than a manifest may be")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise ValueError("it does not answer with an object")  # noqa: TRY004 - of another machine's making
        return document
