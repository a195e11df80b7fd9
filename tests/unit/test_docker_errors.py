"""Whose fault a failed engine call is: what engines and registries were seen to say."""

import re
from pathlib import Path

import pytest

from device_agent.adapters import docker_errors
from device_agent.adapters.docker_errors import message_of, sorted_error, timed_out
from device_agent.core.gate import TARGETS_FAULTS
from device_agent.model.errors import Kind

SAID = [
    (500, "write /var/lib/docker/tmp/x: no space left on device", "disk_full", Kind.OUTSIDE),
    (
        500,
        "… endpoint web (3f): Bind for 0.0.0.0:80 failed: port is already allocated",
        "port_in_use",
        Kind.OUTSIDE,
    ),
    (
        500,
        "… Error starting userland proxy: listen tcp4 127.0.0.1:80: bind: address already in use",
        "port_in_use",
        Kind.OUTSIDE,
    ),
    (
        500,
        "… endpoint web (3f): failed to bind host port 0.0.0.0:80/tcp: address already in use",
        "port_in_use",
        Kind.OUTSIDE,
    ),
    (
        500,
        "… endpoint web (3f): failed to bind host port for 0.0.0.0:80:172.17.0.2:80/udp: address already in use",
        "port_in_use",
        Kind.OUTSIDE,
    ),
    (403, "Address already in use", "address_in_use", Kind.OUTSIDE),
    (403, "Pool overlaps with other one on this address space", "subnet_in_use", Kind.OUTSIDE),
    (500, "Invalid address 10.2.0.9: It does not belong to any of this network's subnets", "bad_config", Kind.TARGET),
    (
        409,
        'Conflict. The container name "/a" is already in use by container "73df". You have to remove (or rename) …',
        "name_in_use",
        Kind.TEMPORARY,
    ),
    (409, "network with name a already exists", "name_in_use", Kind.TEMPORARY),
    (409, "removal of container 73df is already in progress", "removal_in_progress", Kind.TEMPORARY),
    (409, "container is marked for removal and cannot be started", "removal_in_progress", Kind.TEMPORARY),
    (
        409,
        'conflict: unable to remove repository reference "a:1" (must force) - container 73df is using its referenced …',
        "image_in_use",
        Kind.OUTSIDE,
    ),
    (409, "image used by 73df: image is in use by a container", "image_in_use", Kind.OUTSIDE),
    (403, "error while removing network: network a id e4cb has active endpoints", "network_in_use", Kind.TEMPORARY),
    (400, "network a is ambiguous (2 matches found on name)", "network_ambiguous", Kind.OUTSIDE),
    (404, "network nope not found", "network_missing", Kind.TEMPORARY),
    (409, "cannot join network of a non running container: 73df", "dependency_not_running", Kind.TEMPORARY),
    (
        409,
        f"can't join IPC of container 73: container {'73' * 32} is not running",
        "dependency_not_running",
        Kind.TEMPORARY,
    ),
    (500, f"container {'73' * 32} is not running", "dependency_not_running", Kind.TEMPORARY),
    (500, "can't join IPC of container 73: non-shareable IPC (hint: …)", "bad_config", Kind.TARGET),
    (404, "No such image: nope:1", "no_such_image", Kind.TARGET),
    (
        404,
        "image with reference a:1 was found but does not match the specified platform: wanted linux/s390x, actual: …",
        "wrong_platform",
        Kind.TARGET,
    ),
    (500, "Unknown option no-such-option", "bad_config", Kind.TARGET),
    (500, "--storage-opt is supported only for overlay over xfs with 'pquota' mount option", "bad_config", Kind.TARGET),
    (404, "No such container: nope", "no_such_container", Kind.TEMPORARY),
    (400, "exec /bin/x: exec format error: unknown", "exec_format", Kind.TARGET),
    (
        400,
        'OCI runtime create failed: unable to start container: exec: "nope": executable file not found in $PATH',
        "bad_command",
        Kind.TARGET,
    ),
    (
        400,
        'OCI runtime create failed: unable to start container: exec: "/x": stat /x: no such file or directory: unknown',
        "bad_command",
        Kind.TARGET,
    ),
    (500, "unable to find user nobody77: no matching entries in passwd file", "bad_command", Kind.TARGET),
    (
        500,
        'error gathering device information while adding custom device "/dev/nope": no such file or directory',
        "device_missing",
        Kind.OUTSIDE,
    ),
    (500, 'could not select device driver "nvidia" with capabilities: [[gpu]]', "device_missing", Kind.OUTSIDE),
    (400, 'invalid mount config for type "bind": bind source path does not exist: /x', "mount_failed", Kind.OUTSIDE),
    (
        400,
        'error during container init: error mounting "/a" to rootfs at "/b": not a directory',
        "mount_failed",
        Kind.OUTSIDE,
    ),
    (
        400,
        'error mounting "/var/lib/docker/volumes/d-api-1-files/_data/files/0" to rootfs at "/etc": not a directory',
        "bad_config",
        Kind.TARGET,
    ),
    (
        400,
        'error mounting "/var/lib/docker/volumes/d_data/_data" to rootfs at "/etc/passwd": … not a directory: unknown',
        "bad_config",
        Kind.TARGET,
    ),
    (500, "source /var/lib/docker/overlay2/x/merged/etc/passwd is not directory", "bad_config", Kind.TARGET),
    (400, 'error mounting "tmpfs" to rootfs at "/etc/passwd": … not a directory: unknown', "bad_config", Kind.TARGET),
    (
        400,
        'error mounting "/srv" to rootfs at "/proc/x": "/…/proc/x" cannot be mounted because it is inside /proc',
        "bad_config",
        Kind.TARGET,
    ),
    (
        400,
        'error mounting "/var/lib/docker/volumes/d-api-1-files/_data/files/0" to rootfs at "/x": no such file or …',
        "mount_failed",
        Kind.OUTSIDE,
    ),
    (400, 'error looking up logging plugin nope: plugin "nope" not found', "plugin_missing", Kind.OUTSIDE),
    (404, 'plugin "nope" not found', "plugin_missing", Kind.OUTSIDE),
    (400, "Unknown runtime specified nope", "plugin_missing", Kind.OUTSIDE),
    (
        500,
        'OCI runtime create failed: sysctl "kernel.nope" is not in a separate kernel namespace',
        "start_failed",
        Kind.TARGET,
    ),
    (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "bad_config", Kind.TARGET),
    (403, "not while it is so", "forbidden", Kind.OUTSIDE),
    (404, "", "not_found", Kind.TEMPORARY),
    (409, "cannot kill it now", "conflict", Kind.TEMPORARY),
    (500, "something else", "engine_error", Kind.TEMPORARY),
    (503, "", "engine_error", Kind.TEMPORARY),
]

