"""What a target may ask for is the device owner's to say, and strict where nothing is said."""

import re
from pathlib import Path

import pytest

from device_agent.cli.settings import load_policy
from device_agent.core.policy import RULES, Own, Policy, offences
from device_agent.model.compose import Mount, NetworkDefinition, Service, VolumeDefinition
from device_agent.model.validate import validate_apps
from tests.builders import OPEN, app, service

API = "/apps/web/services/api"


def found(policy: Policy, sections=None, **keys) -> list[str]:
    documents = {"web": app(sections, api=service(**keys))}
    return [problem.pointer for problem in offences(policy, validate_apps(documents).apps, documents)]


@pytest.mark.parametrize(
    ("keys", "pointer", "allowed"),
    [
        ({"privileged": True}, "privileged", Policy(privileged=True)),
        ({"network_mode": "host"}, "network_mode", Policy(host_network=True)),
        ({"pid": "host"}, "pid", Policy(host_pid=True)),
        ({"ipc": "host"}, "ipc", Policy(host_ipc=True)),
        ({"uts": "host"}, "uts", Policy(host_uts=True)),
        ({"userns_mode": "host"}, "userns_mode", Policy(host_userns=True)),
        ({"cgroup": "host"}, "cgroup", Policy(host_cgroup=True)),
        ({"cgroup_parent": "/critical"}, "cgroup_parent", Policy(cgroup_parent=("/critical",))),
        ({"cgroup_parent": "/critical"}, "cgroup_parent", Policy(cgroup_parent=("*",))),
        ({"device_cgroup_rules": ["c 1:3 r"]}, "device_cgroup_rules", Policy(device_cgroup_rules=("c 1:3 r",))),
        ({"gpus": "all"}, "gpus", Policy(gpus=True)),
        ({"runtime": "nvidia"}, "runtime", Policy(runtime=("nvidia",))),
        ({"runtime": "runc"}, "runtime", Policy(runtime=("*",))),
        ({"annotations": {"org.systemd.property.DeviceAllow": "x"}}, "annotations", Policy(annotations=("*",))),
        ({"annotations": ["com.example=1"]}, "annotations", Policy(annotations=("com.example",))),
        ({"logging": {"driver": "syslog"}}, "logging/driver", Policy(log_drivers=("syslog",))),
        ({"logging": {"driver": "gelf"}}, "logging/driver", Policy(log_drivers=("*",))),
        ({"logging": {"options": {"syslog-address": "udp://x"}}}, "logging/options", Policy(log_drivers=("*",))),
        (
            {"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["tpu"]}]}}}},
            "deploy/resources/reservations/devices",
            Policy(gpus=True),
        ),
        ({"security_opt": ["seccomp:unconfined"]}, "security_opt", Policy(security_opt=("seccomp=unconfined",))),
        ({"security_opt": ["label=user:x"]}, "security_opt", Policy(security_opt=("label",))),
        ({"security_opt": ["no-new-privileges:false"]}, "security_opt", Policy(security_opt=("*",))),
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
        ({"device_cgroup_rules": ["a *:* rwm"]}, Policy(device_cgroup_rules=("c 1:3 r",))),
        ({"security_opt": ["seccomp=unconfined"]}, Policy(security_opt=("apparmor", "seccomp=builtin"))),
        ({"cgroup_parent": "/critical/x"}, Policy(cgroup_parent=("/critical",))),
        ({"pid": "host"}, Policy(host_network=True, host_ipc=True, privileged=True)),
        ({"runtime": "nvidia"}, Policy(gpus=True, runtime=("runc",))),
        ({"gpus": "all"}, Policy(runtime=("nvidia",))),
        ({"annotations": {"a.b": "1"}}, Policy(annotations=("a",))),
        ({"logging": {"driver": "local"}}, Policy(log_drivers=("journald",))),
        ({"logging": {"options": {"syslog-address": "udp://x"}}}, Policy(log_drivers=("syslog",))),
        ({"volumes": ["/srv-2/x:/d"]}, Policy(binds=("/srv",))),
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


@pytest.mark.parametrize(
    "options",
    [
        {"type": "none", "o": "bind", "device": "etc"},
        {"type": "tmpfs", "o": "rw,rbind", "device": "etc/../etc"},
        {"TYPE": "none", "O": "bind", "DEVICE": "/etc"},
        {"type": "nfs", "o": "bind", "device": "/etc"},
        {"type": "overlay", "o": "lowerdir=/etc:/home", "device": "overlay"},
        {"type": "overlay", "o": "lowerdir=/etc:/home", "device": "/srv/data"},
        {"type": "proc", "device": "proc"},
        {"type": "sysfs", "device": "x"},
        {"type": "devtmpfs", "device": "x"},
        {"type": "ext4", "device": "/dev/sda1"},
        {"type": "ext4", "device": "dev/sda1"},
    ],
)
def test_what_of_the_host_the_options_of_a_volume_can_show(options):
    sections = {"volumes": {"data": {"driver_opts": options}}}
    assert found(Policy(binds=("/srv/data", "/dev/sdb1")), sections) == ["/apps/web/volumes/data/driver_opts"]
    assert found(Policy(binds=("*",)), sections) == []


@pytest.mark.parametrize(
    "options",
    [
        {"type": "nfs", "o": "addr=10.0.0.1", "device": ":/export"},
        {"type": "cifs", "o": "addr=10.0.0.1", "device": "//10.0.0.1/share"},
        {"type": "ext4", "device": "/dev/sdb1"},
        {"type": "none", "o": "bind", "device": "/srv/data/x"},
    ],
)
def test_what_else_a_volume_can_be_made_of(options):
    sections = {"volumes": {"data": {"driver_opts": options}}}
    assert found(Policy(binds=("/srv/data", "/dev/sdb1")), sections) == []


def network(policy: Policy, **definition) -> list[str]:
    at = "/apps/web/networks/lan"
    return [pointer.removeprefix(at) for pointer in found(policy, {"networks": {"lan": definition}}, networks=["lan"])]


@pytest.mark.parametrize("kind", ["macvlan", "ipvlan"])
def test_a_network_on_the_hosts_interface(kind):
    definition = {"driver": kind, "driver_opts": {"parent": "eth0.50"}}
    assert network(Policy(), **definition) == ["/driver_opts/parent"]
    assert network(Policy(network_parents=("eth0",)), **definition) == ["/driver_opts/parent"]
    assert network(Policy(network_parents=("eth0.50",)), **definition) == []
    assert network(Policy(), driver=kind) == [], "it is on no interface"


@pytest.mark.parametrize("driver", [{}, {"driver": "bridge"}])
def test_a_bridge_of_the_hosts(driver):
    definition = {**driver, "driver_opts": {"com.docker.network.bridge.name": "br-lan"}}
    assert network(Policy(), **definition) == ["/driver_opts/com.docker.network.bridge.name"]
    assert network(Policy(network_parents=("br-lan",)), **definition) == []


def test_a_network_by_another_driver():
    assert network(Policy(), driver="weave") == ["/driver"]
    assert network(Policy(network_drivers=("weave",)), driver="weave") == []
    assert network(Policy(network_drivers=("weave",)), driver="bridge") == []


def test_a_network_whose_addresses_another_driver_gives():
    assert network(Policy(), ipam={"driver": "dhcp"}) == ["/ipam/driver"]
    assert network(Policy(network_drivers=("dhcp",)), ipam={"driver": "dhcp"}) == []
    assert network(Policy(), ipam={"driver": "default"}) == []


def test_a_network_that_somebody_else_has_made():
    assert network(Policy(), external=True, name="backend") == [""]
    assert network(Policy(external_networks=("backend",)), external=True, name="backend") == []
    assert network(Policy(external_networks=("*",)), external=True, name="host") == [""]


def test_a_volume_that_somebody_else_has_made_or_a_plugin_makes():
    keys = {"volumes": ["data:/d"]}
    external = {"volumes": {"data": {"external": True, "name": "portainer_data"}}}
    assert found(Policy(), external, **keys) == ["/apps/web/volumes/data"]
    assert found(Policy(external_volumes=("portainer_data",)), external, **keys) == []
    plugin = {"volumes": {"data": {"driver": "local-persist", "driver_opts": {"mountpoint": "/etc"}}}}
    assert found(Policy(binds=("*",)), plugin, **keys) == ["/apps/web/volumes/data/driver"]
    assert found(Policy(volume_drivers=("local-persist",)), plugin, **keys) == []
    assert found(Policy(), {"volumes": {"data": {"driver": "local"}}}, **keys) == []


def test_the_hosts_network_declared_as_an_external_one():
    sections = {"networks": {"lan": {"external": True, "name": "host"}}}
    assert found(Policy(), sections, networks=["lan"]) == ["/apps/web/networks/lan"]
    assert found(Policy(host_network=True), sections, networks=["lan"]) == []


def test_the_agents_own_volume_declared_as_an_external_one():
    sections = {"volumes": {"device-agent-data": {"external": True}}}
    keys = {"volumes": ["device-agent-data:/d"]}
    assert found(Policy(external_volumes=("*",)), sections, **keys) == ["/apps/web/volumes/device-agent-data"]
    assert found(Policy(engine_socket=True), sections, **keys) == []


OWN = Own(frozenset({"edge_state"}), frozenset({"/srv/agent", "/etc/device-agent/policy.toml"}))


def test_the_agents_own_volume_by_the_name_that_it_really_has():
    sections, keys = {"volumes": {"it": {"external": True, "name": "edge_state"}}}, {"volumes": ["it:/d"]}
    assert found(Policy(external_volumes=("*",), own=OWN), sections, **keys) == ["/apps/web/volumes/it"]
    assert found(Policy(engine_socket=True, own=OWN), sections, **keys) == []


@pytest.mark.parametrize("source", ["/srv/agent", "/srv/agent/database.sqlite", "/srv", "/etc/device-agent", "/etc"])
def test_the_agents_own_files_are_not_allowed_by_a_folder_around_them(source):
    keys = {"volumes": [f"{source}:/d"]}
    assert found(Policy(binds=("*",), own=OWN), **keys) == [f"{API}/volumes/0"]
    assert found(Policy(binds=("*",), engine_socket=True, own=OWN), **keys) == []
    hidden = {"volumes": {"v": {"driver_opts": {"type": "none", "o": "bind", "device": f"/{source}"}}}}
    assert found(Policy(binds=("*",), own=OWN), hidden) == ["/apps/web/volumes/v/driver_opts"]


def test_what_is_beside_the_agents_own_files_is_only_a_bind():
    keys = {"volumes": ["/srv/agents:/d", "/etc/device-agent/ca.pem:/ca"]}
    assert found(Policy(binds=("/srv", "/etc"), own=OWN), **keys) == []


def test_what_a_container_may_always_have():
    sections = {"volumes": {"data": {"driver_opts": {"type": "tmpfs", "device": "tmpfs"}}}}
    sections["networks"] = {
        "lan": {"driver": "bridge", "internal": True, "ipam": {"config": [{"subnet": "10.9.0.0/24"}]}}
    }
    keys = {"networks": ["lan"], "logging": {"driver": "journald", "options": {"tag": "x", "any": "thing"}}}
    keys |= {"volumes": ["data:/d", "/anonymous"], "tmpfs": ["/t"], "cap_drop": ["ALL"], "read_only": True}
    keys |= {"security_opt": ["no-new-privileges"], "ipc": "shareable", "cgroup": "private", "mem_limit": "64g"}
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


def sums(policy: Policy, **services) -> list[str]:
    documents = {name: app(**{name: service(**keys)}) for name, keys in services.items()}
    return [problem.pointer for problem in offences(policy, validate_apps(documents).apps, documents)]


def limits(**limits) -> dict:
    return {"deploy": {"resources": {"limits": limits}}}


@pytest.mark.parametrize(
    ("policy", "one", "other", "where"),
    [
        (Policy(memory_max=2**30), {"mem_limit": "512m"}, limits(memory="512m"), ("", "")),
        (
            Policy(memory_max=2**30),
            {"mem_limit": "512m"},
            limits(memory="513m"),
            ("mem_limit", "deploy/resources/limits/memory"),
        ),
        (Policy(memory_max=2**30), {"mem_limit": "1m"}, {}, ("", "mem_limit")),
        (Policy(cpus_max=2 * 10**9), {"cpus": 1.5}, {"cpu_quota": 50_000}, ("", "")),
        (Policy(cpus_max=2 * 10**9), {"cpus": 1.5}, {"cpu_quota": 50_000, "cpu_period": 50_000}, ("cpus", "cpu_quota")),
        (Policy(cpus_max=2 * 10**9), {"cpus": 1.5}, limits(cpus="0.6"), ("cpus", "deploy/resources/limits/cpus")),
        (Policy(cpus_max=2 * 10**9), {"cpus": 1.5}, {"cpu_quota": -1}, ("", "cpu_quota")),
        (Policy(cpus_max=2 * 10**9), {}, {"cpus": 0.1}, ("cpus", "")),
    ],
)
def test_what_all_apps_together_may_use(policy, one, other, where):
    expected = [f"/apps/{name}/services/{name}/{key}" for name, key in zip(("one", "other"), where, strict=True) if key]
    assert sums(policy, one=one, other=other) == expected
    assert sums(Policy(), one=one, other=other) == []


def test_what_is_over_the_sum_is_said_with_both_figures():
    documents = {"web": app(api=service(mem_limit="2g", cpus=3))}
    found = offences(Policy(memory_max=2**30, cpus_max=10**9), validate_apps(documents).apps, documents)
    assert [problem.message for problem in found] == [
        "the limits add up to 2,048 MiB of memory, this device's policy allows 1,024 MiB of memory (memory_max)",
        "the limits add up to 3 CPUs, this device's policy allows 1 CPUs (cpus_max)",
    ]


EXAMPLES = Path(__file__).parents[2] / "examples" / "policies"


def test_the_strict_example_is_the_default_and_names_every_rule():
    assert load_policy(EXAMPLES / "strict.toml") == Policy()
    named = set(re.findall(r"^(?:# )?([a-z_]+) = ", (EXAMPLES / "strict.toml").read_text(), re.MULTILINE))
    assert named == RULES.keys()


def test_the_usual_example_allows_a_gateway_what_it_needs_and_no_more():
    usual = load_policy(EXAMPLES / "usual.toml")
    keys = {"cap_add": ["NET_ADMIN"], "devices": ["/dev/ttyUSB0"], "volumes": ["/srv/data:/d", "/etc/localtime:/t:ro"]}
    keys |= {"network_mode": "host", "mem_limit": "256m", "cpus": 0.5}
    assert found(usual, **keys) == []
    assert found(usual, **keys | {"privileged": True, "pid": "host"}) == [f"{API}/privileged", f"{API}/pid"]


def test_the_open_example_allows_everything():
    assert load_policy(EXAMPLES / "open.toml") == OPEN
    assert found(OPEN, privileged=True, pid="host", gpus="all", security_opt=["label:disable"]) == []


KEYS = {
    Service: (
        """annotations cap_add cgroup cgroup_parent cpus device_cgroup_rules device_requests devices image ipc logging
        mem_limit network_mode pid privileged runtime scale security_opt userns_mode uts volumes""",
        # Of the container alone. `sysctls` are those of namespaces that are its own, the runtime sees to that.
        """cap_drop command container_name dns dns_opt dns_search domainname entrypoint environment expose extra_hosts
        files group_add healthcheck hostname init labels links mac_address networks platform ports read_only stdin_open
        stop_grace_period stop_signal sysctls tmpfs tty user volumes_from working_dir""",
        # How much, not of what.
        """blkio_devices blkio_weight cpu_period cpu_quota cpu_shares cpuset mem_reservation mem_swappiness
        memswap_limit oom_kill_disable oom_score_adj pids_limit shm_size storage_opt ulimits""",
        # What the agent does with it.
        "depends_on pull_policy pull_refresh_after restart state update",
    ),
    Mount: (
        "type source",
        """create_host_path labels nocopy propagation read_only recursive selinux subpath target tmpfs_mode
        tmpfs_size""",
    ),
    NetworkDefinition: ("driver driver_opts external ipam name", "attachable enable_ipv6 internal labels"),
    VolumeDefinition: ("driver driver_opts external name", "labels"),
}
"""What is judged, and what leads nowhere that it could not go without."""


@pytest.mark.parametrize("kind", KEYS)
def test_whoever_adds_a_key_says_where_it_leads(kind):
    assert sorted(key for words in KEYS[kind] for key in words.split()) == sorted(kind.model_fields)
