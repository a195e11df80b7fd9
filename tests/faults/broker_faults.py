"""The broker and the way to it: killed, emptied, frozen, slow, flapping, talking nonsense; and our name taken."""

import json
import secrets
import threading
from typing import Any

from tests.broker import Peer
from tests.eventually import eventually
from tests.faults.bench import KEEPALIVE_S, Bench
from tests.faults.fault import fault

GROUP = "broker"
FLOOD = 500
MOST_APPLIES = 5
"""Containers made in a flood of targets: a burst is a few changes, not hundreds."""


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


@fault("broker killed with kill -9, and started with its data", GROUP, fast=True)
def killed(bench: Bench) -> None:
    bench.lossy = True  # it saves every second
    bench.publish()
    bench.somewhere()
    bench.broker.kill()
    bench.somewhere()
    bench.broker.start()


@fault("broker killed, and started without its data", GROUP, fresh=True)
def emptied(bench: Bench) -> None:
    bench.lossy = True
    bench.publish()
    bench.somewhere()
    bench.broker.wipe()


@fault("broker stopped and started again three times", GROUP)
def restarted(bench: Bench) -> None:
    bench.publish()
    for _ in range(3):
        bench.somewhere()
        bench.broker.restart()


@fault("broker frozen for twice the keep-alive", GROUP)
def frozen(bench: Bench) -> None:
    bench.publish()
    bench.somewhere()
    bench.broker.freeze()
    _wait(2 * KEEPALIVE_S)
    bench.broker.thaw()


@fault("half-open connection: nothing arrives, nobody is told", GROUP)
def half_open(bench: Bench) -> None:
    session = bench.device.session
    with bench.wire.frozen():
        bench.publish()
        eventually(lambda: _disconnected(bench), 1.5 * KEEPALIVE_S + 2, "live: noticed within 1.5 keep-alives")
    eventually(lambda: bench.device.session > session, 60, "it is online again")


def _disconnected(bench: Bench) -> bool:
    status = bench.status()
    return status is not None and not status["connected"]


@fault("cable pulled in the middle of an apply", GROUP, fast=True)
def pulled(bench: Bench) -> None:
    bench.publish()
    bench.somewhere()
    bench.wire.unplug()
    bench.somewhere(3)
    bench.wire.plug()


@fault("no broker when it boots", GROUP)
def away_at_boot(bench: Bench) -> None:
    bench.wire.unplug()
    bench.kill()
    bench.restart()
    bench.local_convergence(20)
    bench.publish()
    bench.wire.plug()


@fault("connection cut every 0.2 s, 20 times", GROUP)
def flapping(bench: Bench) -> None:
    bench.publish()
    for _ in range(20):
        _wait(0.2)
        bench.wire.cut()


@fault("8 kB/s and 0.3 s late", GROUP)
def slow(bench: Bench) -> None:
    bench.wire.bytes_per_s, bench.wire.delay_s = 8000, 0.3
    bench.publish()
    bench.wire.cut()
    bench.somewhere(5)
    bench.wire.heal()


@fault("connection reset right after CONNACK, for 5 s", GROUP)
def reset_at_once(bench: Bench) -> None:
    bench.wire.cut_after_bytes = 16
    bench.wire.cut()
    bench.publish()
    _wait(5)
    bench.wire.heal()


@fault("retained target cleared by somebody", GROUP, fast=True)
def cleared(bench: Bench) -> None:
    before = bench.device.identities()
    bench.client.publish(bench.device.fleet_target, b"")
    eventually(lambda: bench.device.events("target_cleared"), 10, "truthful: it says that its target was cleared")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


@fault("old target replayed, malformed and oversized ones sent", GROUP, fast=True)
def nonsense(bench: Bench) -> None:
    before = bench.device.identities()
    for payload in (_old(bench), b"\xff\xfe{", b'{"schema": 1}', b"[" * 100_000, secrets.token_bytes(1_100_000)):
        bench.client.publish(bench.device.fleet_target, payload, retain=False)
    eventually(lambda: len(bench.device.acks(verdict="rejected")) >= 5, 20, "truthful: each is refused")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


def _old(bench: Bench) -> bytes:
    scope: dict[str, Any] = {"fleet": bench.device.fleet, "device": None}
    return json.dumps({"schema": 1, "scope": scope, "epoch": 1, "revision": 0, "apps": {"evil": {}}}).encode()


@fault(f"{FLOOD} targets in a burst", GROUP)
def flood(bench: Bench) -> None:
    with Peer(bench.broker) as peer:
        bodies = [json.dumps(bench.next_target()) for _ in range(FLOOD)]
        for body in bodies:
            peer.client.publish(bench.device.fleet_target, body, qos=1, retain=True)
        eventually(lambda: bench.device.cloud.next_version().revision > bench.number, 30, "the last one was heard")
    bench.publish()
    bench.converge(60)
    filters = {"type": "container", "event": "create", "label": [bench.device.label, "device-agent.service=api"]}
    made = list(bench.host.api.events(since=bench.began, until=bench.now(), filters=filters, decode=True))
    assert len(made) <= MOST_APPLIES, f"bounded: {len(made)} containers were made"


@fault("another client with the same id", GROUP, within_s=150)
def clone(bench: Bench) -> None:
    with Peer(bench.broker, client_id=f"{bench.device.fleet}.{bench.device.id}"):
        bench.publish()
        eventually(lambda: _disconnected(bench), 15, "it is thrown out")
        _wait(5)
