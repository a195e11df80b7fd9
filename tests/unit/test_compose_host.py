"""The keys that say what of the host a container may use and see: each spelling, each wrong value, each refusal."""

import pytest

from device_agent.model.target import Json
from tests.compose_app import SERVICE, app, canonical, dump, refused

MAC = "02:42:ac:11:00:02"
PROFILE = '{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["a=b:c"]}'
COMPACT = 'seccomp={"architectures":["a=b:c"],"defaultAction":"SCMP_ACT_ALLOW"}'
ALL_GPUS = [{"capabilities": ["gpu"], "count": -1}]

SAME: list[tuple[str, Json, list[Json]]] = [
    ("platform", "linux/arm64", ["linux/arm64", "Linux/ARM64"]),
    ("platform", "linux/arm/v7", ["linux/arm/v7"]),
    ("platform", "linux", ["linux"]),
    ("group_add", ["20", "video"], [["video", 20], ["20", "video", "video"]]),
    ("group_add", None, [[]]),
    ("domainname", "example.com", ["example.com"]),
    ("mac_address", MAC, [MAC, MAC.upper(), "02-42-AC-11-00-02", "0242.ac11.0002"]),
    ("networks", {"front": {"mac_address": MAC}}, [{"front": {"mac_address": MAC.upper()}}]),
    ("annotations", {"a": "1", "b": ""}, [{"a": 1, "b": None}, ["a=1", "b"]]),
    ("tty", True, [True, "true"]),
    ("tty", None, [False]),
    ("stdin_open", True, [True, "yes"]),
    ("expose", ["80/tcp", "81/tcp", "82/tcp"], [[80, "81-82"], ["80/tcp", "81/TCP", 82.0], ["80-82", "81"]]),
    ("expose", ["53/tcp", "53/udp", "443/tcp"], [["443", "53/udp", "53"]]),
    ("dns_opt", ["ndots:2", "use-vc"], [["ndots:2", "use-vc"]]),
    ("dns_search", ["a.example"], ["a.example", ["a.example"]]),
    ("dns_search", ["b.example", "a.example"], [["b.example", "a.example"]]),
    ("runtime", "runc", ["runc"]),
    ("device_cgroup_rules", ["c 1:3 mr", "a 7:* rmw"], [["c 1:3 mr", "a 7:* rmw"]]),
    ("userns_mode", "host", ["host"]),
    ("pid", "host", ["host"]),
    ("pid", None, [None]),
    *(("ipc", mode, [mode]) for mode in ("host", "none", "private", "shareable")),
    ("uts", "host", ["host"]),
    *(("cgroup", mode, [mode]) for mode in ("host", "private")),
    ("cgroup_parent", "m-executor-abcd", ["m-executor-abcd"]),
    ("storage_opt", {"size": "1G"}, [{"size": "1G"}]),
    (
        "security_opt",
        ["no-new-privileges=true"],
        [[spelled] for spelled in ("no-new-privileges", "no-new-privileges:true", "no-new-privileges=1")],
    ),
    ("security_opt", ["no-new-privileges=false"], [["no-new-privileges:F"]]),
    ("security_opt", ["label=user:USER", "label=role:ROLE"], [["label:user:USER", "label=role:ROLE"]]),
    ("security_opt", ["seccomp=unconfined"], [["seccomp:unconfined"], ["seccomp=unconfined", "seccomp:unconfined"]]),
    ("security_opt", ["apparmor=p", "systempaths=unconfined"], [["apparmor:p", "systempaths=unconfined"]]),
    ("security_opt", [COMPACT], [[f"seccomp={PROFILE}"], [f"seccomp:{PROFILE}"]]),
]


@pytest.mark.parametrize(
    ("key", "expected", "value"), [(key, expected, value) for key, expected, values in SAME for value in values]
)
def test_spellings(key: str, expected: Json, value: Json) -> None:
    assert canonical(key, value) == expected


