"""Whether there is room for an image: the numbers, and the pulls that share one disk."""

import threading

import pytest

from cloud_sim.engine import SimulatedEngine
from device_agent.core.room import MIB, Reserve, too_little
from device_agent.model.errors import EngineError, Kind
from device_agent.model.host import Disk
from device_agent.model.image import normalise
from device_agent.model.steps import Pull
from device_agent.ports import PullProgress
from device_agent.runtime.room import Room

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("reserve", "total", "kept"),
    [
        (Reserve(), 100 * GIB, 10 * GIB),
        (Reserve(), GIB, 256 * MIB),
        (Reserve(percent=20), 10 * GIB, 2 * GIB),
        (Reserve(percent=0, least=GIB), 100 * GIB, GIB),
        (Reserve(percent=0, least=0), 100 * GIB, 0),
    ],
)
def test_what_is_to_stay_free(reserve, total, kept):
    assert reserve.of(Disk(0, total)) == kept


@pytest.mark.parametrize(
    ("missing_mib", "promised_mib", "free_mib", "fits"),
    [(100, 0, 556, True), (100, 0, 555, False), (100, 10, 556, False), (0, 999, 0, True)],
)
def test_three_times_what_travels_and_the_reserve_must_be_free(missing_mib, promised_mib, free_mib, fits):
    disk = Disk(free_mib * MIB, GIB)
    assert bool(too_little("a:1", missing_mib * MIB, promised_mib * MIB, disk, Reserve())) is not fits


def test_the_numbers_are_told():
    assert too_little("a:1", 100 * MIB, 30 * MIB, Disk(300 * MIB, GIB), Reserve()) == (
        "a:1 needs about 300 MiB (100 MiB to download) and 30 MiB for pulls under way; "
        "300 MiB of 1024 MiB are free, and 256 MiB are to stay free: free some space"
    )


def room(free_mib: int, **sizes_mib: int) -> Room:
    engine = SimulatedEngine("f/d")
    for name, size in sizes_mib.items():
        engine.world.offer_image(name)
        engine.world.sizes[normalise(name)] = size * MIB
    return Room(engine, lambda: Disk(free_mib * MIB, GIB), Reserve())


def test_pulls_under_way_share_what_is_free():
    shared = room(656, a=100, b=100)
    first, second = (Pull(normalise(name)) for name in ("a", "b"))
    shared.claim(first)
    with pytest.raises(EngineError) as caught:
        shared.claim(second)
    assert (caught.value.code, caught.value.kind) == ("disk_short", Kind.OUTSIDE)
    begun = PullProgress(first.image, 20 * MIB, 20 * MIB)
    assert shared.progress(begun).total == 100 * MIB, "the engine has not begun with the other layers"
    with pytest.raises(EngineError):
        shared.claim(second)
    shared.progress(PullProgress(first.image, 80 * MIB, 100 * MIB))
    shared.claim(second)
    shared.leave(first.image)
    shared.leave(second.image)
    shared.claim(first)


def test_what_nobody_tells_is_pulled_without():
    unknown = room(0)
    unknown.engine.world.offer_image("a")
    unknown.claim(Pull(normalise("a")))
    room(0, a=1).engine.pull("a", None, lambda _: None, threading.Event())
    blind = room(0, a=1)
    blind.disk = lambda: None
    blind.claim(Pull(normalise("a")))
