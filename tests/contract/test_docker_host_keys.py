"""The real engine alone: the keys that say what of the host a container may use, as `docker inspect` shows them."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from device_agent.model.compose import DeviceLimit, DeviceRequest
from device_agent.model.errors import EngineError
from device_agent.model.steps import Connect, Endpoint
from tests.contract.engine_bench import DockerBench

pytestmark = pytest.mark.docker

MAC = "02:42:ac:11:00:77"
MIB = 1 << 20


@pytest.fixture
def bench() -> Iterator[DockerBench]:
    bench = DockerBench()
    try:
        yield bench
    finally:
        bench.close()


def part(inspected: dict[str, Any], path: str) -> Any:
    for word in path.split("."):
        inspected = inspected[word]
    return inspected


KEYS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"group_add": ("20", "4")}, {"HostConfig.GroupAdd": ["20", "4"]}),
    ({"domainname": "example.com"}, {"Config.Domainname": "example.com"}),
    ({"tty": True, "stdin_open": True}, {"Config.Tty": True, "Config.OpenStdin": True}),
    ({}, {"Config.Tty": False, "Config.OpenStdin": False}),
    ({"expose": ("80/tcp", "53/udp")}, {"Config.ExposedPorts": {"80/tcp": {}, "53/udp": {}}}),
    ({"expose": ("80/tcp",), "network_mode": "host"}, {"Config.ExposedPorts": {"80/tcp": {}}}),
    (
        {"dns_opt": ("ndots:2", "use-vc"), "dns_search": ("b.example", "a.example")},
        {"HostConfig.DnsOptions": ["ndots:2", "use-vc"], "HostConfig.DnsSearch": ["b.example", "a.example"]},
    ),
    ({"network_mode": "bridge", "mac_address": MAC}, {"NetworkSettings.Networks.bridge.MacAddress": MAC}),
    ({"runtime": "runc"}, {"HostConfig.Runtime": "runc"}),
    (
        {"security_opt": ("no-new-privileges=true", "seccomp=unconfined")},
        {"HostConfig.SecurityOpt": ["no-new-privileges=true", "seccomp=unconfined"]},
    ),
    (
        {"security_opt": ('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',)},
        {"HostConfig.SecurityOpt": ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']},
    ),
    (
        {"security_opt": ("systempaths=unconfined",)},
        {"HostConfig.SecurityOpt": None, "HostConfig.MaskedPaths": [], "HostConfig.ReadonlyPaths": []},
    ),
    ({"userns_mode": "host"}, {"HostConfig.UsernsMode": "host"}),
    ({"pid": "host"}, {"HostConfig.PidMode": "host"}),
    *(({"ipc": mode}, {"HostConfig.IpcMode": mode}) for mode in ("host", "none", "private", "shareable")),
    ({"uts": "host"}, {"HostConfig.UTSMode": "host"}),
    *(({"cgroup": mode}, {"HostConfig.CgroupnsMode": mode}) for mode in ("host", "private")),
    ({"cgroup_parent": "/contract"}, {"HostConfig.CgroupParent": "/contract"}),
    ({"device_cgroup_rules": ("c 1:3 mr",)}, {"HostConfig.DeviceCgroupRules": ["c 1:3 mr"]}),
    ({"cpu_shares": 512}, {"HostConfig.CpuShares": 512}),
    (
        {"cpu_quota": 50_000, "cpu_period": 80_000},
        {"HostConfig.CpuQuota": 50_000, "HostConfig.CpuPeriod": 80_000},
    ),
    ({"cpu_quota": -1}, {"HostConfig.CpuQuota": -1}),
    ({"cpuset": "0"}, {"HostConfig.CpusetCpus": "0"}),
    (
        {"mem_limit": 64 * MIB, "mem_reservation": 32 * MIB, "memswap_limit": 64 * MIB},
        {
            "HostConfig.Memory": 64 * MIB,
            "HostConfig.MemoryReservation": 32 * MIB,
            "HostConfig.MemorySwap": 64 * MIB,
        },
    ),
    ({"mem_limit": 64 * MIB, "memswap_limit": -1}, {"HostConfig.MemorySwap": -1}),
    ({"mem_swappiness": 0}, {"HostConfig.MemorySwappiness": 0}),
    ({"mem_limit": 64 * MIB, "oom_kill_disable": True}, {"HostConfig.OomKillDisable": True}),
    ({"oom_score_adj": 500}, {"HostConfig.OomScoreAdj": 500}),
    ({"pids_limit": 100}, {"HostConfig.PidsLimit": 100}),
]


@pytest.mark.parametrize(("keys", "shown"), KEYS, ids=["+".join(keys) or "defaults" for keys, _ in KEYS])
def test_every_key_is_what_inspect_shows(bench: DockerBench, keys: dict[str, Any], shown: dict[str, Any]) -> None:
    made = bench.started(bench.step(**keys))

    inspected = bench.docker.inspect_container(made.id)

    assert {path: part(inspected, path) for path in shown} == shown


def test_no_limit_of_processes(bench: DockerBench) -> None:
    made = bench.started(bench.step(pids_limit=-1))

    assert bench.docker.inspect_container(made.id)["HostConfig"]["PidsLimit"] in (None, 0, -1)


def test_the_weight_of_input_and_output_where_the_kernel_has_it(bench: DockerBench) -> None:
    with capture_logs() as logs:
        made = bench.started(bench.step(blkio_weight=300))

    weight = bench.docker.inspect_container(made.id)["HostConfig"]["BlkioWeight"]
    warned = any("weight" in entry.get("message", "").lower() for entry in logs)
    assert weight == (0 if warned else 300)


@pytest.mark.parametrize(
    ("key", "shown", "what"),
    [
        ("device_read_bps", "BlkioDeviceReadBps", "Rate"),
        ("device_read_iops", "BlkioDeviceReadIOps", "Rate"),
        ("device_write_bps", "BlkioDeviceWriteBps", "Rate"),
        ("device_write_iops", "BlkioDeviceWriteIOps", "Rate"),
        ("weight_device", "BlkioWeightDevice", "Weight"),
    ],
)
def test_the_input_and_output_of_a_device_where_the_kernel_limits_it(
    bench: DockerBench, key: str, shown: str, what: str
) -> None:
    with capture_logs() as logs:
        made = bench.created(bench.step(blkio_devices={key: (DeviceLimit(path="/dev/loop0", limit=300),)}))

    told = bench.docker.inspect_container(made.id)["HostConfig"][shown]
    warned = any("kernel" in entry.get("message", "").lower() for entry in logs)
    assert told == ([] if warned else [{"Path": "/dev/loop0", what: 300}])


def test_devices_that_a_driver_chooses(bench: DockerBench) -> None:
    some = DeviceRequest(capabilities=("gpu", "utility"), driver="nvidia", count=2, options={"a": "b"})
    these = DeviceRequest(capabilities=("gpu",), device_ids=("0", "3"))
    made = bench.created(bench.step(device_requests=(some, these)))

    shown = bench.docker.inspect_container(made.id)["HostConfig"]["DeviceRequests"]

    assert shown == [
        {"Driver": "nvidia", "Count": 2, "DeviceIDs": [], "Capabilities": [["gpu", "utility"]], "Options": {"a": "b"}},
        {"Driver": "", "Count": 0, "DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]], "Options": {}},
    ]


def test_devices_that_no_driver_has(bench: DockerBench) -> None:
    request = DeviceRequest(capabilities=("no-such-thing",), count=-1)
    made = bench.created(bench.step(device_requests=(request,)))

    with pytest.raises(EngineError) as caught:
        bench.engine.start(made.id)

    assert caught.value.code == "device_missing"


def test_a_runtime_that_the_engine_does_not_have(bench: DockerBench) -> None:
    with pytest.raises(EngineError) as caught:
        bench.started(bench.step(runtime="no-such-runtime"))

    assert caught.value.code == "plugin_missing"


def test_storage_options_reach_the_engine_which_refuses_one_that_it_does_not_know(bench: DockerBench) -> None:
    with pytest.raises(EngineError, match="no-such-option") as caught:
        bench.created(bench.step(storage_opt={"no-such-option": "1"}))

    assert caught.value.code == "bad_config"


def test_annotations_where_the_engine_has_them(bench: DockerBench) -> None:
    made = bench.started(bench.step(annotations={"com.example": "1"}))

    shown = bench.docker.inspect_container(made.id)["HostConfig"].get("Annotations")
    assert shown == ({"com.example": "1"} if api(bench) >= (1, 43) else None)


def test_the_platform(bench: DockerBench) -> None:
    about = bench.docker.inspect_image(bench.image)
    own = f"{about['Os']}/{about['Architecture']}"
    made = bench.started(bench.step(platform=own))
    assert bench.docker.inspect_container(made.id)["Platform"] == about["Os"]

    with pytest.raises(EngineError) as caught:
        bench.created(bench.step("other", platform="linux/s390x"))
    assert caught.value.code == "wrong_platform"


def test_mac_addresses_of_networks(bench: DockerBench) -> None:
    first, second = bench.network("one"), bench.network("two")
    endpoint = Endpoint(first.name, ("api",), mac_address=MAC)
    made = bench.created(bench.step(network_mode=first.name, endpoints=(endpoint,)))
    further = Connect(made.id, Endpoint(second.name, ("api",), mac_address="02:42:ac:11:00:78"))
    if api(bench) >= (1, 44):
        bench.engine.connect(further)
    else:
        with pytest.raises(EngineError, match="one MAC address") as caught:
            bench.engine.connect(further)
        assert caught.value.code == "bad_config"
        bench.engine.connect(Connect(made.id, Endpoint(second.name, ("api",))))
    bench.engine.start(made.id)

    networks = bench.docker.inspect_container(made.id)["NetworkSettings"]["Networks"]

    assert networks[first.name]["MacAddress"] == MAC
    assert (networks[second.name]["MacAddress"] == "02:42:ac:11:00:78") == (api(bench) >= (1, 44))


def test_links_find_every_container_of_a_service_by_another_name(bench: DockerBench) -> None:
    first, second = bench.network("one"), bench.network("two")
    for name, network in (("db", first), ("db-2", first), ("cache", second)):
        alias = Endpoint(network.name, (name.removesuffix("-2"),))
        bench.started(bench.step(name, network_mode=network.name, endpoints=(alias,)))
    endpoint = Endpoint(first.name, ("api",), links=(("db", "database"),))
    made = bench.created(bench.step(network_mode=first.name, endpoints=(endpoint,)))
    bench.engine.connect(Connect(made.id, Endpoint(second.name, ("api",), links=(("cache", "store"),))))
    bench.engine.start(made.id)

    networks = bench.docker.inspect_container(made.id)["NetworkSettings"]["Networks"]
    assert networks[first.name]["Links"] == ["db:database"]
    assert networks[second.name]["Links"] == ["cache:store"]
    assert addresses(bench, made.id, "database") == addresses(bench, made.id, "db")
    assert len(addresses(bench, made.id, "database")) == 2
    assert addresses(bench, made.id, "store") == addresses(bench, made.id, "cache")


def addresses(bench: DockerBench, container: str, name: str) -> set[str]:
    """As the container resolves it."""
    call = bench.docker.exec_create(container, ["nslookup", "-type=a", name])
    answer = bench.docker.exec_start(call["Id"]).decode().partition(f"Name:\t{name}")[2]
    return set(re.findall(r"Address: (\S+)", answer))


@pytest.mark.parametrize(("key", "shown"), [("network_mode", "NetworkMode"), ("pid", "PidMode"), ("ipc", "IpcMode")])
def test_namespaces_of_another_container(bench: DockerBench, key: str, shown: str) -> None:
    first = bench.started(bench.step("first", ipc="shareable"))

    second = bench.started(bench.step("second", **{key: f"container:{first.id}"}))

    assert bench.docker.inspect_container(second.id)["HostConfig"][shown] == f"container:{first.id}"


def test_shared_memory_that_is_kept_private_cannot_be_had(bench: DockerBench) -> None:
    """Which is why validation asks for `ipc: shareable`."""
    first = bench.started(bench.step("first", ipc="private"))

    with pytest.raises(EngineError, match="non-shareable"):
        bench.started(bench.step("second", ipc=f"container:{first.id}"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"network_mode": "container:{other}", "expose": ("80/tcp",)}, "expos"),
        ({"network_mode": "container:{other}", "mac_address": MAC}, "mac-address"),
        ({"network_mode": "host", "mac_address": MAC}, "mac-address"),
        ({"uts": "host", "hostname": "a"}, "hostname"),
        ({"cpus": 10**9, "cpu_quota": 5000}, "Nano CPUs"),
        ({"cpus": 10**9, "cpu_period": 5000}, "Nano CPUs"),
        ({"memswap_limit": 64 * MIB}, "Memory limit"),
        ({"mem_limit": 64 * MIB, "memswap_limit": 32 * MIB}, "memoryswap"),
        ({"mem_limit": 64 * MIB, "mem_reservation": 128 * MIB}, "memory reservation"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_what_we_refuse_together_the_engine_refuses(bench: DockerBench, keys: dict[str, Any], message: str) -> None:
    """Validation says it by pointer, on arrival; this is why it may."""
    other = bench.created(bench.step("other"))
    mode = str(keys.get("network_mode", "none")).format(other=other.id)

    with pytest.raises(EngineError, match=message):
        bench.created(bench.step(**keys | {"network_mode": mode}))


def api(bench: DockerBench) -> tuple[int, ...]:
    return tuple(int(word) for word in bench.docker.api_version.split("."))
