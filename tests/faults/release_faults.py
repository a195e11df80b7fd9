"""Releases that cannot be: programs that end, checks that fail, what a stranger has, what the owner forbids."""

import json
import random
from typing import Any

from tests.broker import Peer, free_ports
from tests.e2e.device import service
from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import fault
from tests.signing import ALICE, trust

GROUP = "release"
CRASHES = ["sh", "-c", "exit 3"]
ROLLED_BACK_S = 45.0
BAD_S = 45.0
"""What is bad does not run, until it is given up."""
RELEASES = 10
FUZZED = 200
UNHEALTHY = {"test": ["CMD", "false"], "interval": "1s", "retries": 1, "timeout": "1s"}
NO_HEALTH = {"test": ["CMD", "sleep", "60"], "interval": "1s", "timeout": "60s"}
CONFIGS = {"text": {"content": "this is no program"}}
AS_PROGRAM = [{"source": "text", "target": "/text", "mode": "0755"}]
HOSTILE: dict[str, dict[str, Any]] = {
    "privileged": {"privileged": True},
    "the host's root": {"volumes": ["/:/host"]},
    "the engine's socket": {"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]},
    "the host's network": {"network_mode": "host"},
    "every capability": {"cap_add": ["ALL"]},
    "a device": {"devices": ["/dev/mem"]},
    "the host's processes": {"pid": "host"},
    "a volume that is the host's root": {"volumes": ["root:/host"]},
}
_OF_THE_HOST = {"root": {"driver_opts": {"type": "none", "o": "bind", "device": "/"}}}


def _bad(bench: Bench, *, on_failure: str, **keys: Any) -> None:
    """A release of which `api` cannot be good."""
    bench.next_release(api=service(environment={"RELEASE": str(bench.number)}, **keys))
    if "configs" in keys:
        bench.apps["web"]["configs"] = CONFIGS
    bench.apps["web"]["x-release"] = {"healthy_for": "1s", "deadline": "10s", "on_failure": on_failure}
    bench.published = bench.device.cloud.publish(bench.apps)


def _fails(name: str, code: str, **keys: Any) -> None:
    @fault(f"a release that {name}, and then a good one", GROUP, within_s=60, gap_s=BAD_S)
    def retried(bench: Bench) -> None:
        _bad(bench, on_failure="retry", **keys)
        bench.failed(code)
        bench.publish()

    _is_rolled_back(name, code, **keys)


def _is_rolled_back(name: str, code: str, **keys: Any) -> None:
    @fault(f"a release that {name}, rolled back, and then a good one", GROUP, gap_s=BAD_S)
    def rolled_back(bench: Bench) -> None:
        before = bench.device.container("web/api")["Config"]
        _bad(bench, on_failure="rollback", **keys)
        bench.failed(code)
        _until_rolled_back(bench)
        assert bench.device.container("web/api")["Config"]["Env"] == before["Env"], "fail-static: another one runs"
        bench.publish()


def _until_rolled_back(bench: Bench) -> None:
    published = bench.published
    assert published
    eventually(
        lambda: ("rolled_back", None) in bench.device.verdicts(published.revision), ROLLED_BACK_S, "it is rolled back"
    )


_fails("crashes", "crash_loop", command=CRASHES)
_fails("turns unhealthy", "unhealthy", healthcheck=UNHEALTHY)
_fails("ends, and with 0", "crash_loop", command=["true"])
_fails("is no program", "crash_loop", command=["/text"], init=False, configs=AS_PROGRAM)
# With `retry` it is waited for, however long.
_is_rolled_back("never tells its health", "deadline", healthcheck=NO_HEALTH)
_fails("has no such program", "bad_command", command=["/no/such/program"], init=False)


@fault("kill -9 while a release is rolled back", GROUP, gap_s=BAD_S)
def killed_in_rollback(bench: Bench) -> None:
    _bad(bench, on_failure="rollback", command=CRASHES)
    eventually(bench.begun, 20, "it is accepted")
    for _ in range(3):
        bench.somewhere()
        bench.kill()
        bench.restart()
    _until_rolled_back(bench)
    bench.publish()


@fault(f"{RELEASES} releases, every second one of which crashes and is rolled back", GROUP)
def many(bench: Bench) -> None:
    for number in range(RELEASES):
        if number % 2:
            _bad(bench, on_failure="rollback", command=CRASHES)
            _until_rolled_back(bench)
        else:
            bench.publish()
            bench.converge(30)
    bench.publish()


@fault("a port that the next release wants is a stranger's", GROUP)
def port_taken(bench: Bench) -> None:
    (port,) = free_ports(1)
    thief = bench.host.run(f"{bench.device.prefix}thief", ports=[80], port_bindings={80: ("127.0.0.1", port)})
    try:
        bench.publish(api=service(2, ports=[f"127.0.0.1:{port}:80"]))
        bench.failed("port_in_use")
        assert bench.host.identity(thief), "foreign: the stranger was touched"
    finally:
        bench.host.remove(thief)


@fault("a name that the next release wants is a stranger's", GROUP)
def name_taken(bench: Bench) -> None:
    name = f"fixed-{bench.random.randrange(10**6)}"
    thief = bench.host.run(f"{bench.device.prefix}{name}")
    try:
        bench.publish(api=service(2, container_name=name))
        bench.failed("name_in_use")
        assert bench.host.identity(thief), "foreign: the stranger was touched"
    finally:
        bench.host.remove(thief)


@fault("an external network that is not there yet", GROUP)
def external_missing(bench: Bench) -> None:
    name = f"{bench.device.prefix}late-{bench.number}"
    bench.next_release(api=service(2, networks=["default", "late"]))
    bench.apps["web"]["networks"] = {"late": {"external": True, "name": name}}
    bench.published = bench.device.cloud.publish(bench.apps)
    bench.failed("network_missing")
    network = bench.host.make_network(name)
    bench.converge(60)
    bench.publish()
    bench.converge(30)
    bench.host.api.remove_network(network)


@fault("an external volume that is not there yet", GROUP)
def external_volume_missing(bench: Bench) -> None:
    name = f"{bench.device.prefix}late-{bench.number}"
    policy = bench.device.folder / "policy-with-volumes.toml"
    policy.write_text('external_volumes = ["*"]\n', encoding="utf-8")
    bench.kill()
    bench.restart(POLICY_FILE=str(policy))
    bench.next_release(api=service(2, volumes=["late:/late"]))
    bench.apps["web"]["volumes"] = {"late": {"external": True, "name": name}}
    bench.published = bench.device.cloud.publish(bench.apps)
    bench.failed("volume_missing")
    bench.host.make_volume(name)
    bench.converge(60)
    bench.publish()
    bench.converge(30)
    bench.host.api.remove_volume(name)
    bench.kill()
    bench.restart()


@fault("hostile targets: what the device's owner forbids", GROUP)
def hostile(bench: Bench) -> None:
    before = bench.device.identities()
    for what, keys in HOSTILE.items():
        target = bench.next_target()
        target["apps"]["web"]["services"]["evil"] = service(**keys)
        target["apps"]["web"]["volumes"] = _OF_THE_HOST if what.startswith("a volume") else {}
        refused = len(bench.device.acks(verdict="rejected"))
        bench.client.publish(bench.device.fleet_target, json.dumps(target).encode(), retain=False)
        eventually(lambda heard=refused: len(bench.device.acks(verdict="rejected")) > heard, 20, f"{what} is refused")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


@fault(f"{FUZZED} targets with random bytes in them", GROUP)
def fuzzed(bench: Bench) -> None:
    """For another fleet: whatever a byte makes of it, it is never to be carried out."""
    before = bench.device.identities()
    target = bench.next_target()
    good = json.dumps({**target, "scope": {"fleet": "somebody-else", "device": None}}).encode()
    with Peer(bench.broker) as peer:
        for _ in range(FUZZED):
            peer.client.publish(bench.device.fleet_target, _with_noise(bench.random, good), qos=1)
    eventually(bench.status, 20, "live: it answers")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.publish()


def _with_noise(rng: random.Random, good: bytes) -> bytes:
    data = bytearray(good)
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(data))
        how = rng.randrange(3)
        if how == 0:
            data[at] = rng.randrange(256)
        elif how == 1:
            del data[at : at + rng.randint(1, 20)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 20))
    return bytes(data)


@fault("unsigned targets, once a key is trusted", GROUP)
def unsigned(bench: Bench) -> None:
    keys = bench.device.folder / f"keys-{bench.number}"
    bench.kill()
    bench.restart(TRUSTED_KEYS=str(trust(keys, alice=ALICE)))
    bench.local_convergence(30)
    before = bench.device.identities()
    target = bench.next_target()
    bench.client.publish(bench.device.fleet_target, json.dumps(target).encode(), retain=False)
    eventually(lambda: bench.device.acks(verdict="rejected", code="signature"), 20, "truthful: it is refused")
    assert bench.device.identities() == before, "fail-static: it touched something"
    bench.kill()
    bench.restart()
    bench.publish()
