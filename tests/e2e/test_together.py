"""Services that have something of each other, and several containers of one, on a real engine."""

import re
import subprocess
from typing import Any

from tests.e2e.device import Device, app, service
from tests.eventually import eventually

SHARES = {"ipc": "shareable"}


def inside(container: dict[str, Any], *command: str) -> str:
    run = ["docker", "exec", container["Id"], *command]
    return subprocess.run(run, capture_output=True, text=True, timeout=30, check=False).stdout


def found(container: dict[str, Any], name: str) -> set[str]:
    """The addresses that a name has for a container."""
    return set(re.findall(r"Address: (\S+)", inside(container, "nslookup", "-type=a", name).partition("Name:")[2]))


def addresses(device: Device, *keys: str) -> set[str]:
    networks = [device.container(key)["NetworkSettings"]["Networks"] for key in keys]
    return {endpoint["IPAddress"] for each in networks for endpoint in each.values()}


def test_scaling_must_touch_none_of_those_that_stay_and_all_must_answer_to_one_name(device: Device) -> None:
    device.start()
    device.publish({"web": app(db=service(), api=service(links=["db:store"]))})
    before = device.identities()

    device.publish({"web": app(db=service(scale=3), api=service(links=["db:store"]))})

    assert device.identities().keys() == {"web/api", "web/db", "web/db#2", "web/db#3"}
    assert before.items() <= device.identities().items()
    three = addresses(device, "web/db", "web/db#2", "web/db#3")
    assert len(three) == 3
    assert found(device.container("web/api"), "db") == found(device.container("web/api"), "store") == three
    assert {"db", "db#2", "db#3"} <= device.status()["apps"]["web"]["services"].keys()

    # One that somebody removes comes back alone.
    all_three = device.identities()
    subprocess.run(["docker", "rm", "-f", device.container("web/db#2")["Id"]], check=True, capture_output=True)
    eventually(
        lambda: device.identities().get("web/db#2", all_three["web/db#2"]) != all_three["web/db#2"], 20, "it is back"
    )
    assert {key: identity for key, identity in device.identities().items() if key != "web/db#2"} == {
        key: identity for key, identity in all_three.items() if key != "web/db#2"
    }

    device.converge()
    device.publish({"web": app(db=service(scale=1), api=service(links=["db:store"]))})
    assert device.identities() == before


def test_one_that_shares_processes_must_follow_the_other_container(device: Device) -> None:
    def apps(version: int) -> dict[str, Any]:
        keys = {"pid": "service:db", "ipc": "service:db", "volumes_from": ["db:ro"]}
        made = app(db=service(version, volumes=["data:/data"], **SHARES), api=service(**keys))
        return {"web": {**made, "volumes": {"data": {}}}}

    device.start()
    device.publish(apps(1))
    old = device.container("web/db")["Id"]
    assert device.container("web/api")["HostConfig"]["PidMode"] == f"container:{old}"

    device.publish(apps(2))

    db, api = device.container("web/db"), device.container("web/api")
    assert db["Id"] != old
    assert api["HostConfig"]["PidMode"] == api["HostConfig"]["IpcMode"] == f"container:{db['Id']}"
    mounts = [(mount["Name"], mount["Destination"], mount["RW"]) for mount in api["Mounts"]]
    assert mounts == [(f"{device.prefix}web_data", "/data", False)]

    # And when the other is only started again.
    begun = api["State"]["StartedAt"]
    subprocess.run(["docker", "restart", "-t", "1", db["Id"]], check=True, capture_output=True)
    eventually(
        lambda: (now := device.runs("web/api")) and now["State"]["StartedAt"] > begun and now["Id"] == api["Id"],
        30,
        "it was started again",
    )
    device.converge()


def test_who_depends_with_restart_must_be_restarted_after_a_replacement_and_after_nothing_else(device: Device) -> None:
    def apps(version: int) -> dict[str, Any]:
        need = {"db": {"condition": "service_started", "restart": True}}
        return {"web": app(db=service(version), api=service(depends_on=need), other=service(depends_on=["db"]))}

    device.start()
    device.publish(apps(1))
    before, begun = device.identities(), device.container("web/api")["State"]["StartedAt"]
    subprocess.run(["docker", "restart", "-t", "1", before["web/db"][0]], check=True, capture_output=True)
    device.converge()
    assert device.container("web/api")["State"]["StartedAt"] == begun

    device.publish(apps(2))

    db, api, other = (device.container(f"web/{name}") for name in ("db", "api", "other"))
    assert db["Id"] != before["web/db"][0]
    assert (api["Id"], other["Id"]) == (before["web/api"][0], before["web/other"][0])
    assert api["State"]["StartedAt"] > db["State"]["StartedAt"] > other["State"]["StartedAt"]
    assert all(told["service"] == "db" for told in device.events("drift"))

    # And when an operator says so.
    assert device.cli("restart", "web/db").returncode == 0
    last = api["State"]["StartedAt"]
    eventually(lambda: (now := device.runs("web/api")) and now["State"]["StartedAt"] > last, 20, "it runs again")
    again = device.container("web/api")
    assert (again["Id"], device.container("web/db")["Id"]) == (api["Id"], db["Id"])
    assert again["State"]["StartedAt"] > device.container("web/db")["State"]["StartedAt"] > last
