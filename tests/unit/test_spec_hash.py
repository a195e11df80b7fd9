"""The spec hash decides what is replaced: it never changes by an update of the agent, nor by what does not count.

A golden hash that fails means that every container of every device would be replaced on the day of that update.
"""

import pytest

from device_agent.core.wanted import Naming
from tests.builders import app, service, wanted

ID = "sha256:" + "0" * 64

MINIMAL = {"image": "api:1"}
FULL = {
    "image": "registry.example/api@sha256:" + "a" * 64,
    "command": ["serve", "--fast"],
    "environment": {"PORT": "80", "EMPTY": ""},
    "ports": ["8080:80", "127.0.0.1:53:53/udp"],
    "networks": {"default": {"aliases": ["web"]}, "back": None},
    "volumes": ["data:/d:ro", "/etc/hosts:/h", {"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m"}}],
    "healthcheck": {"test": "curl localhost", "interval": "5s", "retries": 3},
    "restart": "on-failure:3",
    "stop_grace_period": "1m30s",
    "mem_limit": "64m",
    "cpus": 0.5,
    "labels": {"a": "b"},
    "cap_add": ["NET_ADMIN"],
    "ulimits": {"nofile": 1024},
    "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
}
SECTIONS = {"networks": {"default": {}, "back": {"internal": True}}, "volumes": {"data": {}}}


def spec(keys, *shared, **more):
    of = wanted(app(SECTIONS, api=keys), **more)
    return of.services["api"].spec(ID, shared)


@pytest.mark.parametrize(
    ("keys", "golden"),
    [
        (MINIMAL, "9b33e780703b020db3aa7e2db893f1229a0656eb54a2b133a7ab6ccd80b0aebf"),
        (FULL, "76b620dc42968b87c9cea7f8a058225dcd8394d7d8854797b22b6e6aaefbe296"),
    ],
    ids=["minimal", "full"],
)
def test_golden_hashes(keys, golden):
    assert spec(keys) == golden


def test_golden_hashes_of_networks_and_volumes():
    of = wanted(app(SECTIONS, api=FULL))
    assert of.networks["default"].spec == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert of.networks["back"].spec == "c2c801ef2e6bae9761370f9fab09febf9e0e3ec44da3dcbf31b5f229b64420c0"
    assert of.volumes["data"].spec == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    "spelled",
    [
        {"environment": ["PORT=80", "EMPTY="]},
        {"environment": {"EMPTY": "", "PORT": 80}},
        {
            "ports": [
                {"target": 80, "published": "8080"},
                {"target": 53, "published": 53, "protocol": "udp", "host_ip": "127.0.0.1"},
            ]
        },
        {"stop_grace_period": "90s"},
        {"mem_limit": 64 * 1024 * 1024},
        {"cpus": "0.50"},
        {"labels": ["a=b"]},
        {"healthcheck": {"retries": 3, "interval": "5000ms", "test": ["CMD-SHELL", "curl localhost"]}},
        {"ulimits": {"nofile": {"soft": 1024, "hard": 1024}}},
        {"privileged": False, "read_only": False},
        {"mem_limit": 0, "deploy": {"resources": {"limits": {"memory": "64m"}}}},
        {"tty": False, "oom_score_adj": 0, "pids_limit": 0, "security_opt": [], "gpus": [], "scale": 1},
        {"depends_on": []},
    ],
    ids=",".join,
)
def test_another_spelling_is_the_same(spelled):
    assert spec(FULL | spelled) == spec(FULL)


@pytest.mark.parametrize(
    "changed",
    [
        {"environment": {"PORT": "81", "EMPTY": ""}},
        {"environment": {"PORT": "80"}},
        {"command": ["serve"]},
        {"ports": ["8080:80"]},
        {"networks": {"default": {"aliases": ["web2"]}, "back": None}},
        {"networks": {"default": {"aliases": ["web"]}}},
        {"volumes": ["data:/d"]},
        {"network_mode": "none", "networks": {}},
        {"restart": "no"},
        {"mac_address": "02:42:ac:11:00:02"},
        {"networks": {"default": {"aliases": ["web"], "mac_address": "02:42:ac:11:00:02"}, "back": None}},
        {"pid": "host"},
        {"mem_swappiness": 0},
        {"healthcheck": {"disable": True}},
    ],
    ids=lambda keys: next(iter(keys)),
)
def test_what_a_container_depends_on_changes_it(changed):
    keys = FULL | changed
    if "network_mode" in changed:
        del keys["networks"]
    assert spec(keys) != spec(FULL)


def test_release_revision_and_order_change_nothing():
    assert spec(dict(reversed(FULL.items())), release="b", revision=9, epoch=3) == spec(FULL)


def test_a_dependency_changes_nothing():
    of = wanted(app(SECTIONS, api=FULL | {"depends_on": ["db"]}, db=service("db:1")))
    assert of.services["api"].spec(ID) == spec(FULL)


def test_the_image_counts_by_its_id_and_not_by_its_name():
    of = wanted(app(api=service("api:1"))).services["api"]
    same = wanted(app(api=service("other:9"))).services["api"]
    assert of.spec(ID) == same.spec(ID)
    assert of.spec(ID) != of.spec("sha256:" + "1" * 64)


def test_the_platform_counts_by_the_image():
    assert spec(FULL | {"platform": "linux/arm64"}) == spec(FULL)


def test_a_name_changes_nothing():
    assert spec(FULL | {"container_name": "one"}) == spec(FULL)


def test_the_container_whose_network_is_shared_counts():
    of = wanted(app(vpn=service(), api=service(network_mode="service:vpn"))).services["api"]
    assert of.spec(ID, "one") != of.spec(ID, "two")


def test_the_names_of_networks_and_volumes_on_the_engine_count():
    plain = wanted(app(SECTIONS, api=FULL)).services["api"].spec(ID)
    prefixed = wanted(app(SECTIONS, api=FULL), naming=Naming("plant7/d1", "p-")).services["api"].spec(ID)
    assert plain != prefixed
