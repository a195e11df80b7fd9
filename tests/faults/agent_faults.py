"""The agent itself: killed, told to stop, frozen, short of descriptors."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.broker import Peer
from tests.e2e.device import PROGRAM
from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import GAP_S, fault
from tests.faults.raising import CALLBACKS
from tests.faults.raising import __name__ as raising_program
from tests.faults.system import injecting

GROUP = "agent"
FROZEN_S = 10.0
MOST_CALLS = 4
OFTEN_CALLED = ("on_message", "on_publish", "deliver")
"""The others are called once a connection."""
STOP_S = 10.0
WATCHDOG_S = 120.0
"""What stands still for so long is ended."""
SYSTEM_CALLS = ("sendto", "recvfrom", "connect", "pwrite64", "fdatasync", "fsync", "rename", "write")
SAYS_THAT_IT_STOPS = '"stopping"'
MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
"""Of cgroup v1; in v2 they are one level higher."""
ROOM_BYTES = 16 * 2**20
HOG_BYTES = 4 * ROOM_BYTES
"""What another process takes, where there is not so much room."""
ENTER = 'echo $$ >"$0" && exec "$@"'
"""For sh: into the group first, and then be the program."""


@fault("kill -9 at a random moment of an apply", GROUP, fast=True)
def killed(bench: Bench) -> None:
    bench.publish()
    bench.somewhere()
    bench.kill()
    bench.restart()


@fault("kill -9 in an apply, and three times in the recovery", GROUP)
def killed_again(bench: Bench) -> None:
    bench.publish()
    for _ in range(4):
        bench.somewhere()
        bench.kill()
        bench.restart()


@fault("SIGTERM at a random moment of an apply", GROUP, fast=True)
def terminated(bench: Bench) -> None:
    bench.publish()
    bench.somewhere()
    assert bench.device.stop() == 0, "live: it ends well when it is told to"
    bench.restart()


@fault("kill -9 while offline, then a reboot without a broker", GROUP, fast=True)
def killed_offline(bench: Bench) -> None:
    bench.publish()
    eventually(bench.begun, 10, "it is accepted")
    bench.wire.unplug()
    bench.kill()
    bench.restart()
    bench.local_convergence(30)
    bench.wire.plug()


@fault("frozen for longer than the broker waits", GROUP, gap_s=GAP_S + FROZEN_S)
def frozen(bench: Bench) -> None:
    bench.publish()
    bench.somewhere()
    with bench.device.frozen():
        threading.Event().wait(FROZEN_S)


@fault("no descriptor left for a while", GROUP, ends=1)
def without_descriptors(bench: Bench) -> None:
    process = psutil.Process(bench.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds(), hard))
    bench.publish()
    threading.Event().wait(3)
    with contextlib.suppress(psutil.NoSuchProcess):
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (soft, hard))


@fault("no memory left for a while", GROUP, within_s=180, ends=2, gap_s=GAP_S + WATCHDOG_S)
def without_memory(bench: Bench) -> None:
    """Whatever asks for more fails: it goes on, or ends and is started again, in two minutes where it hangs."""
    process = psutil.Process(bench.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_AS)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms, hard))
    bench.publish()
    threading.Event().wait(3)
    with contextlib.suppress(psutil.NoSuchProcess):
        resource.prlimit(process.pid, resource.RLIMIT_AS, (soft, hard))


@fault("the kernel's out-of-memory killer, at a random moment of an apply", GROUP, ends=1, root=True)
def out_of_memory(bench: Bench) -> None:
    with _memory_group(f"device-agent-{bench.device.id}") as group:
        enter = ("sh", "-c", ENTER, str(group / "cgroup.procs"))
        bench.kill()
        bench.restart(*enter, *PROGRAM)
        bench.converge(60)
        Path(f"/proc/{bench.pid}/oom_score_adj").write_text("1000", encoding="ascii")
        bench.publish()
        bench.somewhere()
        _leave_room(group)
        subprocess.run([*enter, sys.executable, "-S", "-c", f"b'x' * {HOG_BYTES}"], check=False, timeout=30)
        eventually(lambda: not bench.alive, 10, "the kernel kills it")


@contextlib.contextmanager
def _memory_group(name: str) -> Iterator[Path]:
    root = MEMORY_GROUPS if MEMORY_GROUPS.exists() else MEMORY_GROUPS.parent
    group = root / name
    group.mkdir()
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text(encoding="ascii").split():
            (root / "cgroup.procs").write_text(pid, encoding="ascii")
        group.rmdir()


def _leave_room(group: Path) -> None:
    usage, limit = group / "memory.usage_in_bytes", group / "memory.limit_in_bytes"
    if not usage.exists():
        usage, limit = group / "memory.current", group / "memory.max"
    limit.write_text(str(int(usage.read_text(encoding="ascii")) + ROOM_BYTES), encoding="ascii")


def _raises(callback: str) -> None:
    @fault(f"an exception in {callback}", GROUP, within_s=60, ends=int(callback == "events"))
    def raising(bench: Bench) -> None:
        bench.kill()
        at = bench.random.randint(1, MOST_CALLS if callback in OFTEN_CALLED else 1)
        bench.restart(sys.executable, "-m", raising_program, environment={"RAISE": f"{callback} {at}"})
        eventually(lambda: not bench.alive or bench.status(), 20, "live: it answers or ends")
        bench.publish()
        bench.converge(60)
        bench.wire.cut()
        bench.publish()


for _callback in CALLBACKS:
    _raises(_callback)


def _killed_at(call: str) -> None:
    @fault(f"kill -9 at the n-th {call} of an apply", GROUP, sweep=True, ends=1)
    def at_system_call(bench: Bench) -> bool:
        with injecting(bench.pid, call, f"signal=KILL:when={bench.turn}"):
            bench.publish()
            eventually(lambda: bench.has_converged() or bench.exits, 30, "a kill, or the end of the apply")
        bench.keep_alive()
        return -signal.SIGKILL in bench.exits


for _call in SYSTEM_CALLS:
    _killed_at(_call)


def _terminated_at(call: str) -> None:
    @fault(f"SIGTERM at the n-th {call} of an apply", GROUP, sweep=True)
    def at_system_call(bench: Bench) -> bool:
        with injecting(bench.pid, call, f"signal=TERM:when={bench.turn}"):
            bench.publish()
            eventually(lambda: bench.has_converged() or bench.exits, 30, "an end, or the end of the apply")
        if not bench.exits and _is_stopping(bench):
            eventually(lambda: not bench.alive, STOP_S, "live: it ends when it is told to")
        bench.keep_alive()
        ended = list(bench.exits)
        assert set(ended) <= {0}, f"live: it was told to end, and ended with {ended}"
        bench.exits.clear()  # not by itself
        return bool(ended)


def _is_stopping(bench: Bench) -> bool:
    """Whoever answers twice has seen by the second time what it was told before the first."""
    return bench.status() is None or bench.status() is None or SAYS_THAT_IT_STOPS in bench.log()


for _call in ("sendto", "recvfrom", "fdatasync"):
    _terminated_at(_call)


def _killed_at_once(call: str) -> None:
    @fault(f"kill -9 at the n-th {call} of an apply, the target not retained", GROUP, sweep=True, ends=1)
    def at_system_call(bench: Bench) -> bool:
        """Only the disk, or the broker that has got no PUBACK, can bring it back."""
        target = bench.next_target()
        revision = target["revision"]
        with Peer(bench.broker) as peer, injecting(bench.pid, call, f"signal=KILL:when={bench.turn}"):
            peer.publish(bench.device.fleet_target, json.dumps(target).encode())
            eventually(lambda: not bench.alive or _is_applied(bench, revision), 30, "a kill, or the end of the apply")
        bench.keep_alive()
        eventually(lambda: _is_applied(bench, revision), 30, f"durable: revision {revision} is lost")
        eventually(lambda: bench.device.cloud.next_version().revision > revision, 30, "the cloud has heard it")
        bench.publish()
        return -signal.SIGKILL in bench.exits


def _is_applied(bench: Bench, revision: int) -> bool:
    return bool(bench.device.acks(verdict="applied", app=None, revision=revision))


for _call in ("fdatasync", "sendto"):
    _killed_at_once(_call)


def _killed_at_start(call: str) -> None:
    @fault(f"kill -9 at the n-th {call} of a start, in an apply", GROUP, sweep=True, ends=1)
    def at_system_call(bench: Bench) -> bool:
        bench.publish()
        eventually(bench.begun, 10, "it is accepted")
        bench.kill()
        bench.restart(*_killing(call, bench.turn), *PROGRAM)
        eventually(lambda: bench.has_converged() or bench.exits, 30, "a kill, or the end of the apply")
        hit = -signal.SIGKILL in bench.exits
        if not hit:
            bench.kill()  # strace lets go of it
            bench.restart()
        return hit


def _killing(call: str, turn: int) -> tuple[str, ...]:
    """A program to start another with. It is not its parent: what is started is the other's process."""
    inject = ("-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={turn}")
    return ("strace", "-D", "-f", "-qq", "-o", os.devnull, *inject)


for _call in ("pwrite64", "fdatasync", "fsync", "connect"):
    _killed_at_start(_call)
