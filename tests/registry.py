"""A registry of one's own on loopback: the distribution project's, in a container.

The image is `REGISTRY_IMAGE` (default `registry:2`). Engines talk plain HTTP to registries on 127.0.0.0/8.
"""

import contextlib
import os
import secrets
import socket
import urllib.request
from collections.abc import Iterator

# Read when testcontainers is imported.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

import docker
from testcontainers.core.container import DockerContainer

from tests.eventually import eventually

READY_S = 15.0
_PORT = 5000


class Registry:
    def __init__(self) -> None:
        # A port of ours: one that the engine chooses would be another one after a restart.
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        image = os.environ.get("REGISTRY_IMAGE", "registry:2")
        self._container = DockerContainer(image).with_bind_ports(_PORT, self.port)

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
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v2/", timeout=1):
            return True
        return False

    def push(self, api: docker.APIClient, image: str, tag: str = "1") -> tuple[str, str]:
        """Its name there with the tag, and by digest. The engine keeps neither."""
        repository = f"127.0.0.1:{self.port}/{secrets.token_hex(4)}"
        name = f"{repository}:{tag}"
        assert api.tag(image, repository, tag)
        for line in api.push(repository, tag, stream=True, decode=True):
            assert "error" not in line, line
        (by_digest,) = (ref for ref in api.inspect_image(name)["RepoDigests"] if ref.startswith(repository))
        api.remove_image(name)
        with contextlib.suppress(docker.errors.ImageNotFound):
            api.remove_image(by_digest)
        return name, by_digest


@contextlib.contextmanager
def registry() -> Iterator[Registry]:
    """Started. The images pulled from it are the test's to remove."""
    running = Registry()
    try:
        running.open()
        yield running
    finally:
        running.close()
