"""The engine and the way to it: gone, hanging, failing call by call, deaf, restarted."""

import contextlib
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import GAP_S, fault
from tests.faults.wire import Rule

GROUP = "engine"
HANGS_S = 20.0
CHANGES = ("/create", "/start", "/stop", "/connect", "DELETE /")
OFTEN = tuple(part for part in CHANGES if part != "/connect")
"""Those that there are in every apply."""
READS = {
    "the list of containers": "/containers/json",
    "the look at a container": "/json HTTP",
    "the list of networks": "/networks HTTP",
    "the list of volumes": "/volumes HTTP",
}
LATE_S = 1.0
DEAD_S = 5.0
"""What cannot be removed is tried again and again."""
APPLIED_LATE_S = 60.0
"""An apply asks the engine some dozens of times."""


@fault("engine unreachable in the middle of an apply", GROUP, fast=True)
def unreachable(bench: Bench) -> None:
    bench.publish()
    bench.somewhere()
    bench.engine.refuse()
    bench.somewhere(3)
    bench.engine.listen()


@fault("engine unreachable when the agent boots", GROUP)
def unreachable_at_boot(bench: Bench) -> None:
    bench.kill()
    bench.engine.refuse()
    bench.publish()
    bench.restart()
    bench.somewhere(4)
    bench.engine.listen()


@fault("every connection to the engine cut, five times", GROUP)
def cut(bench: Bench) -> None:
    bench.publish()
    for _ in range(5):
        bench.somewhere(0.5)
        bench.engine.cut()


@fault("every change fails with 500, for 3 s", GROUP)
def changes_fail(bench: Bench) -> None:
    with bench.engine.failing(*(Rule(part, 500) for part in CHANGES)):
        bench.publish()
        threading.Event().wait(3)


def _sometimes(status: int) -> None:
    @fault(f"a third of all calls answered with {status}, for 5 s", GROUP, within_s=45)
    def sometimes(bench: Bench) -> None:
        with bench.engine.failing(Rule("", status, chance=0.33)):
            bench.publish()
            threading.Event().wait(5)


for _status in (500, 409, 404):
    _sometimes(_status)


def _fails_once(what: str, part: str, status: int) -> None:
    @fault(f"{what} answered once with {status}", GROUP, within_s=45)
    def once(bench: Bench) -> None:
        rule = Rule(part, status, times=1)
        with bench.engine.failing(rule):
            bench.publish()
            _until_met(rule)


def _until_met(rule: Rule) -> None:
    eventually(lambda: rule.times == 0, 20, f"the engine is asked for {rule.part}")


for _part in OFTEN:
    for _status in (500, 409, 404):
        _fails_once(_part.strip("/ "), _part, _status)
for _what, _part in READS.items():
    _fails_once(_what, _part, 500)


def _lost_once(part: str) -> None:
    @fault(f"{part.strip('/ ')} carried out, and its answer lost", GROUP, within_s=45)
    def lost(bench: Bench) -> None:
        rule = Rule(part, lost=True, times=1)
        with bench.engine.failing(rule):
            bench.publish()
            _until_met(rule)


for _part in OFTEN:
    _lost_once(_part)


@fault(f"every call to the engine {LATE_S:g} s late, for an apply", GROUP)
def late(bench: Bench) -> None:
    with bench.engine.failing(Rule("", delay_s=LATE_S)):
        bench.publish()
        bench.converge(APPLIED_LATE_S)


@fault("a start that hangs for 20 s", GROUP, within_s=60, gap_s=GAP_S + HANGS_S)
def start_hangs(bench: Bench) -> None:
    with bench.engine.failing(Rule("/start", times=1)):
        bench.publish()
        threading.Event().wait(HANGS_S)


@fault("a removal that hangs for 20 s", GROUP, within_s=60)
def removal_hangs(bench: Bench) -> None:
    with bench.engine.failing(Rule("DELETE /", times=1)):
        bench.publish()
        threading.Event().wait(HANGS_S)


@fault("a removal said to be under way already, for 5 s", GROUP, within_s=45)
def removal_in_progress(bench: Bench) -> None:
    with bench.engine.failing(Rule("DELETE /", 409, message="removal of container x is already in progress")):
        bench.publish()
        threading.Event().wait(5)


@fault("the engine takes this API version no more, for 5 s", GROUP, within_s=45)
def version_refused(bench: Bench) -> None:
    too_old = "client version 1.41 is too old. Minimum supported API version is 1.44"
    with bench.engine.failing(Rule(" /v1.", 400, message=too_old)):
        bench.publish()
        threading.Event().wait(5)


@fault("a list that hangs for 20 s", GROUP, within_s=60)
def list_hangs(bench: Bench) -> None:
    with bench.engine.failing(Rule("containers/json", times=1)):
        bench.publish()
        threading.Event().wait(HANGS_S)


@fault("event stream cut, and refused for 3 s", GROUP)
def deaf(bench: Bench) -> None:
    with bench.engine.failing(Rule("/events", 500)):
        bench.engine.cut()
        bench.publish()
        bench.host.remove(bench.device.identities()["web/api"][0])
        threading.Event().wait(3)


@fault("event stream silent for 5 s, something removed meanwhile", GROUP)
def stalled(bench: Bench) -> None:
    with bench.engine.failing(Rule("/events")):
        bench.engine.cut()
        threading.Event().wait(2)
        bench.host.remove(bench.device.identities()["web/api"][0])
        threading.Event().wait(3)


@fault("engine restarted in the middle of an apply", GROUP, own_engine=True, within_s=60)
def restarted(bench: Bench) -> None:
    assert bench.own_engine
    bench.publish()
    bench.somewhere()
    bench.own_engine.restart()


@fault("engine killed with kill -9 in the middle of an apply", GROUP, own_engine=True, within_s=60)
def killed(bench: Bench) -> None:
    assert bench.own_engine
    bench.publish()
    bench.somewhere()
    bench.own_engine.kill()
    bench.own_engine.start()


@fault("the machine rebooted without a network: engine and agent killed", GROUP, own_engine=True, within_s=60)
def rebooted(bench: Bench) -> None:
    assert bench.own_engine
    bench.publish()
    eventually(bench.begun, 20, "it is accepted")
    bench.wire.unplug()
    bench.kill()
    bench.own_engine.kill()
    bench.own_engine.start()
    bench.restart()
    bench.local_convergence(60)
    bench.wire.plug()


@fault("a container that the engine cannot remove, and holds as dead", GROUP, own_engine=True, within_s=60)
def dead(bench: Bench) -> None:
    assert bench.own_engine
    (old,) = bench.victims()
    with _nailed(bench.own_engine.data / "containers" / old):
        bench.publish()
        eventually(lambda: _is_dead(bench, old), 30, "the engine holds it as dead")
        eventually(lambda: bench.device.runs("web/api"), 30, "fail-static: what replaces it runs")
        threading.Event().wait(DEAD_S)


@contextlib.contextmanager
def _nailed(folder: Path) -> Iterator[None]:
    """A file in it that not even root can remove."""
    nail = folder / "nail"
    nail.touch()
    subprocess.run(["chattr", "+i", nail], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", nail], check=True)


def _is_dead(bench: Bench, container: str) -> bool:
    found = bench.host.inspect(container)
    return found is not None and bool(found["State"]["Dead"])
