"""What needs root or a tool: system calls that fail or kill (strace), disks full or without power, false clocks."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from tests.eventually import eventually

ATTACHED_S = 10.0
IMAGE_MIB = 24
FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"


@contextlib.contextmanager
def injecting(pid: int, call: str, what: str) -> Iterator[None]:
    """`what` happens at the system call: `signal=KILL:when=7`, `error=EIO:when=1+`. Counted for each thread alone."""
    with tempfile.TemporaryFile("w+") as said:
        command = ["strace", "-f", "-qq", "-p", str(pid), "-o", os.devnull, "-e", f"trace={call},exit_group"]
        # In a session of its own: Ctrl-C is for this program, which lets the run come to its end.
        tracer = subprocess.Popen([*command, "-e", f"inject={call}:{what}"], stderr=said, start_new_session=True)
        try:
            eventually(lambda: _traced(pid) or tracer.poll() is not None, ATTACHED_S, "strace is attached")
            # It ends with 0 when who it traces has ended already.
            if tracer.poll():
                said.seek(0)
                raise RuntimeError(f"strace ended with {tracer.returncode}: {said.read()}")
            yield
        finally:
            if tracer.poll() is None:
                tracer.send_signal(signal.SIGINT)
            try:
                tracer.wait(5)
            except subprocess.TimeoutExpired:
                tracer.kill()
                tracer.wait(5)


def _traced(pid: int) -> bool:
    """Whether every thread of it has a tracer."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return all("TracerPid:\t0\n" not in Path(thread, "status").read_text(encoding="ascii") for thread in threads)
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A tmpfs of that size in place of a folder, with what was in it. What it has at the end is kept."""
    with tempfile.TemporaryDirectory() as aside:
        shutil.copytree(folder, aside, dirs_exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder))
        try:
            shutil.copytree(aside, folder, dirs_exist_ok=True)
            yield
            filler(folder).unlink(missing_ok=True)
            shutil.rmtree(aside)
            shutil.copytree(folder, aside)
        finally:
            _run("umount", "-l", str(folder))
        _empty(folder)
        shutil.copytree(aside, folder, dirs_exist_ok=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    _run("mount", "--bind", str(folder), str(folder))
    try:
        _run("mount", "-o", "remount,ro,bind", str(folder))
        yield
    finally:
        _run("umount", "-l", str(folder))


def filler(folder: Path) -> Path:
    return folder / "filler"


def fill(folder: Path, room: int = 0) -> None:
    """`room` bytes are left on the disk of a folder, no more; or none at all."""
    with filler(folder).open("ab", buffering=0) as file:
        if room:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free - room)
            return
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    if file.write(b"\0" * size) < size:
                        break


@contextlib.contextmanager
def losing_packets(port: int, share: float) -> Iterator[None]:
    """Of TCP to and from a port of this machine, below what it notices."""
    lost = ["-m", "statistic", "--mode", "random", "--probability", str(share), "-j", "DROP"]
    rules = [["INPUT", "-i", "lo", "-p", "tcp", side, str(port), *lost] for side in ("--dport", "--sport")]
    with contextlib.ExitStack() as stack:
        for rule in rules:
            _run("iptables", "-I", *rule)
            stack.callback(_run, "iptables", "-D", *rule)
        yield


class PowerSupply:
    """A folder on a disk image of its own, of which only what has reached the disk survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._work = Path(tempfile.mkdtemp(prefix="power-"))
        self._image = self._work / "disk-0"
        self._cuts = 0
        self._loop = ""

    def __enter__(self) -> Self:
        with self._image.open("wb") as file:
            file.truncate(IMAGE_MIB * 2**20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        aside = self._work / "aside"
        shutil.copytree(self._folder, aside)
        self._mount()
        shutil.rmtree(self._folder / "lost+found")
        shutil.copytree(aside, self._folder, dirs_exist_ok=True)
        os.sync()
        return self

    def __exit__(self, broken: object, *_: object) -> None:
        if broken:
            # Whoever still has it open is ended by others; what it had is nobody's concern any more.
            _run("umount", "-l", str(self._folder))
            _run("losetup", "--detach", self._loop)
            shutil.rmtree(self._work)
            return
        aside = self._work / "kept"
        shutil.copytree(self._folder, aside, ignore=shutil.ignore_patterns("lost+found"))
        self._unmount()
        _empty(self._folder)
        shutil.copytree(aside, self._folder, dirs_exist_ok=True)
        shutil.rmtree(self._work)

    def snapshot(self) -> Path:
        """What the disk has at this moment. The writers should be stopped meanwhile."""
        self._cuts += 1
        copy = self._work / f"disk-{self._cuts}"
        _run("dd", f"if={self._image}", f"of={copy}", "bs=1M", "iflag=direct", "status=none")
        return copy

    def come_back_as(self, image: Path) -> None:
        """The folder is what a snapshot had. Nobody may have it open."""
        self._unmount()
        self._image.unlink()
        self._image = image
        self._mount()

    def _mount(self) -> None:
        self._loop = _run("losetup", "--find", "--show", "--direct-io=on", str(self._image)).strip()
        _run("mount", self._loop, str(self._folder))

    def _unmount(self) -> None:
        _run("umount", str(self._folder))
        _run("losetup", "--detach", self._loop)


class FalseClock:
    """The wall clock of a process that is started with `environment`; the monotonic one is left alone."""

    def __init__(self, folder: Path) -> None:
        library = next(iter(sorted(Path("/").glob(FAKETIME.removeprefix("/")))), None)
        assert library, "libfaketime is missing: apt-get install faketime"
        self._file = folder / "faketime"
        self.set("+0")
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        """`+10y`, `-1h`, or a date `@1970-01-02 00:00:00`."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(offset, encoding="ascii")
        fresh.replace(self._file)

    @staticmethod
    def forget(pid: int) -> None:
        """What libfaketime leaves in memory of a process that was killed: it takes it away only at a proper end."""
        for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", name).unlink(missing_ok=True)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
