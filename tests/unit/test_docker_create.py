"""A step in the engine's words: each key alone, then what depends on the engine's version."""

from typing import Any

import pytest

from device_agent.adapters.docker_create import container_body, left_out, network_arguments
from device_agent.adapters.docker_mounts import too_old
from device_agent.model.compose import (
    Device,
    DeviceLimit,
    DeviceRequest,
    Healthcheck,
    IpamConfig,
    IpamPool,
    Logging,
    Mount,
    Port,
    Restart,
    Service,
    Ulimit,
)
from device_agent.model.steps import Create, CreateNetwork, Endpoint

OLD, NEW = (1, 41), (1, 47)

BARE = {
    "Image": "a:1",
    "Labels": {"device-agent.app": "shop"},
    "StopTimeout": 10,
    "HostConfig": {"NetworkMode": "none", "RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}},
}


def body(api: tuple[int, int] = OLD, mounts: tuple[Mount, ...] = (), **keys: Any) -> dict[str, Any]:
    service = Service(image="a:1", **keys)
    labels, joined = {"device-agent.app": "shop"}, (service.pid, service.ipc)
    return container_body(Create("shop-api-1", "a:1", service, labels, "none", (), mounts, *joined), api)


def test_nothing_that_was_not_asked_for_is_sent() -> None:
    assert body() == BARE


OF_CONTAINER: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"command": ("a", "b c")}, {"Cmd": ["a", "b c"]}),
    ({"command": ()}, {"Cmd": []}),
    ({"entrypoint": ("a",)}, {"Entrypoint": ["a"]}),
    ({"entrypoint": ()}, {"Entrypoint": []}),
    ({"environment": {"A": "1", "B": "x=y", "C": ""}}, {"Env": ["A=1", "B=x=y", "C="]}),
    ({"working_dir": "/w"}, {"WorkingDir": "/w"}),
    ({"user": "1:2"}, {"User": "1:2"}),
    ({"hostname": "h"}, {"Hostname": "h"}),
    ({"labels": {"a": "b"}}, {"Labels": {"a": "b", "device-agent.app": "shop"}}),
    ({"labels": {"device-agent.app": "stolen"}}, {"Labels": {"device-agent.app": "shop"}}),
    ({"stop_signal": "SIGINT"}, {"StopSignal": "SIGINT"}),
    ({"stop_grace_period": 90_000_000_000}, {"StopTimeout": 90}),
    ({"stop_grace_period": 1_200_000_000}, {"StopTimeout": 2}),
    ({"stop_grace_period": 0}, {"StopTimeout": 0}),
    ({"healthcheck": Healthcheck(test=("NONE",))}, {"Healthcheck": {"Test": ["NONE"]}}),
    (
        {"healthcheck": Healthcheck(test=("CMD", "x"), interval=5, timeout=4, start_period=3, retries=2)},
        {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "Timeout": 4, "StartPeriod": 3, "Retries": 2}},
    ),
    ({"healthcheck": Healthcheck(interval=5)}, {"Healthcheck": {"Interval": 5}}),
    ({"domainname": "d"}, {"Domainname": "d"}),
    ({"tty": True, "stdin_open": True}, {"Tty": True, "OpenStdin": True}),
    ({"expose": ("80/tcp",)}, {"ExposedPorts": {"80/tcp": {}}}),
    ({"mac_address": "02:42:ac:11:00:77"}, {"MacAddress": "02:42:ac:11:00:77"}),
    ({"platform": "linux/arm64"}, {}),  # goes with the request, not in its body
    ({"annotations": {"a": "b"}}, {}),
]

