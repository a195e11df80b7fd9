"""Somebody with a shell on the device: drift by the operator's own commands, with and without an apply under way."""

from collections.abc import Callable
from typing import Any

import docker.errors

from tests.eventually import eventually
from tests.faults.bench import Bench
from tests.faults.fault import fault

GROUP = "operator"
NOTICED_S = 30.0
"""What changes no container's running cannot be told from what has not been noticed yet: it is waited for."""


def _disconnect(bench: Bench, container: str) -> None:
    for name in bench.host.api.inspect_container(container)["NetworkSettings"]["Networks"]:
        bench.host.api.disconnect_container_from_network(container, name, force=True)
    eventually(lambda: _is_whole(bench, container), NOTICED_S, "it is connected again")


def _is_whole(bench: Bench, container: str) -> bool:
    found = bench.host.inspect(container)
    return found is None or bool(found["NetworkSettings"]["Networks"])


def _update(bench: Bench, container: str) -> None:
    bench.host.api.update_container(container, mem_limit="64m", memswap_limit="64m")
    eventually(lambda: bench.host.inspect(container) is None, NOTICED_S, "it is made anew")


def _rename(bench: Bench, container: str) -> None:
    bench.host.api.rename(container, f"{bench.device.prefix}somebody-{bench.random.randrange(10**6)}")


DEEDS: dict[str, Callable[[Bench, str], Any]] = {
    "docker rm -f": lambda bench, container: bench.host.api.remove_container(container, force=True, v=True),
    "docker stop": lambda bench, container: bench.host.api.stop(container, timeout=1),
    "docker kill": lambda bench, container: bench.host.api.kill(container),
    "docker restart": lambda bench, container: bench.host.api.restart(container, timeout=1),
    "docker rename": _rename,
    "docker update --memory": _update,
    "docker network disconnect": _disconnect,
}


def _done(deed: str, act: Callable[[Bench, str], Any]) -> None:
    @fault(deed, GROUP, fast=deed == "docker rm -f")
    def at_rest(bench: Bench) -> None:
        _to_a_victim(bench, act)

    @fault(f"{deed} in the middle of an apply", GROUP)
    def in_an_apply(bench: Bench) -> None:
        bench.publish()
        bench.somewhere(1)
        _to_a_victim(bench, act)


def _to_a_victim(bench: Bench, act: Callable[[Bench, str], Any]) -> None:
    eventually(lambda: _comes_through(bench, act), 10, "the operator's command comes through")


def _comes_through(bench: Bench, act: Callable[[Bench, str], Any]) -> bool:
    """In the middle of an apply there may be no container at this moment, or one that is about to go."""
    bench.keep_alive()
    victims = bench.victims()
    try:
        if victims:
            act(bench, bench.random.choice(victims))
    except docker.errors.APIError:
        return False
    return bool(victims)


for _deed, _act in DEEDS.items():
    _done(_deed, _act)


@fault("docker pause, and unpause", GROUP)
def paused(bench: Bench) -> None:
    (container,) = bench.victims()
    bench.host.api.pause(container)
    try:
        eventually(lambda: _says_paused(bench), 20, "truthful: it says that it is paused")
    finally:
        bench.host.api.unpause(container)


def _says_paused(bench: Bench) -> bool:
    status = bench.status()
    return status is not None and (status["apps"]["web"]["services"]["api"].get("reason") or {}).get("code") == "paused"


@fault("everything removed by hand: containers and networks", GROUP)
def everything(bench: Bench) -> None:
    for container in bench.host.containers(bench.device.label):
        bench.host.remove(container["Id"])
    for network in bench.host.networks(bench.device.label):
        # The first of them may be back already.
        bench.tolerating_absence(lambda id_=network["Id"]: bench.host.api.remove_network(id_))
    bench.kept = ("", "")
