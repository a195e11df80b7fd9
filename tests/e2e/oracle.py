"""The one judge of what a fault has left: it looks at the engine, the broker and a copy of the database."""

from collections.abc import Mapping
from typing import Any

from cloud_sim.cloud import Published
from device_agent.core.scopes import effective_digest
from tests.e2e.device import CONVERGE_S, Device, Stranger
from tests.eventually import eventually

TOLD_S = 10.0
"""How long what is settled may take to be told: the state is sent at most every 2 s."""


def judge(
    device: Device,
    client: Stranger,
    published: Published,
    apps: Mapping[str, Any],
    *,
    own: Published | None = None,
    untouched: Mapping[str, tuple[str, str]] | None = None,
    acks: bool = True,
    gaps: tuple[tuple[int, int], ...] = (),
) -> None:
    """That the device, which is online, has arrived at its fleet's target.

    `apps` is all that it is to run, also from its `own` target; `untouched` are identities. Without `acks`: a broker
    that lost its data has lost what it was told for others, too; `gaps` are what was lost so before.
    """
    device.converge(CONVERGE_S)
    wanted = {f"{name}/{service}": told for name, app in apps.items() for service, told in app["services"].items()}

    # One container for each service, as the target says, and nothing else.
    found = device.containers()
    assert found.keys() == wanted.keys()
    for key, told in wanted.items():
        assert found[key]["State"]["Running"], f"{key} does not run"
        assert found[key]["Config"]["Image"] == told["image"]
        environment = {f"{name}={value}" for name, value in told.get("environment", {}).items()}
        assert environment <= set(found[key]["Config"]["Env"])
    networks = [network["Name"] for network in device.host.networks(device.label)]
    assert sorted(networks) == sorted(f"{device.prefix}{name}_default" for name in apps)
    identities = device.identities()
    for key, identity in (untouched or {}).items():
        assert identities[key] == identity, f"{key} was touched"

    # The revision has not gone back, and is on disk.
    versions = {target.scope: (target.epoch, target.revision) for target in (published, own) if target}
    snapshot = device.snapshot()
    assert snapshot.sound == "ok"
    assert snapshot.targets == versions
    assert snapshot.floors == versions

    # It is told: an end of this target, no ack lost, and a state that is what the engine shows.
    if acks:
        device.cloud.wait_for_ack(device.id, verdict="applied", app=None, revision=published.revision, timeout=TOLD_S)
        lost = set(device.cloud.gaps(device.id)) - set(gaps)
        assert not lost, f"durable: the cloud misses acks and events {sorted(lost)}"
    eventually(lambda: device.status()["outbox"]["rows"] == 0, TOLD_S, "the outbox is empty")
    state = client.retained(device.up("state"))
    assert state["converged"] is True, state
    assert state["outbox"]["dropped"] == 0
    assert state["have"]["fleet"]["revision"] == published.revision
    assert state["effective_digest"] == effective_digest(apps)
    told = {
        f"{name}/{service}": report["container"]
        for name, app in state["apps"].items()
        for service, report in app["services"].items()
    }
    assert told == {key: container["Name"].removeprefix("/") for key, container in found.items()}
    assert client.retained(device.up("session"))["online"] is True
