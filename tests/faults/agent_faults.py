"""The agent itself: killed, told to stop, frozen, short of descriptors."""

import contextlib
import resource
import signal
import sys
import threading

import psutil

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
WATCHDOG_S = 120.0
"""What stands still for so long is ended."""
SYSTEM_CALLS = ("sendto", "recvfrom", "connect", "pwrite64", "fdatasync", "rename", "write")


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


def _raises(callback: str) -> None:
    @fault(f"an exception in {callback}", GROUP, within_s=60, ends=1)
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