RESOLVING = 'failed to resolve reference "r/a:1"'
PULLING = [
    ("manifest for a:9 not found: manifest unknown: manifest unknown", "no_such_image", Kind.TARGET),
    (
        "pull access denied for a, repository does not exist or may require 'docker login'",
        "registry_auth",
        Kind.OUTSIDE,
    ),
    ("denied: requested access to the resource is denied", "registry_auth", Kind.OUTSIDE),
    ('error parsing HTTP 403 response body: unexpected end of JSON input: ""', "registry_auth", Kind.OUTSIDE),
    ('error parsing HTTP 429 response body: invalid character: "<html>"', "registry_limited", Kind.OUTSIDE),
    ('error parsing HTTP 404 response body: invalid character: "<html>"', "no_such_image", Kind.TARGET),
    ("unauthorized: authentication required", "registry_auth", Kind.OUTSIDE),
    ('Head "https://r/v2/a/manifests/1": no basic auth credentials', "registry_auth", Kind.OUTSIDE),
    ("toomanyrequests: You have reached your pull rate limit.", "registry_limited", Kind.OUTSIDE),
    ("no matching manifest for linux/arm/v7 in the manifest list entries", "wrong_platform", Kind.TARGET),
    ('Get "https://r/v2/": dial tcp: lookup r on 10.0.0.1:53: no such host', "registry_unreachable", Kind.TEMPORARY),
    (
        'Get "http://[::1]:5/v2/": dial tcp [::1]:5: connect: cannot assign requested address',
        "registry_unreachable",
        Kind.TEMPORARY,
    ),
    ('Get "https://r/v2/": x509: certificate signed by unknown authority', "registry_unreachable", Kind.TEMPORARY),
    ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', "registry_unreachable", Kind.TEMPORARY),
    ("unexpected EOF", "registry_unreachable", Kind.TEMPORARY),
    ("received unexpected HTTP status: 503 Service Unavailable", "registry_unreachable", Kind.TEMPORARY),
    # An engine that keeps its images in containerd, as Docker 29 does.
    (
        'failed to resolve reference "docker.io/library/a:9": docker.io/library/a:9: not found',
        "no_such_image",
        Kind.TARGET,
    ),
    (
        "no matching manifest for linux/arm64/v8 in the manifest list …: no match for platform in manifest: not found",
        "wrong_platform",
        Kind.TARGET,
    ),
    (
        'failed to pull and unpack image "r/a:1": no match for platform in manifest: not found',
        "wrong_platform",
        Kind.TARGET,
    ),
    (
        f"{RESOLVING}: unexpected status from HEAD request to https://r/: 429 Too Many Requests",
        "registry_limited",
        Kind.OUTSIDE,
    ),
    (f"{RESOLVING}: unexpected status from HEAD request to https://r/: 403 Forbidden", "registry_auth", Kind.OUTSIDE),
    (
        f"{RESOLVING}: unexpected status from HEAD request to https://r/: 500 Internal Server Error",
        "registry_unreachable",
        Kind.TEMPORARY,
    ),
    (
        f'{RESOLVING}: failed to do request: Head "https://r/": dial tcp: lookup r: no such host',
        "registry_unreachable",
        Kind.TEMPORARY,
    ),
    ("failed to register layer: write /usr/lib/x: no space left on device", "disk_full", Kind.OUTSIDE),
    ("failed to register layer: something", "engine_error", Kind.TEMPORARY),
]


