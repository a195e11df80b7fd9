"""The broker and the way to it: killed, emptied, frozen, slow, flapping, talking nonsense; and our name taken."""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from device_agent.core.brake import CALM_S
from tests.broker import Peer
from tests.eventually import eventually
from tests.faults.bench import KEEPALIVE_S, Bench
from tests.faults.fault import fault
from tests.faults.system import losing_packets

GROUP = "broker"
FLOOD = 500
OVERSIZED_BYTES = 3 * 2**20
"""More than the agent lets a broker send it in one packet."""
SILENCE_S = 20.0
AGAIN_S = 75.0
"""A broker that was away is tried again after up to a minute."""
LIKE_A_CLONE_S = 210.0
"""Connections that end soon, four in a row, look like a second client: it waits one to three minutes then."""
MOST_SESSIONS = 4
"""Connections while a broker was restarted once."""
MOST_APPLIES = 5
"""Containers made in a flood of targets, and one more for each second that it lasts: not hundreds."""


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
    bench.lossy = True  # the cloud hears what is said while it is connected, and may come back later than the device
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


@fault("connection cut every 0.2 s, 20 times", GROUP, within_s=LIKE_A_CLONE_S)
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


@fault("connection reset right after CONNACK, for 5 s", GROUP, fresh=True)
def reset_at_once(bench: Bench) -> None:
    bench.wire.cut_after_bytes = 16
    bench.wire.cut()
    bench.publish()
    _wait(5)
    bench.wire.heal()


@fault("a third of all packets lost, and 8 kB/s", GROUP, within_s=60, root=True)
def lossy(bench: Bench) -> None:
    with losing_packets(bench.wire.port, 0.3):
        bench.wire.bytes_per_s = 8000
        bench.publish()
        bench.wire.cut()
        _wait(10)
    bench.wire.heal()


@fault(f"all packets lost for {SILENCE_S:g} s", GROUP, within_s=AGAIN_S, root=True)
def silence(bench: Bench) -> None:
    with losing_packets(bench.wire.port, 1.0):
        bench.publish()
        eventually(lambda: _disconnected(bench), 1.5 * KEEPALIVE_S + 5, "live: it notices")
        _wait(SILENCE_S)


@fault("what the broker says is lost, what the device says arrives", GROUP)
def deaf(bench: Bench) -> None:
    session = bench.device.session
    bench.wire.deaf = True
    bench.publish()
    eventually(lambda: _disconnected(bench), 1.5 * KEEPALIVE_S + 5, "live: it notices")
    bench.wire.heal()
    bench.wire.cut()
    eventually(lambda: bench.device.session > session, 60, "it is online again")


@fault("random bytes from the broker, for 5 s", GROUP, within_s=LIKE_A_CLONE_S)
def noisy(bench: Bench) -> None:
    bench.wire.noise = bench.random
    bench.wire.cut()
    bench.publish()
    _wait(5)
    bench.wire.heal()
    bench.wire.cut()


@fault("broker that lets nobody in for a while", GROUP, within_s=90)
def refusing(bench: Bench) -> None:
    """Told, and then tried again after half a minute or more."""
    with _broker_settings(bench, "allow_anonymous false"):
        eventually(lambda: "refused the connection" in bench.device.log(), AGAIN_S, "truthful: it says why")
    eventually(lambda: bench.device.cloud.down is None, 90, "the cloud is let in again, too")
    bench.publish()


@fault("broker that takes no message of more than 1 kB", GROUP, within_s=90, fresh=True)
def small_messages(bench: Bench) -> None:
    """The state is larger: it is shortened, not sent again and again."""
    before = bench.device.session
    with _broker_settings(bench, "max_packet_size 1000"):
        eventually(lambda: _connected(bench), AGAIN_S, "it is online")
        _wait(5)
        sessions = bench.device.session - before
        assert sessions <= MOST_SESSIONS, f"bounded: {sessions} connections"
    bench.publish()


@contextlib.contextmanager
def _broker_settings(bench: Bench, lines: str) -> Iterator[None]:
    file = bench.broker_data / "more" / "fault.conf"
    file.write_text(f"{lines}\n", encoding="ascii")
    file.chmod(0o644)
    bench.lossy = True
    bench.broker.restart()
    try:
        yield
    finally:
        file.unlink()
        bench.broker.restart()


def _connected(bench: Bench) -> bool:
    status = bench.status()
    return status is not None and bool(status["connected"])


