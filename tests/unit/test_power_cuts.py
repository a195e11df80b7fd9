"""The power is cut at every call of every port, before and after it takes effect, in the middle of each kind of change.

Enumerated, not sampled: what is lost between two lines is found at that line, every time.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from device_agent.model.observed import LABEL_SERVICE
from tests.builders import app, everything, service, target
from tests.device import OWNER, TOPICS, Device, PowerCut
from tests.property.strategies import shortcomings

CHECK = {"test": ["CMD", "true"]}
KEPT = service("kept:1")
FOLLOWS = service(depends_on={"db": {"condition": "service_healthy", "restart": True}})


@dataclass(frozen=True)
class Change:
    """From one target to another. `kept` stays the same container whatever happens."""

    before: Any
    after: Any
    images: tuple[str, ...] = ("api:1", "api:2", "db:1", "kept:1")
    deletes: bool = False
    """What runs goes before its replacement is there."""
    meddle: Callable[[Device], None] = lambda device: None  # noqa: ARG005 - nothing is done by hand


def by_hand(device: Device) -> None:
    """While the agent does not look: a limit is changed, and a name."""
    device.world.update("one", memory=7 * 2**20)
    db = device.containers()["web/db"]
    db.name = "renamed"
    device.world.happened(db, "rename")


def roomy(strategy: str, image: str, **more: Any) -> Any:
    return app(api=service(image, **{"x-update": {"strategy": strategy}}), **more)


def with_secret(content: str, **more: Any) -> Any:
    return app({"secrets": {"key": {"content": content}}}, api=service(secrets=["key"], healthcheck=CHECK), **more)


CHANGES = {
    "install": Change(
        {},
        {
            "web": app(
                {"volumes": {"data": {}}}, api=service(networks=["default"], volumes=["data:/d"]), db=service("db:1")
            )
        },
    ),
    "install with a pull": Change({}, {"web": app(api=service("pulled:1"))}),
    "update": Change(
        {"web": app(api=service(healthcheck=CHECK), kept=KEPT)},
        {"web": app(api=service("api:2", healthcheck=CHECK), kept=KEPT)},
    ),
    "files": Change({"web": with_secret("old", kept=KEPT)}, {"web": with_secret("new", kept=KEPT)}),
    "files removed": Change({"web": app(kept=KEPT), "gone": with_secret("old")}, {"web": app(kept=KEPT)}),
    "network": Change(
        {"web": app(api=service(networks=["default"]), kept=KEPT)},
        {"web": app({"networks": {"default": {"internal": True}}}, api=service(networks=["default"]), kept=KEPT)},
    ),
    "restarted with": Change(
        {"web": app(api=FOLLOWS, db=service("db:1", healthcheck=CHECK), kept=KEPT)},
        {"web": app(api=FOLLOWS, db=service("api:2", healthcheck=CHECK), kept=KEPT)},
    ),
    "ports swapped": Change(
        {"web": app(api=service(ports=["80:80"]), db=service("db:1", ports=["81:81"]), kept=KEPT)},
        {"web": app(api=service(ports=["81:80"]), db=service("db:1", ports=["80:81"]), kept=KEPT)},
    ),
    "fixed name": Change(
        {"web": app(api=service(container_name="one", healthcheck=CHECK), kept=KEPT)},
        {"web": app(api=service("api:2", container_name="one", healthcheck=CHECK), kept=KEPT)},
    ),
    "names swapped": Change(
        {"web": app(api=service(container_name="one"), db=service("db:1", container_name="two"), kept=KEPT)},
        {"web": app(api=service("api:2", container_name="two"), db=service("db:1", container_name="one"), kept=KEPT)},
    ),
    "by hand": Change(
        {"web": app(api=service(container_name="one"), db=service("db:1"), kept=KEPT)},
        {"web": app(api=service(container_name="one"), db=service("db:1"), kept=KEPT)},
        meddle=by_hand,
    ),
    "start first": Change(
        {"web": roomy("start-first", "api:1", kept=KEPT)}, {"web": roomy("start-first", "api:2", kept=KEPT)}
    ),
    "stop first": Change(
        {"web": roomy("stop-first", "api:1", kept=KEPT)}, {"web": roomy("stop-first", "pulled:1", kept=KEPT)}
    ),
    "delete first": Change(
        {"web": roomy("delete-first", "first:1", kept=KEPT)},
        {"web": roomy("delete-first", "pulled:1", kept=KEPT)},
        deletes=True,
    ),
    "removal": Change(
        {"web": app(kept=KEPT), "gone": app(api=service(networks=["default"], depends_on=["db"]), db=service("db:1"))},
        {"web": app(kept=KEPT)},
    ),
}


def prepared(change: Change) -> Device:
    device = Device(images=change.images).boot()
    device.world.offer_image("pulled:1")
    device.world.offer_image("first:1")
    if change.before:
        device.publish(change.before)
    device.converge()
    device.wait(20)
    change.meddle(device)
    device.fuse.reset()
    return device


def carried_out(device: Device, change: Change) -> None:
    device.publish(change.after, revision=2)
    device.converge()


def calls_of(change: Change) -> int:
    device = prepared(change)
    carried_out(device, change)
    return len(device.fuse.calls)


def powered(device: Device, at: int, work: Callable[[], Any]) -> str | None:
    """The call at which the power went, or None when it was all over before."""
    device.fuse.reset(at)
    try:
        work()
    except PowerCut as cut:
        return str(cut)
    finally:
        device.fuse.reset()
    return None


def check_promises(device: Device, change: Change, where: str) -> None:
    """What holds in the very moment of the cut."""
    stored = device.store.rows.targets["fleet"].target.version.revision if "fleet" in device.store.rows.targets else 0
    assert stored >= (1 if change.before else 0), where
    acknowledged = len(device.pubacked()) - (1 if change.before else 0)
    assert stored == 2 or not acknowledged, f"{where}: acknowledged, and not on disk"
    assert stored == 2 or "accepted 1.2" not in device.told(), where
    for name in () if change.deletes else change.before.get("web", {}).get("services", {}):
        assert [c for c in device.world.containers.values() if (c.app, c.service) == ("web", name)], f"{where}: {name}"


def check_outcome(device: Device, change: Change, where: str) -> None:
    assert device.store.rows.targets["fleet"].target.version == (1, 2), where
    wanted = everything(target(change.after, revision=2))
    for one in wanted.apps.values():
        assert shortcomings(one, device.world) == [], where
    device.containers()  # no doubles
    assert {c.app for c in device.world.containers.values() if c.owned_by(OWNER)} == set(change.after), where
    files = {v.name: v.files for v in device.world.volumes.values() if LABEL_SERVICE in v.labels}
    has = {c.made.files: c.made.service.files for c in device.world.containers.values() if c.made.files}
    assert files == has, where
    told = device.told()
    assert "accepted 1.2" in told, where
    assert told[-1] == "applied 1.2", f"{where}: {told}"
    kept = (*device.broker.on(TOPICS.ack), *device.broker.on(TOPICS.event))
    numbers = {json.loads(sent.payload)["seq"] for sent in kept}
    assert numbers >= set(range(min(numbers), max(numbers) + 1)), f"{where}: an ack or event is missing"


@pytest.mark.parametrize("world_too", [False, True], ids=["the agent", "the machine"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_power_cut_at_every_call(change, world_too):
    total = calls_of(change)
    assert total > 20
    for number in range(1, total + 1):
        device = prepared(change)
        kept = [c.id for name, c in device.containers().items() if name.endswith("/kept")]
        where = powered(device, number, lambda d=device: carried_out(d, change))
        assert where, f"call {number} of {total} was never made"
        where = f"call {number}: {where}"
        check_promises(device, change, where)
        device.cut_power(world_too=world_too)
        again = powered(device, number * 7 % 19 + 1, lambda d=device: d.boot().converge())
        if again:
            where = f"{where}, then {again}"
            check_promises(device, change, where)
            device.cut_power(world_too=world_too)
        device.boot().converge()
        check_outcome(device, change, where)
        assert [c.id for name, c in device.containers().items() if name.endswith("/kept")] == kept, where
