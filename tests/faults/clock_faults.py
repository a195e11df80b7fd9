"""Wall clocks that jump: while it runs, and between two runs."""

import threading

from tests.faults.bench import Bench
from tests.faults.fault import fault
from tests.faults.system import FalseClock

GROUP = "clock"
JUMPS = ("+10y", "-10y", "+1h", "-1h", "@1970-01-02 00:00:00")


def _jumps(jump: str) -> None:
    @fault(f"clock jumps to {jump.lstrip('@')} while it runs, and back", GROUP, fast=jump == "+10y")
    def while_running(bench: Bench) -> None:
        clock = start_with(bench, "+0")
        bench.converge(30)
        clock.set(jump)
        bench.publish()
        bench.converge(45)
        clock.set("+0")
        bench.publish()
        bench.converge(45)
        _start_without(bench)

    @fault(f"booted with the clock at {jump.lstrip('@')}", GROUP)
    def at_boot(bench: Bench) -> None:
        bench.publish()
        clock = start_with(bench, jump)
        bench.somewhere(3)
        clock.set("+0")
        threading.Event().wait(1)
        _start_without(bench)


def start_with(bench: Bench, time: str, **settings: str) -> FalseClock:
    clock = FalseClock(bench.device.folder)
    clock.set(time)
    bench.kill()
    bench.restart(environment=clock.environment, **settings)
    return clock


def _start_without(bench: Bench) -> None:
    bench.kill()
    bench.restart()


for _jump in JUMPS:
    _jumps(_jump)
