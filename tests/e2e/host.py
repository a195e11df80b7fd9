"""A container engine, looked at and meddled with by hand; and one of one's own that may be stopped."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import docker
import docker.errors
import psutil

from tests.eventually import eventually

TEST_IMAGE = os.environ.get("TEST_IMAGE", "device-agent-test")
DEFAULT_URL = "unix:///var/run/docker.sock"
MARK = "device-agent-e2e"
"""Label of what tests make by hand."""
UP_S = 30.0
_NEWNET = 0x40000000

T = TypeVar("T")


class Host:
    def __init__(self, url: str, mark: str) -> None:
        self.url = url
        self.mark = mark
        self.api = docker.APIClient(base_url=url, version="auto", timeout=60)

    def close(self) -> None:
        self.api.close()

    # Looking.

    def containers(self, label: str) -> list[dict[str, Any]]:
        """Inspected, running or not. What goes away meanwhile is left out."""
        listed = self.api.containers(all=True, filters={"label": label})
        return [found for each in listed if (found := self.inspect(each["Id"]))]

    def inspect(self, container: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.api.inspect_container(container)
        except docker.errors.NotFound:
            return None
        return found

    def networks(self, label: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api.networks(filters={"label": label})
        return found

    def volumes(self, label: str) -> list[str]:
        return [volume["Name"] for volume in self.api.volumes(filters={"label": label})["Volumes"] or ()]

    def identity(self, container: str) -> tuple[str, str]:
        """Id and start time: what does not change while nobody touches it."""
        found = self.inspect(container)
        assert found, f"{container} is gone"
        return found["Id"], found["State"]["StartedAt"]

    # Meddling: as a stranger, with labels of the tests' own.

    def run(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        ports: list[int] | None = None,
        port_bindings: dict[int, tuple[str, int]] | None = None,
    ) -> str:
        made = self.api.create_container(
            f"{TEST_IMAGE}:1",
            name=name,
            labels={MARK: self.mark, **(labels or {})},
            ports=ports,
            host_config=self.api.create_host_config(init=True, port_bindings=port_bindings or {}),
        )
        self.api.start(made["Id"])
        return str(made["Id"])

    def make_network(self, name: str, **labels: str) -> str:
        return str(self.api.create_network(name, labels={MARK: self.mark, **labels})["Id"])

    def make_volume(self, name: str, **labels: str) -> str:
        return str(self.api.create_volume(name, labels={MARK: self.mark, **labels})["Name"])

    def tag(self, image: str, name: str) -> None:
        repository, _, tag = name.rpartition(":")
        assert self.api.tag(image, repository, tag)

    def untag(self, name: str) -> None:
        self.api.remove_image(name)

    def remove(self, container: str) -> None:
        """docker rm -f, with its anonymous volumes."""
        with contextlib.suppress(docker.errors.NotFound):
            self.api.remove_container(container, force=True, v=True)

    def sweep(self, label: str) -> None:
        """Remove everything with this label: containers, networks, volumes."""
        for container in self.api.containers(all=True, filters={"label": label}):
            self.remove(container["Id"])
        for network in self.networks(label):
            self.api.remove_network(network["Id"])
        for volume in self.volumes(label):
            self.api.remove_volume(volume, force=True)

    def left(self, label: str) -> list[str]:
        return [
            *(f"container {each['Names'][0]}" for each in self.api.containers(all=True, filters={"label": label})),
            *(f"network {each['Name']}" for each in self.networks(label)),
            *(f"volume {each}" for each in self.volumes(label)),
        ]


class OwnEngine:
    """A second dockerd beside the shared one, in a network namespace of its own. It has the test images.

    The namespace is what keeps it apart: an engine owns, and removes, bridges and firewall rules by well-known names.
    """

    def __init__(self, disk: str = "") -> None:
        """`disk`: the size of a tmpfs for all that it keeps, `96m`; its containers' processes are elsewhere."""
        self.folder = Path(tempfile.mkdtemp(prefix="e2e-dockerd-"))
        self.url = f"unix://{self.folder}/docker.sock"
        self.data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        self.data.mkdir()
        if disk:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", str(self.data)], check=True)

    def start(self) -> None:
        command = [
            *("unshare", "--net", "sh", "-c", 'ip link set lo up; exec dockerd "$@"', "dockerd"),
            *("--host", self.url, "--data-root", str(self.data), "--exec-root", f"{self.folder}/exec"),
            *("--pidfile", f"{self.folder}/pid"),
        ]
        with Path(self.folder, "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        eventually(self._answers, UP_S, f"an engine of one's own answers (log in {self.folder})")

    def inside(self, make: Callable[[], T]) -> T:
        """What `make` makes in its network namespace: a socket that is bound there stays there."""
        assert self._process
        with Path(f"/proc/{self._process.pid}/ns/net").open("rb") as namespace, ThreadPoolExecutor(1) as thread:

            def enter() -> T:
                assert ctypes.CDLL(None).setns(namespace.fileno(), _NEWNET) == 0
                return make()

            return thread.submit(enter).result()

    def load(self, *images: str) -> None:
        saved = subprocess.Popen(["docker", "save", *images], stdout=subprocess.PIPE)
        subprocess.run(
            ["docker", "-H", self.url, "load"], stdin=saved.stdout, check=True, capture_output=True, timeout=60
        )
        assert saved.stdout
        saved.stdout.close()
        assert saved.wait() == 0

    def stop(self) -> None:
        """SIGTERM, as a system does it that is shut down: containers are stopped as well."""
        assert self._process
        self._process.terminate()
        self._process.wait(60)

    def kill(self) -> None:
        """kill -9. The containers' own processes live on until the next start."""
        assert self._process
        self._process.kill()
        self._process.wait(10)
        # Its containerd dies with it, and may stay a zombie that the next start would take for a living one.
        pid_file = self.folder / "exec" / "containerd" / "containerd.pid"
        pid = int(pid_file.read_text(encoding="utf-8"))
        eventually(
            lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 10, "containerd ends"
        )
        pid_file.unlink()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        if self._process and self._process.poll() is None:
            for container in self._docker("ps", "-aq").split():
                self._docker("rm", "-fv", container)
            self._docker("network", "prune", "-f")
            self.stop()
        # What a kill -9 may have left mounted.
        for mount in reversed(Path("/proc/mounts").read_text(encoding="utf-8").splitlines()):
            path = mount.split()[1]
            if path.startswith(str(self.folder)):
                subprocess.run(["umount", "-l", path], check=False)
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self.log()
        return subprocess.run(["docker", "-H", self.url, "version"], check=False, capture_output=True).returncode == 0

    def _docker(self, *arguments: str) -> str:
        return subprocess.run(
            ["docker", "-H", self.url, *arguments], check=False, capture_output=True, text=True, timeout=60
        ).stdout

    def log(self) -> str:
        return Path(self.folder, "log").read_text(encoding="utf-8", errors="replace")[-3000:]
