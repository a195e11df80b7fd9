"""The way of an image: a registry that refuses, breaks off, stands still or is slow; a disk that has no room for it."""

import threading

from tests.e2e.device import service
from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import fault
from tests.faults.system import fill, filler
from tests.registry_proxy import Fault

GROUP = "registry"
PACE_S = 0.1
"""For each 64 KiB: an image is five seconds on its way."""
GIVEN_UP_S = 150.0
MIB = 2**20
LARGE_KIB = 24 * 1024
ROOM_BYTES = 30 * MIB
"""More than a large image to download; less than what it takes with its layers unpacked."""


def _publish(bench: Bench, *layers_kib: int) -> None:
    bench.publish(api=service(image=bench.shop.stock(*layers_kib)))


def _answers(status: int, code: str) -> None:
    @fault(f"registry answers {status} for a while", GROUP, within_s=60)
    def answering(bench: Bench) -> None:
        before = bench.of_web()
        bench.shop.proxy.fault = Fault(status)
        _publish(bench)
        bench.failed(code)
        assert bench.of_web() == before, "fail-static: something was stopped for an image that is not here"
        bench.shop.proxy.heal()


for _status, _code in (
    (500, "registry_unreachable"),
    (401, "registry_auth"),
    (404, "no_such_image"),
    (429, "registry_limited"),
):
    _answers(_status, _code)


@fault("every layer cut in the middle, for a while", GROUP, within_s=60)
def cut(bench: Bench) -> None:
    bench.shop.proxy.fault = Fault(cut=True)
    _publish(bench)
    eventually(lambda: bench.shop.proxy.count.blobs, 20, "it is asked for")
    bench.somewhere(6)
    bench.shop.proxy.heal()


@fault("a layer that stands still until the agent gives up", GROUP, within_s=60)
def stalled(bench: Bench) -> None:
    before = bench.of_web()
    bench.shop.proxy.fault = Fault(stall=True)
    _publish(bench)
    bench.failed("pull_stalled", GIVEN_UP_S)
    assert bench.of_web() == before, "fail-static: something was stopped for an image that is not here"
    bench.shop.proxy.heal()
    bench.shop.proxy.let_go()


def _half_pulled(bench: Bench) -> None:
    """Until the pull of a new image is under way."""
    proxy = bench.shop.proxy
    proxy.pace_s = PACE_S
    before = proxy.passed()
    _publish(bench)
    eventually(lambda: proxy.passed() > before, 20, "it is on its way")
    bench.somewhere(3)


@fault("kill -9 in the middle of a pull", GROUP)
def killed(bench: Bench) -> None:
    _half_pulled(bench)
    bench.kill()
    bench.shop.proxy.heal()
    bench.restart()


@fault("SIGTERM in the middle of a pull", GROUP)
def terminated(bench: Bench) -> None:
    _half_pulled(bench)
    assert bench.device.stop() == 0, "live: it ends well when it is told to"
    bench.shop.proxy.heal()
    bench.restart()


@fault("engine killed with kill -9 in the middle of a pull", GROUP, own_engine=True, within_s=60)
def engine_killed(bench: Bench) -> None:
    assert bench.own_engine
    _half_pulled(bench)
    bench.own_engine.kill()
    bench.own_engine.start()
    bench.shop.appear_to(bench.own_engine)


@fault("a newer target while an image is on its way", GROUP)
def superseded(bench: Bench) -> None:
    _half_pulled(bench)
    bench.publish()
    bench.converge(15)
    bench.shop.proxy.heal()


@fault("the engine's disk full while it pulls", GROUP, own_engine=True, engine_disk="160m", within_s=60)
def disk_full(bench: Bench) -> None:
    assert bench.own_engine
    disk = bench.own_engine.data
    before = bench.of_web()
    fill(disk, ROOM_BYTES)
    _publish(bench, LARGE_KIB)
    bench.failed("disk_full", 60)
    assert bench.of_web() == before, "fail-static: something was stopped for an image that is not here"
    filler(disk).unlink()


@fault("an image that the disk has no room for", GROUP, own_engine=True, engine_disk="160m", fresh=True, within_s=60)
def disk_short(bench: Bench) -> None:
    """The agent's own data are on the engine's disk, as they are in its container: it looks before it pulls."""
    assert bench.own_engine
    disk = bench.own_engine.data
    bench.move_data(disk / "device-agent")
    bench.restart(DISK_RESERVE="8m")
    bench.converge(30)
    before, passed = bench.of_web(), bench.shop.proxy.passed()
    fill(disk, ROOM_BYTES)
    _publish(bench, LARGE_KIB)
    bench.failed("disk_short", 60)
    assert bench.shop.proxy.passed() - passed < MIB, "bounded: it pulls what does not fit"
    assert bench.of_web() == before, "fail-static: something was stopped for an image that is not here"
    filler(disk).unlink()
    bench.converge(60)
    bench.move_data(bench.device.folder / "data-again")
    bench.restart()


@fault("somebody's image under the name of a pulled one", GROUP)
def mistaken(bench: Bench) -> None:
    """The name means another image here from now on; what runs, and what the name means there, are as they were."""
    _publish(bench)
    bench.converge(30)
    image = bench.apps["web"]["services"]["api"]["image"]
    before = bench.device.identities()
    bench.host.tag(bench.apps["web"]["services"]["db"]["image"], image)
    bench.shop.given_away.add(image)
    threading.Event().wait(2)
    assert bench.device.identities()["web/db"] == before["web/db"], "untouched: web/db was touched"
    bench.publish()
