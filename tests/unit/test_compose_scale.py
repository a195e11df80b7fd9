"""`scale` and `deploy.replicas`: what more than one container of a service cannot have in common."""

import pytest

from device_agent.model.target import Json
from tests.compose_app import SERVICE, app, dump, refused


def scaled(scale: int, **keys: Json) -> Json:
    return app({"image": "api", "scale": scale, **keys})


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"ports": ["8080:80"]}, "ports"),
        ({"ports": ["8080-8081:80"]}, "ports"),
        ({"ports": ["8080-8082:80-82"]}, "ports"),
        ({"networks": {"front": {"ipv4_address": "10.0.0.2"}}}, "networks/front/ipv4_address"),
        ({"networks": {"front": {"ipv6_address": "fd00::2"}}}, "networks/front/ipv6_address"),
        ({"networks": {"front": {"mac_address": "02:42:ac:11:00:02"}}}, "networks/front/mac_address"),
        ({"mac_address": "02:42:ac:11:00:02"}, "mac_address"),
    ],
)
def test_what_only_one_container_can_have(keys: Json, where: str) -> None:
    code, problems = refused(scaled(3, **keys))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{where}"])
    assert "3 containers cannot share" in problems[f"{SERVICE}/{where}"]
    dump(scaled(1, **keys))
    dump(scaled(0, **keys))


@pytest.mark.parametrize("port", ["80", "8080-8082:80", "127.0.0.1::80", "0:80"])
def test_ports_that_each_container_can_have_one_of(port: str) -> None:
    dump(scaled(3, ports=[port]))


def test_a_range_of_ports_has_room_for_the_old_and_the_new_of_start_first() -> None:
    keys = {"x-update": {"strategy": "start-first"}}
    dump(scaled(2, ports=["8080-8083:80"], **keys))
    _, problems = refused(scaled(2, ports=["8080-8082:80"], **keys))
    assert "publish a range of 4 ports" in problems[f"{SERVICE}/x-update"]
    dump(scaled(1, ports=["8080-8081:80"], **keys))
    _, problems = refused(scaled(1, ports=["8080:80"], **keys))
    assert "publish a range of 2 ports" in problems[f"{SERVICE}/x-update"]


def test_few_bytes_cannot_ask_for_very_many_containers() -> None:
    document = scaled(4000)
    dump(document)
    document["services"]["db"]["scale"] = 100
    _, problems = refused(document)
    assert problems == {"/apps/web/services/db/scale": "too many containers for one target"}


def test_nobody_shares_the_network_of_a_service_without_containers() -> None:
    document = app({"image": "api", "network_mode": "service:db"})
    document["services"]["db"]["scale"] = 0
    code, problems = refused(document)
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/network_mode"])