PAGE = Path(__file__).parents[2] / "docs" / "reconciling.md"


def test_every_code_is_in_the_documentation_with_its_remedy() -> None:
    table = PAGE.read_text().partition("| code | what it means | what to do |")[2].partition("\n\n")[0]
    documented = {code for row in table.split("\n| ") for code in re.findall("`([a-z_]+)`", row.partition(" | ")[0])}
    told = {sort.code for sort in (*docker_errors._BY_MESSAGE, *docker_errors._OF_REGISTRY)}
    told |= {code for code, _, _ in docker_errors._BY_STATUS.values()} | TARGETS_FAULTS
    assert told | {"timeout", "engine_error", "deadline"} <= documented


@pytest.mark.parametrize(
    ("status", "message", "code", "kind"), SAID, ids=[f"{code}-{n}" for n, (_, _, code, _) in enumerate(SAID)]
)
def test_what_the_engine_says(status: int, message: str, code: str, kind: Kind) -> None:
    error = sorted_error(status, message)

    assert (error.code, error.kind) == (code, kind)
    assert error.message.endswith(message)


@pytest.mark.parametrize(("message", "code", "kind"), PULLING)
def test_what_the_registry_says(message: str, code: str, kind: Kind) -> None:
    error = sorted_error(200, message, pulling=True)

    assert (error.code, error.kind) == (code, kind)


def test_a_registrys_words_mean_nothing_when_nothing_is_pulled() -> None:
    assert sorted_error(500, "shim died: unexpected EOF").code == "engine_error"


def test_a_long_message_is_cut() -> None:
    message = sorted_error(500, "x" * 10_000).message

    assert len(message) == len("the engine failed: ") + 512
    assert message.endswith("x…")


def test_a_call_that_takes_too_long_is_temporary() -> None:
    error = timed_out("stop 73df", 25)

    assert (error.code, error.kind, error.message) == (
        "timeout",
        Kind.TEMPORARY,
        "the engine took longer than 25 s: stop 73df",
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message": "no"}', "no"),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>"),
        (b"\xff", "�"),
        (b"[1]", "[1]"),
        (b"{}", ""),
    ],
)
def test_the_words_of_an_error(body: bytes, message: str) -> None:
    assert message_of(body) == message
