"""Scenario 1: a target from a stranger's client becomes running containers, and is answered."""

import json
from typing import Any

import pytest

from tests.broker import free_ports
from tests.e2e.device import Device, Stranger, app, service
from tests.eventually import eventually

APPLIED_S = 30.0


def publish(client: Stranger, device: Device, revision: int, apps: dict[str, Any], **more: Any) -> None:
    body = {
        "schema": 1,
        "scope": {"fleet": device.fleet, "device": None},
        "epoch": 1,
        "revision": revision,
        "release": f"r{revision}",
        "apps": apps,
        **more,
    }
    client.publish(device.fleet_target, json.dumps(body).encode())
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, revision=revision, timeout=APPLIED_S)


def test_a_published_service_must_run_as_its_target_says(device: Device, client: Stranger) -> None:
    (port,) = free_ports(1)
    device.start()
    publish(
        client,
        device,
        1,
        {
            "web": {
                "services": {
                    "api": {
                        **service(1),
                        "command": ["httpd", "-f", "-p", "80", "-h", "/data"],
                        "environment": {"COLOUR": "green", "COUNT": 3},
                        "hostname": "api-host",
                        "labels": {"owner": "operators"},
                        "mem_limit": "64m",
                        "ports": [f"127.0.0.1:{port}:80"],
                        "read_only": True,
                        "restart": "on-failure:3",
                        "stop_signal": "SIGINT",
                        "tmpfs": "/tmp",
                        "user": "0",
                        "volumes": ["data:/data"],
                        "working_dir": "/tmp",
                        "healthcheck": {"test": ["CMD", "test", "-d", "/data"], "interval": "1s", "retries": 2},
                    }
                },
                "volumes": {"data": {}},
            }
        },
    )

    made = device.container("web/api")
    config, host_config = made["Config"], made["HostConfig"]
    assert made["Name"].startswith(f"/{device.prefix}web-api-")
    assert config["Image"] == service(1)["image"]
    assert config["Cmd"] == ["httpd", "-f", "-p", "80", "-h", "/data"]
    assert {"COLOUR=green", "COUNT=3"} <= set(config["Env"])
    assert (config["Hostname"], config["User"], config["WorkingDir"]) == ("api-host", "0", "/tmp")
    assert config["Labels"]["owner"] == "operators"
    assert config["StopSignal"] == "SIGINT"
    assert config["Healthcheck"]["Test"] == ["CMD", "test", "-d", "/data"]
    assert (config["Healthcheck"]["Interval"], config["Healthcheck"]["Retries"]) == (10**9, 2)
    assert host_config["Init"] is True
    assert host_config["Memory"] == 64 * 1024**2
    assert host_config["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]}
    assert host_config["ReadonlyRootfs"] is True
    assert host_config["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert list(host_config["Tmpfs"]) == ["/tmp"]
    assert [(m["Type"], m["Name"], m["Destination"], m["RW"]) for m in made["Mounts"] if m["Type"] == "volume"] == [
        ("volume", f"{device.prefix}web_data", "/data", True)
    ]
    assert list(made["NetworkSettings"]["Networks"]) == [f"{device.prefix}web_default"]
    assert {"api"} <= set(made["NetworkSettings"]["Networks"][f"{device.prefix}web_default"]["Aliases"])
    assert made["State"]["Running"] is True


def test_a_service_without_a_restart_policy_must_be_kept_running(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    assert device.container("web/api")["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"


def test_every_transition_of_a_target_must_be_answered_in_order(device: Device, client: Stranger) -> None:
    device.start()
    publish(client, device, 7, {"web": app(api=service()), "log": app(sink=service())}, **{"x-note": 1})

    verdicts = device.verdicts(7)
    assert verdicts[0] == ("accepted", None)
    assert verdicts[-1] == ("applied", None)
    for name in ("web", "log"):
        assert verdicts.index(("applying", name)) < verdicts.index(("applied", name))
    assert len(verdicts) == 6
    acks = device.acks(revision=7)
    numbers = [ack["seq"] for ack in acks]
    assert numbers == sorted(set(numbers))
    assert acks[0]["warnings"][0]["pointer"] == "/x-note"
    assert {ack["digest"] for ack in acks} == {acks[0]["digest"]}
    assert {ack["release"] for ack in acks} == {"r7"}
    assert device.cloud.gaps(device.id) == ()


def test_the_retained_state_must_tell_what_the_engine_shows(device: Device, client: Stranger) -> None:
    device.start()
    publish(client, device, 3, {"web": app(api=service())})
    made = device.container("web/api")

    def told() -> dict[str, Any]:
        state = client.retained(device.up("state"))
        return state if state.get("converged") else {}

    state = eventually(told, 10, "the retained state has converged")
    assert state["have"]["fleet"]["revision"] == 3
    assert state["effective_digest"].startswith("sha256:")
    web = state["apps"]["web"]
    assert (web["phase"], web["release"], web["revision"]) == ("settled", "r3", [1, 3])
    api = web["services"]["api"]
    assert f"/{api['container']}" == made["Name"]
    assert api["image_id"] == made["Image"]
    assert (api["status"], api["restarts"], api["reason"]) == ("running", 0, None)
    session = client.retained(device.up("session"))
    assert (session["online"], session["have"]["fleet"]) == (True, None)


def test_a_changed_service_must_be_replaced_and_its_neighbour_left_alone(device: Device, client: Stranger) -> None:
    device.start()
    publish(client, device, 1, {"web": app(api=service(1), db=service(1))})
    before = device.identities()

    publish(client, device, 2, {"web": app(api=service(2, environment={"A": "1"}), db=service(1))})

    after = device.identities()
    assert after.keys() == before.keys()
    assert after["web/db"] == before["web/db"]
    assert after["web/api"][0] != before["web/api"][0]
    api = device.container("web/api")
    assert api["Config"]["Image"] == service(2)["image"]
    assert "A=1" in api["Config"]["Env"]
    assert api["State"]["Running"]


def test_a_new_release_name_alone_must_change_no_container(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service())}, release="one")
    before = device.identities()
    device.publish({"web": app(api=service())}, release="two")
    assert device.identities() == before


def test_a_removed_app_must_go_with_its_network_and_without_its_volumes(device: Device, client: Stranger) -> None:
    device.start()
    web = {**app(api=service(volumes=["data:/data"])), "volumes": {"data": {}}}
    publish(client, device, 1, {"web": web, "log": app(sink=service())})
    before = device.identities()

    publish(client, device, 2, {"log": app(sink=service())})

    assert device.identities() == {"log/sink": before["log/sink"]}
    assert [network["Name"] for network in device.host.networks(device.label)] == [f"{device.prefix}log_default"]
    assert device.host.volumes(device.label) == [f"{device.prefix}web_data"]
    assert ("applied", "web") in device.verdicts(2)
    eventually(lambda: [*client.retained(device.up("state"))["apps"]] == ["log"], 5, "the state no longer tells of it")


def test_an_empty_target_that_says_so_must_remove_everything_but_volumes(device: Device, client: Stranger) -> None:
    device.start()
    publish(client, device, 1, {"web": {**app(api=service(volumes=["data:/data"])), "volumes": {"data": {}}}})
    publish(client, device, 2, {}, allow_empty=True)
    assert device.identities() == {}
    assert device.host.networks(device.label) == []
    assert device.host.volumes(device.label) == [f"{device.prefix}web_data"]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_either_version_of_mqtt_must_do(device: Device, version: str) -> None:
    device.start(MQTT_VERSION=version)
    device.publish({"web": app(api=service())})
    assert device.container("web/api")["State"]["Running"]
    assert device.stop() == 0


def test_a_devices_own_target_must_lie_over_its_fleets(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service(1), db=service(1)), "log": app(sink=service())})
    before = device.identities()

    changed = {"x-extends": "fleet", "services": {"api": {"environment": {"OWN": "yes"}}}}
    device.cloud.publish({"web": changed, "log": None}, device=device.id)
    device.converge()

    after = device.identities()
    assert after.keys() == {"web/api", "web/db"}
    assert after["web/db"] == before["web/db"]
    assert "OWN=yes" in device.container("web/api")["Config"]["Env"]
