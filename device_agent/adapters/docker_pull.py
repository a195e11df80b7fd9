"""Pulling: what the engine says line by line, added up. Failures come in-band, under HTTP 200.

An image id is pulled by nobody. What ends well was looked at: the image under the name is the one just pulled.
"""

import json
import re
import time
from collections.abc import Callable
from threading import Event
from typing import Any
from urllib.parse import quote, urlencode

from device_agent.adapters.docker_errors import sorted_error
from device_agent.adapters.docker_http import EngineHttp
from device_agent.adapters.registry_auth import SETTING, Login, RegistryAuth
from device_agent.model.errors import Cancelled, EngineAway, EngineError, Kind
from device_agent.model.image import fits_platform, registry_of
from device_agent.ports import PullProgress

SILENCE_S = 120.0
"""A pull that says nothing for so long is given up; what it has is there for the next one."""
REPORT_S = 0.25

_DIGEST = re.compile(r"Digest: (sha256:[0-9a-f]{64})")


def pull(
    http: EngineHttp,
    auth: RegistryAuth,
    image: str,
    platform: str | None,
    progress: Callable[[PullProgress], None],
    cancel: Event,
) -> str:
    """`ports.Engine.pull`, with the credentials that there are for the image's registry."""
    if image.startswith("sha256:"):
        raise EngineError("no_such_image", f"an image id cannot be pulled: {image}", Kind.TARGET)
    pulling = Pulling(image, progress)
    login = _login(auth, image)
    headers = {"X-Registry-Auth": login.header(registry_of(image))} if login else {}
    try:
        for line in http.lines("POST", pull_path(image, platform), stop=cancel, idle_s=SILENCE_S, headers=headers):
            if line:
                pulling.line(line)
    except TimeoutError as error:
        if not http.ping():
            raise EngineAway(f"the engine fell silent while pulling {image}") from error
        message = f"the registry has sent nothing of {image} for {SILENCE_S:g} s"
        raise EngineError("pull_stalled", message, Kind.TEMPORARY) from error
    except EngineError as error:
        raise _refused(image, error, login) from error
    if cancel.is_set():
        raise Cancelled(image)
    pulling.end()
    document = http.get(f"/images/{quote(image, safe='/:@')}/json")[0].checked().json()
    check(image, platform, document, pulling.digest)
    return str(document["Id"])


def _login(auth: RegistryAuth, image: str) -> Login | None:
    try:
        return auth.login(registry_of(image))
    except ValueError as error:
        raise EngineError("registry_auth", f"{SETTING}: {error}", Kind.OUTSIDE) from None


def _refused(image: str, error: EngineError, login: Login | None) -> EngineError:
    """Which registry it was, and what can be done about it here."""
    registry = registry_of(image)
    if error.code == "registry_limited":
        from device_agent.adapters.registry import asked_to_wait_s  # noqa: PLC0415 - only who pulls needs it

        # The engine keeps for itself what the registry has said of that.
        return EngineError(error.code, error.message, error.kind, asked_to_wait_s(image, login))
    if error.code != "registry_auth":
        return error
    if login:
        what = f"{registry} refuses the credentials that {SETTING} has for it, or has no {image}"
    else:
        what = f"{registry} wants credentials for {image}, or has no such image; {SETTING} has none for {registry}"
    return EngineError(error.code, f"{what}: {error.message}", error.kind)


def pull_path(reference: str, platform: str | None = None) -> str:
    """Name and tag apart, always: a name alone would pull every tag there is."""
    name, at, digest = reference.partition("@")
    head, colon, tag = name.rpartition(":")
    if colon and "/" not in tag:
        name = head
    else:
        tag = ""
    query = {"fromImage": name, "tag": digest if at else tag or "latest"}
    return "/images/create?" + urlencode(query | ({"platform": platform} if platform else {}))


class Pulling:
    """Adds up the layers of one pull and reports at most four times a second."""

    def __init__(
        self, image: str, progress: Callable[[PullProgress], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.digest: str | None = None
        """What the registry says the image is, once it was said."""
        self._image = image
        self._progress = progress
        self._clock = clock
        self._layers: dict[str, tuple[int, int]] = {}
        self._reported_at: float | None = None
        self._changed = False

    def line(self, line: bytes) -> None:
        """Take one line. Raises the error that it tells."""
        document: dict[str, Any] = json.loads(line)
        if "error" in document or "errorDetail" in document:
            detail = document.get("errorDetail") or {}
            raise sorted_error(200, str(detail.get("message") or document.get("error") or ""), pulling=True)
        status = document.get("status") or ""
        if told := _DIGEST.match(status):
            self.digest = told.group(1)
        self._layer(document.get("id") or "", status, document.get("progressDetail") or {})
        now = self._clock()
        if self._changed and (self._reported_at is None or now - self._reported_at >= REPORT_S):
            self._report(now)

    def end(self) -> None:
        """The last figures."""
        if self._changed:
            self._report(self._clock())

    def _layer(self, layer: str, status: str, detail: dict[str, Any]) -> None:
        done, total = self._layers.get(layer, (0, 0))
        if status == "Downloading":
            now = (detail.get("current") or 0, max(total, detail.get("total") or 0))
        elif status in ("Download complete", "Pull complete"):
            now = (total, total)
        else:
            return
        if now != (done, total):
            self._layers[layer] = now
            self._changed = True

    def _report(self, now: float) -> None:
        self._reported_at = now
        self._changed = False
        done = sum(done for done, _ in self._layers.values())
        total = sum(total for _, total in self._layers.values())
        self._progress(PullProgress(self._image, done, total))


def check(reference: str, platform: str | None, document: dict[str, Any], told: str | None) -> None:
    """That the image under this name is the one just pulled, not one that had the name before, and for the platform."""
    wanted = reference.partition("@")[2] or told
    held = [digest.partition("@")[2] for digest in document.get("RepoDigests") or ()]
    if wanted and wanted not in held:
        message = f"the pull of {reference} has ended, but the engine does not have {wanted}"
        raise EngineError("pull_incomplete", message, Kind.TEMPORARY)
    has = [str(document.get(key) or "") for key in ("Os", "Architecture", "Variant")]
    if platform and not fits_platform(platform, *has):
        message = f"{reference} is for {'/'.join(filter(None, has))}; the registry has none for {platform}"
        raise EngineError("wrong_platform", message, Kind.TARGET)
