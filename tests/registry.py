"""A registry of one's own on loopback: the distribution project's, in a container.

The image is `REGISTRY_IMAGE` (default `registry:2`). Engines talk plain HTTP to registries on 127.0.0.0/8.
"""

import contextlib
import json
import os
import random
import re
import secrets
import socket
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

# Read when testcontainers is imported.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

import docker
from testcontainers.core.container import DockerContainer

from tests.eventually import eventually

READY_S = 15.0
USER, PASSWORD = "device", "correct horse battery"
_HTPASSWD = f"{USER}:$2y$05$abcdefghijklmnopqrstuuD3mHdCr44zlIZ.VZCaYRpfQhXMYnEo.\n"
_PORT = 5000
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def _free_port() -> int:
    """Below those that the kernel hands out: nobody is given it before the registry has it."""
    while True:
        with contextlib.suppress(OSError), socket.create_server(("", random.randrange(20_000, 32_000))) as free:
            return int(free.getsockname()[1])


class Registry:
    def __init__(self, htpasswd: Path | None = None) -> None:
        """With `htpasswd`, everybody has to log in."""
        # A port of ours: one that the engine chooses would be another one after a restart.
        self.port = _free_port()
        image = os.environ.get("REGISTRY_IMAGE", "registry:2")
        self.host = f"127.0.0.1:{self.port}"
        self._login = {"username": USER, "password": PASSWORD} if htpasswd else None
        self._container = DockerContainer(image).with_bind_ports(_PORT, self.port)
        if htpasswd:
            self._container.with_volume_mapping(str(htpasswd.parent), "/auth", "ro")
            self._container.with_env("REGISTRY_AUTH", "htpasswd")
            self._container.with_env("REGISTRY_AUTH_HTPASSWD_REALM", "here")
            self._container.with_env("REGISTRY_AUTH_HTPASSWD_PATH", f"/auth/{htpasswd.name}")

    def open(self) -> None:
        self._container.start()
        self._wait()

    def start(self) -> None:
        self._container.get_wrapped_container().start()
        self._wait()

    def stop(self) -> None:
        self._container.get_wrapped_container().stop(timeout=1)

    def close(self) -> None:
        self._container.stop()

    def _wait(self) -> None:
        eventually(self._answers, READY_S, "the registry answers")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}/v2/", timeout=1):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return error.code == 401
        except OSError:
            return False

    def push(
        self, api: docker.APIClient, image: str, tag: str = "1", *, repository: str | None = None
    ) -> tuple[str, str]:
        """Its name there with the tag, and by digest. The engine keeps neither."""
        repository = repository or f"{self.host}/{secrets.token_hex(4)}"
        name = f"{repository}:{tag}"
        assert api.tag(image, repository, tag)
        for line in api.push(repository, tag, stream=True, decode=True, auth_config=self._login):
            assert "error" not in line, line
        (by_digest,) = (ref for ref in api.inspect_image(name)["RepoDigests"] if ref.startswith(repository))
        api.remove_image(name)
        with contextlib.suppress(docker.errors.ImageNotFound):
            api.remove_image(by_digest)
        return name, by_digest

    def move(self, name: str, *, to: str) -> None:
        """The tag of this name is that of another one of its repository from now on."""
        path, _, tag = name.removeprefix(f"{self.host}/").rpartition(":")
        manifests = f"http://{self.host}/v2/{path}/manifests"
        asked = urllib.request.Request(f"{manifests}/{to}", headers={"Accept": _MANIFEST})
        with urllib.request.urlopen(asked) as manifest:
            put = urllib.request.Request(f"{manifests}/{tag}", data=manifest.read(), method="PUT")
        put.add_header("Content-Type", _MANIFEST)
        with urllib.request.urlopen(put):
            pass

    def asked(self, name: str) -> int:
        """How often somebody has asked what a name stands for, by tag or by digest."""
        path, reference = re.split("[:@]", name.removeprefix(f"{self.host}/"), maxsplit=1)
        log = self._container.get_wrapped_container().logs().decode()
        return len(re.findall(rf'"(?:GET|HEAD) /v2/{path}/manifests/{reference} ', log))


@contextlib.contextmanager
def grown(api: docker.APIClient, base: str, name: str, *layers_kib: int) -> Iterator[str]:
    """`base` with so many layers more, of random bytes that no engine has: its name, while it is on this engine."""
    made: list[str] = []
    as_before = f"CMD {json.dumps(api.inspect_image(base)['Config']['Cmd'])}"
    try:
        for size in layers_kib:
            command = ["dd", "if=/dev/urandom", f"of=/{secrets.token_hex(2)}", "bs=1024", f"count={size}"]
            container = api.create_container(made[-1] if made else base, command)
            try:
                api.start(container)
                assert api.wait(container)["StatusCode"] == 0
                repository = f"{name}-{size}-{secrets.token_hex(2)}"
                api.commit(container, repository, "1", changes=as_before)
                made.append(f"{repository}:1")
            finally:
                api.remove_container(container, force=True)
        yield made[-1]
    finally:
        for image in reversed(made):
            api.remove_image(image)


@contextlib.contextmanager
def registry(*, login: bool = False) -> Iterator[Registry]:
    """Started; with `login`, for `USER` and `PASSWORD` only. The images pulled from it are the test's to remove."""
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        Path(folder).chmod(0o755)
        htpasswd = Path(folder, "htpasswd")
        htpasswd.write_text(_HTPASSWD, encoding="utf-8")
        running = Registry(htpasswd if login else None)
        try:
            running.open()
            yield running
        finally:
            running.close()