OF_HOST: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"init": True}, {"Init": True}),
    (
        {"blkio_devices": {"device_read_bps": (DeviceLimit(path="/dev/sda", limit=5),)}},
        {"BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}]},
    ),
    (
        {"blkio_devices": {"weight_device": (DeviceLimit(path="/dev/sda", limit=300),)}},
        {"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 300}]},
    ),
    ({"init": False}, {"Init": False}),
    ({"restart": Restart(policy="no")}, {"RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}}),
    (
        {"restart": Restart(policy="on-failure", max_retries=3)},
        {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
    ),
    ({"tmpfs": ("/run", "/tmp:size=64m,mode=1777")}, {"Tmpfs": {"/run": "", "/tmp": "size=64m,mode=1777"}}),
    ({"cpus": 500_000_000}, {"NanoCpus": 500_000_000}),
    ({"mem_limit": 1 << 20}, {"Memory": 1 << 20}),
    ({"shm_size": 1 << 20}, {"ShmSize": 1 << 20}),
    ({"cap_add": ("NET_ADMIN",)}, {"CapAdd": ["NET_ADMIN"]}),
    ({"cap_drop": ("ALL",)}, {"CapDrop": ["ALL"]}),
    ({"privileged": True}, {"Privileged": True}),
    ({"read_only": True}, {"ReadonlyRootfs": True}),
    ({"group_add": ("20",)}, {"GroupAdd": ["20"]}),
    ({"dns_opt": ("use-vc",), "dns_search": ("a",)}, {"DnsOptions": ["use-vc"], "DnsSearch": ["a"]}),
    ({"storage_opt": {"size": "1G"}}, {"StorageOpt": {"size": "1G"}}),
    ({"runtime": "runsc"}, {"Runtime": "runsc"}),
    ({"security_opt": ("label=disable",)}, {"SecurityOpt": ["label=disable"]}),
    ({"security_opt": ("systempaths=unconfined",)}, {"MaskedPaths": [], "ReadonlyPaths": []}),
    ({"userns_mode": "host", "pid": "host"}, {"UsernsMode": "host", "PidMode": "host"}),
    ({"ipc": "host", "uts": "host", "cgroup": "host"}, {"IpcMode": "host", "UTSMode": "host", "CgroupnsMode": "host"}),
    ({"cgroup_parent": "/a"}, {"CgroupParent": "/a"}),
    ({"device_cgroup_rules": ("c 1:3 r",)}, {"DeviceCgroupRules": ["c 1:3 r"]}),
    (
        {"cpu_shares": 2, "cpu_quota": 3, "cpu_period": 4, "cpuset": "0"},
        {"CpuShares": 2, "CpuQuota": 3, "CpuPeriod": 4, "CpusetCpus": "0"},
    ),
    (
        {"mem_reservation": 1, "memswap_limit": -1, "mem_swappiness": 0},
        {"MemoryReservation": 1, "MemorySwap": -1, "MemorySwappiness": 0},
    ),
    ({"oom_kill_disable": True, "oom_score_adj": -5}, {"OomKillDisable": True, "OomScoreAdj": -5}),
    ({"pids_limit": -1, "blkio_weight": 10}, {"PidsLimit": -1, "BlkioWeight": 10}),
    (
        {"device_requests": (DeviceRequest(capabilities=("gpu",), count=-1),)},
        {
            "DeviceRequests": [
                {"Driver": "", "Count": -1, "DeviceIDs": [], "Capabilities": [["gpu"]], "Options": {}},
            ]
        },
    ),
    (
        {"devices": (Device(source="/dev/a", target="/dev/b", permissions="r"),)},
        {"Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}]},
    ),
    ({"extra_hosts": ("a:1.2.3.4",)}, {"ExtraHosts": ["a:1.2.3.4"]}),
    ({"dns": ("1.1.1.1",)}, {"Dns": ["1.1.1.1"]}),
    ({"sysctls": {"net.core.somaxconn": "1024"}}, {"Sysctls": {"net.core.somaxconn": "1024"}}),
    ({"ulimits": {"nofile": Ulimit(soft=1, hard=2)}}, {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}]}),
    (
        {"logging": Logging(driver="json-file", options={"max-size": "1m"})},
        {"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}}},
    ),
    ({"logging": Logging(options={"max-size": "1m"})}, {"LogConfig": {"Type": "", "Config": {"max-size": "1m"}}}),
]


@pytest.mark.parametrize(("keys", "sent"), OF_CONTAINER)
def test_keys_of_the_container(keys: dict[str, Any], sent: dict[str, Any]) -> None:
    assert body(**keys) == {**BARE, **sent}


@pytest.mark.parametrize(("keys", "sent"), OF_HOST)
def test_keys_of_the_host(keys: dict[str, Any], sent: dict[str, Any]) -> None:
    assert body(**keys) == {**BARE, "HostConfig": {**BARE["HostConfig"], **sent}}  # type: ignore[dict-item]


def test_ports() -> None:
    ports = (
        Port(target=80, published="8080"),
        Port(target=80, published="8081", host_ip="127.0.0.1"),
        Port(target=53, protocol="udp"),
        Port(target=443, published="9000-9010", host_ip="::1"),
    )

    sent = body(ports=ports)

    assert sent["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}, "443/tcp": {}}
    assert sent["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}],
        "53/udp": [{"HostIp": "", "HostPort": ""}],
        "443/tcp": [{"HostIp": "::1", "HostPort": "9000-9010"}],
    }


MOUNTS: list[tuple[Mount, dict[str, Any]]] = [
    (Mount(type="volume", target="/d", source="v"), {"Mounts": [{"Type": "volume", "Target": "/d", "Source": "v"}]}),
    (Mount(type="volume", target="/d"), {"Mounts": [{"Type": "volume", "Target": "/d"}]}),
    (
        Mount(type="volume", target="/d", source="v", read_only=True, nocopy=True),
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "Target": "/d",
                    "Source": "v",
                    "ReadOnly": True,
                    "VolumeOptions": {"NoCopy": True},
                }
            ]
        },
    ),
    (Mount(type="bind", target="/d", source="/h"), {"Binds": ["/h:/d:rw"]}),
    (
        Mount(type="bind", target="/d", source="/h", read_only=True, propagation="rslave", selinux="z"),
        {"Binds": ["/h:/d:ro,z,rslave"]},
    ),
    (
        Mount(type="bind", target="/d", source="/h", create_host_path=False, propagation="rslave"),
        {"Mounts": [{"Type": "bind", "Target": "/d", "Source": "/h", "BindOptions": {"Propagation": "rslave"}}]},
    ),
    (
        Mount(type="bind", target="/d", source="/h:x"),
        {"Mounts": [{"Type": "bind", "Target": "/d", "Source": "/h:x"}]},
    ),
    (
        Mount(type="tmpfs", target="/d", tmpfs_size=1024, tmpfs_mode=0o1777),
        {"Mounts": [{"Type": "tmpfs", "Target": "/d", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 0o1777}}]},
    ),
    (Mount(type="tmpfs", target="/d"), {"Mounts": [{"Type": "tmpfs", "Target": "/d"}]}),
    (
        Mount(type="volume", target="/d", source="v", subpath="a/b"),
        {"Mounts": [{"Type": "volume", "Target": "/d", "Source": "v", "VolumeOptions": {"Subpath": "a/b"}}]},
    ),
    (
        Mount(type="volume", target="/d", labels={"a": "b"}),
        {"Mounts": [{"Type": "volume", "Target": "/d", "VolumeOptions": {"Labels": {"a": "b"}}}]},
    ),
    (
        Mount(type="bind", target="/d", source="/h", recursive="disabled"),
        {"Mounts": [{"Type": "bind", "Target": "/d", "Source": "/h", "BindOptions": {"NonRecursive": True}}]},
    ),
    (
        Mount(type="bind", target="/d", source="/h", recursive="writable", read_only=True),
        {"Mounts": [{"Type": "bind", "Target": "/d", "Source": "/h", "ReadOnly": True}]},
    ),
]


@pytest.mark.parametrize(("mount", "sent"), MOUNTS)
def test_mounts(mount: Mount, sent: dict[str, Any]) -> None:
    assert body(mounts=(mount,)) == {**BARE, "HostConfig": {**BARE["HostConfig"], **sent}}  # type: ignore[dict-item]


def test_only_the_first_network_is_part_of_the_creation() -> None:
    first = Endpoint("shop_front", ("api", "web"), "10.1.0.2", "fd00::2")
    step = Create("shop-api-1", "a:1", Service(image="a:1"), {}, "shop_front", (first, Endpoint("shop_back")))

    sent = container_body(step, NEW)

    assert sent["HostConfig"]["NetworkMode"] == "shop_front"
    assert sent["NetworkingConfig"] == {
        "EndpointsConfig": {
            "shop_front": {
                "Aliases": ["api", "web"],
                "IPAMConfig": {"IPv4Address": "10.1.0.2", "IPv6Address": "fd00::2"},
            }
        }
    }


def test_what_only_a_newer_engine_knows() -> None:
    check = Healthcheck(test=("CMD", "x"), start_interval=7)
    bind = Mount(type="bind", target="/d", source="/h:x")

    assert body(NEW, healthcheck=check)["Healthcheck"] == {"Test": ["CMD", "x"], "StartInterval": 7}
    assert body(OLD, healthcheck=check)["Healthcheck"] == {"Test": ["CMD", "x"]}
    for asked, sent in (("writable", "ReadOnlyNonRecursive"), ("readonly", "ReadOnlyForceRecursive")):
        below = Mount(type="bind", target="/d", source="/h", read_only=True, recursive=asked)
        assert body(NEW, mounts=(below,))["HostConfig"]["Mounts"][0]["BindOptions"][sent] is True
    assert body(NEW, mounts=(bind,))["HostConfig"]["Mounts"][0]["BindOptions"] == {"CreateMountpoint": True}


def test_what_this_engine_is_too_old_for_is_told_where_it_can_be_left_out() -> None:
    keys = {"healthcheck": Healthcheck(test=("CMD", "x"), start_interval=7), "annotations": {"a": "b"}}
    step = Create("shop-api-1", "a:1", Service(image="a:1", **keys), {}, "none")

    assert [word.split(" ")[0] for word in left_out(step, OLD)] == ["healthcheck.start_interval", "annotations"]
    assert left_out(step, NEW) == []


@pytest.mark.parametrize(
    ("mount", "since"),
    [
        (Mount(type="volume", target="/d", source="v", subpath="a"), (1, 45)),
        (Mount(type="bind", target="/d", source="/h", recursive="readonly", read_only=True), (1, 44)),
    ],
)
def test_what_a_container_may_not_be_without(mount: Mount, since: tuple[int, int]) -> None:
    assert "it takes API" in too_old((mount,), (since[0], since[1] - 1))
    assert too_old((mount,), since) == ""


def test_networks() -> None:
    pool = IpamPool(subnet="10.1.0.0/24", ip_range="10.1.0.128/25", gateway="10.1.0.1", aux_addresses={"a": "10.1.0.9"})
    network = CreateNetwork(
        "shop_back",
        {"a": "b"},
        driver="bridge",
        driver_opts={"com.docker.network.driver.mtu": "1400"},
        ipam=IpamConfig(config=(pool,), options={"x": "y"}),
        internal=True,
        attachable=True,
        enable_ipv6=True,
    )

    assert network_arguments(network) == {
        "name": "shop_back",
        "driver": "bridge",
        "options": {"com.docker.network.driver.mtu": "1400"},
        "ipam": {
            "Driver": "default",
            "Config": [
                {
                    "Subnet": "10.1.0.0/24",
                    "IPRange": "10.1.0.128/25",
                    "Gateway": "10.1.0.1",
                    "AuxiliaryAddresses": {"a": "10.1.0.9"},
                }
            ],
            "Options": {"x": "y"},
        },
        "check_duplicate": True,
        "internal": True,
        "labels": {"a": "b"},
        "enable_ipv6": True,
        "attachable": True,
    }
    assert network_arguments(CreateNetwork("n"))["ipam"] is None


MAC = "02:42:ac:11:00:77"


def attached(api: tuple[int, int], network: str, endpoints: tuple[Endpoint, ...] = (), **keys: Any) -> dict[str, Any]:
    service = Service(image="a:1", **keys)
    found = container_body(Create("shop-api-1", "a:1", service, {}, network, endpoints), api)
    return {key: found[key] for key in ("MacAddress", "NetworkingConfig") if key in found}


def test_a_mac_address_is_the_containers_before_it_could_be_the_endpoints() -> None:
    endpoint = Endpoint("front", ("api",), mac_address=MAC)

    def config(network: str, **fields: Any) -> dict[str, Any]:
        return {"NetworkingConfig": {"EndpointsConfig": {network: fields}}}

    assert attached(OLD, "front", (endpoint,)) == {"MacAddress": MAC, **config("front", Aliases=["api"])}
    assert attached(NEW, "front", (endpoint,)) == config("front", Aliases=["api"], MacAddress=MAC)
    assert attached(OLD, "bridge", mac_address=MAC) == {"MacAddress": MAC}
    assert attached(NEW, "bridge", mac_address=MAC) == config("bridge", MacAddress=MAC)


def test_annotations_where_the_engine_has_them() -> None:
    assert body(NEW, annotations={"a": "b"})["HostConfig"]["Annotations"] == {"a": "b"}
    assert "Annotations" not in body(OLD, annotations={"a": "b"})["HostConfig"]
