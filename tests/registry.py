"""A registry of one's own on loopback: Debian's docker-registry (the distribution project's), as a process.

Engines talk plain HTTP to registries on 127.0.0.0/8.
"""

import contextlib
import secrets
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker

from tests.eventually import eventually

PROGRAM = "docker-registry"
READY_S = 15.0

_CONFIG = """\
version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {folder}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{port}"}}
"""


class Registry:
    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._config = folder / "config.yml"
        self._config.write_text(_CONFIG.format(folder=folder / "data", port=self.port))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [PROGRAM, "serve", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers, READY_S, "the registry answers")

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(10)
            self._process = None

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
    with tempfile.TemporaryDirectory(prefix="registry-") as folder:
        running = Registry(Path(folder))
        running.start()
        try:
            yield running
        finally:
            running.stop()