def reserved(*devices: Json) -> Json:
    return {"deploy": {"resources": {"reservations": {"devices": list(devices)}}}}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"gpus": "all"}, ALL_GPUS),
        ({"gpus": [{}]}, ALL_GPUS),
        ({"gpus": [{"count": "all", "capabilities": ["gpu"]}]}, ALL_GPUS),
        ({"gpus": [{"count": -1}]}, ALL_GPUS),
        (
            {"gpus": [{"driver": "nvidia", "count": "2", "capabilities": ["utility"], "options": ["a=1"]}]},
            [{"capabilities": ["utility", "gpu"], "driver": "nvidia", "count": 2, "options": {"a": "1"}}],
        ),
        ({"gpus": [{"device_ids": ["0", "3"]}]}, [{"capabilities": ["gpu"], "device_ids": ["0", "3"]}]),
        (reserved({"capabilities": ["gpu"]}), ALL_GPUS),
        (reserved({"capabilities": ["tpu"], "count": 1}), [{"capabilities": ["tpu"], "count": 1}]),
        ({"gpus": "all", **reserved({"capabilities": ["tpu"]})}, [*ALL_GPUS, {"capabilities": ["tpu"], "count": -1}]),
    ],
)
def test_devices_that_a_driver_chooses(keys: Json, expected: Json) -> None:
    assert dump(app({"image": "api", **keys}))["services"]["api"]["device_requests"] == expected


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        *(("platform", value, "") for value in ("", "linux/arm/v7/x", "linux arm", 5, "/arm")),
        *(("group_add", value, where) for value, where in (("video", ""), ([True, 1.5, -1, ""], "/0 /1 /2 /3"))),
        *(("domainname", value, "") for value in (5, "")),
        *(
            ("mac_address", value, "")
            for value in (5, "", "02:42:ac:11:00", "02:42-ac:11:00:02", "0242ac110002", MAC + ":")
        ),
        ("networks", {"front": {"mac_address": "x"}}, "/front/mac_address"),
        *(("annotations", value, where) for value, where in ((5, ""), ({"a": []}, "/a"))),
        *(("tty", value, "") for value in (1, None)),
        *(("stdin_open", value, "") for value in (0, "maybe")),
        *(
            ("expose", value, where)
            for value, where in (("80", ""), ([0, "x", "80:80", "80/icmp", 65536], "/0 /1 /2 /3 /4"))
        ),
        *(("expose", value, where) for value, where in ((["80/", "9-8", True], "/0 /1 /2"),)),
        *(("dns_opt", value, where) for value, where in (("ndots:2", ""), (["a", "a"], "/1"), ([5], "/0"))),
        *(("dns_search", value, where) for value, where in ((5, ""), (["a", 5], "/1"), ("", ""))),
        *(("runtime", value, "") for value in (5, "")),
        ("device_cgroup_rules", ["c 1:3", "x 1:3 r", "c 1:3 rwmr", "c a:3 r", 5], "/0 /1 /2 /3 /4"),
        ("device_cgroup_rules", "c 1:3 r", ""),
        *((key, "elsewhere", "") for key in ("userns_mode", "pid", "ipc", "uts", "cgroup")),
        *((key, 5, "") for key in ("userns_mode", "pid", "ipc", "uts", "cgroup", "cgroup_parent", "storage_opt")),
        ("storage_opt", {"size": []}, "/size"),
        ("security_opt", "label=disable", ""),
        (
            "security_opt",
            ["x", "x=y", "no-new-privileges=maybe", "systempaths=all", "label:", 5],
            "/0 /1 /2 /3 /4 /5",
        ),
        *(("gpus", value, where) for value, where in (("some", ""), ({}, ""), (5, ""), ([5], "/0"))),
        ("gpus", [{"count": -2}, {"count": "many"}, {"device_ids": "0"}], "/0/count /1/count /2/device_ids"),
        ("gpus", [{"count": 1, "device_ids": ["0"]}], "/0/count"),
        ("deploy", reserved({"count": 1})["deploy"], "/resources/reservations/devices/0/capabilities"),
    ],
)
def test_wrong_values(key: str, value: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", key: value}))
    assert code == "invalid"
    assert set(problems) == {f"{SERVICE}/{key}{place}" for place in (where.split(" ") if where else [""])}


@pytest.mark.parametrize(
    ("key", "value", "where", "message"),
    [
        *((key, "container:x", "", "make it a service of the app") for key in ("pid", "ipc", "network_mode")),
        ("security_opt", ["seccomp:./profile.json"], "/0", "write the profile itself"),
        ("security_opt", ["seccomp=[]"], "/0", "write the profile itself"),
        ("gpus", [{"countt": 1}], "/0/countt", "not a key"),
        ("external_links", ["db"], "", "`external` network"),
    ],
)
def test_what_is_not_supported(key: str, value: Json, where: str, message: str) -> None:
    code, problems = refused(app({"image": "api", key: value}))
    assert code == "unsupported"
    assert list(problems) == [f"{SERVICE}/{key}{where}"]
    assert message in problems[f"{SERVICE}/{key}{where}"]


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"network_mode": "service:db", "expose": [80]}, "expose"),
        ({"network_mode": "service:db", "mac_address": MAC}, "mac_address"),
        ({"network_mode": "host", "mac_address": MAC}, "mac_address"),
        ({"network_mode": "none", "mac_address": MAC}, "mac_address"),
        ({"uts": "host", "hostname": "a"}, "hostname"),
        ({"uts": "host", "domainname": "a"}, "domainname"),
        (
            {"mac_address": MAC, "networks": {"back": {"mac_address": "02:42:ac:11:00:03"}, "front": None}},
            "mac_address",
        ),
    ],
)
def test_keys_that_exclude_each_other(keys: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", **keys}))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{where}"])


@pytest.mark.parametrize(
    "keys",
    [
        {"mac_address": MAC, "networks": {"back": {"mac_address": MAC}, "front": None}},
        {"mac_address": MAC, "networks": {"back": {"mac_address": "02:42:ac:11:00:03"}, "front": {"priority": 1}}},
        {"mac_address": MAC, "network_mode": "bridge"},
    ],
)
def test_keys_that_only_seem_to_exclude_each_other(keys: Json) -> None:
    dump(app({"image": "api", **keys}))


def test_few_bytes_cannot_ask_for_very_many_ports() -> None:
    _, problems = refused(app({"image": "api", "expose": ["1-15000", "1-15000/udp"]}))
    assert problems == {f"{SERVICE}/expose/1": "too many ports for one target"}