@fault("the newest target three times, with older ones in between", GROUP)
def repeated(bench: Bench) -> None:
    targets = [bench.next_target() for _ in range(4)]
    with Peer(bench.broker) as peer:
        for target in (targets[0], targets[3], targets[1], targets[3], targets[2], targets[3]):
            peer.publish(bench.device.fleet_target, json.dumps(target).encode(), retain=target is targets[3])
    revision = targets[3]["revision"]
    eventually(lambda: bench.device.acks(verdict="applied", app=None, revision=revision), 30, "the newest is applied")
    _refuses_as_stale(bench, targets[0])
    before = bench.device.identities()
    bench.client.publish(bench.device.fleet_target, json.dumps(targets[3]).encode())
    _wait(1)
    assert bench.device.identities() == before, "untouched: the same target once more has changed something"
    eventually(lambda: bench.device.cloud.next_version().revision > revision, 30, "the cloud has heard it")
    bench.publish()


@fault("retained target cleared by somebody", GROUP, fast=True)
def cleared(bench: Bench) -> None:
    before = bench.device.identities()
    bench.client.publish(bench.device.fleet_target, b"")
    eventually(lambda: bench.device.events("target_cleared"), 10, "truthful: it says that its target was cleared")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


def _refuses_as_stale(bench: Bench, target: Mapping[str, Any]) -> None:
    """One that is good but for its age, alone: of a burst only the newest is judged."""
    before = bench.device.identities()
    _wait(2 * CALM_S)
    refused = len(bench.device.acks(verdict="rejected", code="stale"))
    bench.client.publish(bench.device.fleet_target, json.dumps(target).encode(), retain=False)
    eventually(
        lambda: len(bench.device.acks(verdict="rejected", code="stale")) > refused,
        10,
        f"forward: revision {target['revision']} is refused as stale",
    )
    assert bench.device.identities() == before, "forward: an older target was carried out"


@fault("old target replayed, malformed and oversized ones sent", GROUP, fast=True)
def nonsense(bench: Bench) -> None:
    older, newer = bench.next_target(), bench.next_target()
    bench.client.publish(bench.device.fleet_target, json.dumps(newer).encode())
    revision = newer["revision"]
    eventually(lambda: bench.device.acks(verdict="applied", app=None, revision=revision), 30, "the newer is applied")
    _refuses_as_stale(bench, older)
    before = bench.device.identities()
    refused = len(bench.device.acks(verdict="rejected"))
    # In one connection a stale version is told once: this one is another than `older` in each run.
    evil = _evil(bench, older["revision"] - 1)
    for payload in (evil, b"\xff\xfe{", b'{"schema": 1}', b"[" * 100_000, secrets.token_bytes(1_100_000)):
        bench.client.publish(bench.device.fleet_target, payload, retain=False)
    eventually(lambda: len(bench.device.acks(verdict="rejected")) >= refused + 5, 20, "truthful: each is refused")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.client.publish(bench.device.fleet_target, json.dumps(newer).encode())
    eventually(lambda: bench.device.cloud.next_version().revision > revision, 30, "the cloud has heard it")
    bench.publish()


@fault("a retained target that is larger than the agent's largest packet", GROUP)
def oversized(bench: Bench) -> None:
    """The broker drops it on the way to the agent, at a new connection as well: the agent never hears of it."""
    before = bench.device.identities()
    with Peer(bench.broker) as peer:
        peer.publish(bench.device.fleet_target, secrets.token_bytes(OVERSIZED_BYTES), retain=True)
    session = bench.device.session
    bench.wire.cut()
    eventually(lambda: bench.device.session > session, 30, "live: it is online again")
    _wait(CALM_S)
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


def _evil(bench: Bench, revision: int) -> bytes:
    body = {"schema": 1, "scope": {"fleet": bench.device.fleet, "device": None}, "epoch": 1, "revision": revision}
    return json.dumps({**body, "apps": {"evil": {}}}).encode()


@fault(f"{FLOOD} targets in a burst", GROUP)
def flood(bench: Bench) -> None:
    with Peer(bench.broker) as peer:
        targets = [bench.next_target() for _ in range(FLOOD)]
        bodies = [json.dumps(target) for target in targets]
        last, began = targets[-1]["revision"], time.monotonic()
        for body in bodies:
            peer.client.publish(bench.device.fleet_target, body, qos=1, retain=True)
        eventually(lambda: bench.device.cloud.next_version().revision > last, 60, "the last one was heard")
        lasted = time.monotonic() - began
    bench.publish()
    bench.converge(60)
    made = [told for told in bench.watcher.since(bench.began) or () if told.what == "create"]
    assert 1 <= len(made) <= MOST_APPLIES + lasted, f"bounded: {len(made)} containers were made in {lasted:.0f} s"


@fault("another client with the same id", GROUP, within_s=LIKE_A_CLONE_S)
def clone(bench: Bench) -> None:
    with Peer(bench.broker, client_id=f"{bench.device.fleet}.{bench.device.id}"):
        bench.publish()
        eventually(lambda: _disconnected(bench), 15, "it is thrown out")
        _wait(5)
