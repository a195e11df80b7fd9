"""The engine's failures, sorted once: a code that is stable, whose fault it is, and a sentence for an operator.

Two tables, tried from the top: what the engine's message says outweighs the HTTP status. Sources: Docker 20.10 and 28
(each line of the first table was seen there), the distribution project's registry errors. The engine's own words follow
the sentence, cut to 512 characters; they name objects, never an environment or a credential of ours.
"""

import json
import re

from device_agent.model.errors import EngineError, Kind

LIMIT = 512

_TEMPORARY, _OUTSIDE, _TARGET = Kind.TEMPORARY, Kind.OUTSIDE, Kind.TARGET

_BY_MESSAGE: tuple[tuple[str, str, Kind, str], ...] = (
    (r"no space left on device|disk quota exceeded", "disk_full", _OUTSIDE, "the disk is full"),
    (
        r"port is already allocated|bind: address already in use|address already in use.*\btcp|ports are not available",
        "port_in_use",
        _OUTSIDE,
        "a host port is taken by something else",
    ),
    (
        r"bind: cannot assign requested address",
        "address_in_use",
        _OUTSIDE,
        "the host has no such address to publish on",
    ),
    (r"address already in use", "address_in_use", _OUTSIDE, "the fixed address is taken on that network"),
    (
        r"pool overlaps|could not find an available.*address pool|no available network|cannot create network .* conflicts",
        "subnet_in_use",
        _OUTSIDE,
        "the subnet overlaps with another network, or no free one is left",
    ),
    (
        r"invalid address .* belong|no configured subnet|user specified ip",
        "bad_config",
        _TARGET,
        "the address is outside the network",
    ),
    (
        r"container name .* is already in use|network with name .* already exists|volume named .* already exists",
        "name_in_use",
        _TEMPORARY,
        "the name is taken",
    ),
    (
        r"removal of container .* already in progress|marked for removal",
        "removal_in_progress",
        _TEMPORARY,
        "the engine is still removing the container",
    ),
    (r"has active endpoints", "network_in_use", _TEMPORARY, "containers are still attached to the network"),
    (r"network .* is ambiguous", "network_ambiguous", _OUTSIDE, "several networks have this name"),
    (
        r"network \S+ not found|could not find (a )?network|not connected to the network",
        "network_missing",
        _TEMPORARY,
        "the network does not exist",
    ),
    (
        r"(cannot join network of a non running|no such container: .*joining)",
        "dependency_not_running",
        _TEMPORARY,
        "the container whose network is to be shared does not run",
    ),
    (r"exec format error", "exec_format", _TARGET, "the program is built for another processor, or is no program"),
    (
        r"no matching manifest|does not match the (specified|detected) platform|does not provide the specified platform",
        "wrong_platform",
        _TARGET,
        "the image does not exist for this processor",
    ),
    (
        r"error gathering device information|could not select device driver|unresolvable cdi|not a device node",
        "device_missing",
        _OUTSIDE,
        "a device is missing on the host",
    ),
    (
        r"bind source path does not exist|error mounting|error while mounting volume|failed to mount|error while creating mount source",
        "mount_failed",
        _OUTSIDE,
        "a mount failed",
    ),
    (
        (
            r"executable file not found|exec: \".*\": (stat|permission denied)|unable to find user|unable to find group"
            r"|no command specified|no such file or directory: unknown.*exec"
        ),
        "bad_command",
        _TARGET,
        "the command, or the user it is to run as, is not in the image or may not be run",
    ),
    (
        r"toomanyrequests|too many requests|rate limit",
        "registry_limited",
        _OUTSIDE,
        "the registry limits the number of pulls",
    ),
    (
        r"unauthorized|authentication required|no basic auth credentials|access forbidden|incorrect username or password",
        "registry_auth",
        _OUTSIDE,
        "the registry wants other credentials",
    ),
    (
        (
            r"manifest (for .* )?(unknown|not found)|manifest_unknown|name unknown|repository .* not found|no such image"
            r"|pull access denied|does not exist or no pull access|denied: requested access"
        ),
        "no_such_image",
        _TARGET,
        "the image does not exist, or needs credentials",
    ),
    (
        (
            r"dial tcp|no such host|server misbehaving|i/o timeout|tls handshake|connection re(fused|set)|client\.timeout"
            r"|context deadline exceeded|request canceled|x509|tls:|unexpected eof|: eof|network is unreachable|no route to host"
            r"|gave http response|proxyconnect|received unexpected http status|bad gateway|service unavailable|gateway time"
        ),
        "registry_unreachable",
        _TEMPORARY,
        "the registry cannot be reached",
    ),
    (
        r"error looking up (logging|volume) plugin|plugin .* not found|unknown runtime",
        "plugin_missing",
        _OUTSIDE,
        "the engine has no such driver or runtime",
    ),
    (r"no such container|endpoint \S+ not found", "no_such_container", _TEMPORARY, "the container is gone"),
    (
        r"oci runtime create failed|failed to create shim|failed to create task|runc create failed",
        "start_failed",
        _TARGET,
        "the container cannot be started as the target asks",
    ),
)
_COMPILED = tuple(
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), code, kind, text) for pattern, code, kind, text in _BY_MESSAGE
)

_BY_STATUS: dict[int, tuple[str, Kind, str]] = {
    400: ("bad_config", _TARGET, "the engine refuses this configuration"),
    403: ("forbidden", _OUTSIDE, "the engine does not allow it"),
    404: ("not_found", _TEMPORARY, "something it needs is not there"),
    409: ("conflict", _TEMPORARY, "the engine is busy with this object"),
}


def sorted_error(status: int, message: str) -> EngineError:
    """The error for an HTTP status (200 for one that came in-band) and the engine's message."""
    message = message.strip()
    for pattern, code, kind, text in _COMPILED:
        if pattern.search(message):
            return EngineError(code, sentence(text, message), kind)
    code, kind, text = _BY_STATUS.get(status, ("engine_error", _TEMPORARY, "the engine failed"))
    return EngineError(code, sentence(text, message), kind)


def sentence(text: str, message: str) -> str:
    """Our sentence and the engine's words, cut."""
    if len(message) > LIMIT:
        message = message[: LIMIT - 1] + "…"
    return f"{text}: {message}" if message else text


def timed_out(what: str, seconds: float) -> EngineError:
    """One call that took too long, while the engine answers others."""
    return EngineError("timeout", f"the engine took longer than {seconds:g} s: {what}", Kind.TEMPORARY)


def message_of(body: bytes) -> str:
    """The words in an error's body: JSON with `message` (Docker, Podman), or plain text from something in between."""
    try:
        document = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return str(document.get("message", "")) if isinstance(document, dict) else str(document)
