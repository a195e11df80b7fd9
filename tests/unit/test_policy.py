"""What a target may ask for is the device owner's to say, and strict where nothing is said."""

import pytest

from device_agent.core.policy import Policy, offences
from device_agent.model.validate import validate_apps
from tests.builders import app, service

API = "/apps/web/services/api"


def found(policy: Policy, sections=None, **keys) -> list[str]:
    parsed = validate_apps({"web": app(sections, api=service(**keys))})
    return [problem.pointer for problem in offences(policy, parsed.apps)]


@pytest.mark.parametrize(
    ("keys", "pointer", "allowed"),
    [
        ({"privileged": True}, "privileged", Policy(privileged=True)),
        ({"network_mode": "host"}, "network_mode", Policy(host_network=True)),
        ({"cap_add": ["NET_ADMIN"]}, "cap_add", Policy(cap_add=("NET_ADMIN",))),
        ({"cap_add": ["CAP_NET_ADMIN"]}, "cap_add", Policy(cap_add=("NET_ADMIN",))),
        ({"cap_add": ["ALL"]}, "cap_add", Policy(cap_add=("*",))),
        ({"devices": ["/dev/ttyUSB0"]}, "devices", Policy(devices=("/dev/ttyUSB0",))),
        ({"volumes": ["/srv/data:/d"]}, "volumes/0", Policy(binds=("/srv",))),
        ({"volumes": ["/srv:/d"]}, "volumes/0", Policy(binds=("/srv",))),
        ({"volumes": ["/srv:/d"]}, "volumes/0", Policy(binds=("*",))),
        ({"volumes": ["/run/docker.sock:/s"]}, "volumes/0", Policy(engine_socket=True)),
        ({"volumes": ["/var/run/docker.sock:/s:ro"]}, "volumes/0", Policy(engine_socket=True)),
    ],
)
def test_what_is_refused_by_default_and_what_allows_it(keys, pointer, allowed):
    assert found(Policy(), **keys) == [f"{API}/{pointer}"]
    assert found(allowed, **keys) == []


@pytest.mark.parametrize(
    ("keys", "policy"),
    [
        ({"volumes": ["/srv2:/d"]}, Policy(binds=("/srv",))),
        ({"volumes": ["/srv/../etc:/d"]}, Policy(binds=("/srv",))),
        ({"volumes": ["/:/d"]}, Policy(binds=("/srv",))),
        ({"cap_add": ["SYS_ADMIN"]}, Policy(cap_add=("NET_ADMIN",))),
        ({"devices": ["/dev/sda"]}, Policy(devices=("/dev/ttyUSB0",))),
    ],
)
def test_what_is_allowed_allows_nothing_beside_it(keys, policy):
    assert len(set(found(policy, **keys))) == 1


@pytest.mark.parametrize("source", ["/run/docker.sock", "/var/run", "/run", "/", "/var/run/../run/docker.sock"])
def test_the_engine_socket_is_not_allowed_by_a_folder_around_it(source):
    assert found(Policy(binds=("*",)), volumes=[f"{source}:/s"]) == [f"{API}/volumes/0"]
    assert found(Policy(binds=("*",), engine_socket=True), volumes=[f"{source}:/s"]) == []


def test_the_socket_alone_is_not_allowed_by_its_folder_being_asked_for():
    assert found(Policy(engine_socket=True), volumes=["/var/run:/s"]) == [f"{API}/volumes/0"]


def test_a_bind_mount_hidden_in_the_options_of_a_volume():
    sections = {"volumes": {"data": {"driver_opts": {"type": "none", "o": "bind", "device": "/etc"}}}}
    assert found(Policy(), sections) == ["/apps/web/volumes/data/driver_opts"]
    assert found(Policy(binds=("/etc",)), sections) == []


def test_what_a_container_may_always_have():
    sections = {"volumes": {"data": {"driver_opts": {"type": "tmpfs", "device": "tmpfs"}}}}
    keys = {"volumes": ["data:/d", "/anonymous"], "tmpfs": ["/t"], "cap_drop": ["ALL"], "read_only": True}
    assert found(Policy(), sections, **keys) == []


def test_registries_are_open_unless_listed():
    assert found(Policy(), image="anywhere.example/x:1") == []
    mine = Policy(registries=("registry.example",))
    assert found(mine, image="registry.example/x:1") == []
    assert found(mine, image="nginx") == [f"{API}/image"]
    assert found(mine, image="registry.example.evil/x") == [f"{API}/image"]


def test_tags_are_open_unless_digests_are_asked_for():
    assert found(Policy(digests_only=True), image="nginx:1") == [f"{API}/image"]
    assert found(Policy(digests_only=True), image="nginx@sha256:" + "a" * 64) == []


def test_every_field_is_listed():
    keys = {"privileged": True, "cap_add": ["ALL"], "volumes": ["/a:/a", "/b:/b"]}
    assert found(Policy(), **keys) == [
        f"{API}/{field}" for field in ("privileged", "cap_add", "volumes/0", "volumes/1")
    ]
