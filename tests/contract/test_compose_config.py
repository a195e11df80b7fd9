"""Our canonical values against the real tool: what Compose makes of a file, we make of it too.

Three ways: the long forms that `compose config` prints mean to us what the short ones meant; the containers that
`compose up --no-start` creates are as our model says; and what Compose refuses, we refuse. `scripts/compose` finds the
tool, version 2 or 1.29; without it, or without an engine, these fail.
"""

import io
import json
import random
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from device_agent.model.compose import Mount, Service
from device_agent.model.compose_isolation import security_opt
from device_agent.model.errors import Refused
from device_agent.model.target import Json
from device_agent.model.validate import validate_apps

pytestmark = pytest.mark.docker

SCRIPT = Path(__file__).parents[2] / "scripts" / "compose"
SLOWEST_S = 240
PROJECT = "web"

SNIPPETS: dict[str, Json] = {
    "command_text": {"command": 'sh -c \'echo "a  b"; exit 3\' \\"x'},
    "command_list": {"command": ["sh", "-c", "true && false"]},
    "entrypoint": {"entrypoint": "/bin/sh -c", "command": ["true"]},
    "environment_map": {"environment": {"A": 1, "B": 1.5, "C": "x=y", "D": "", "E": "yes"}},
    "environment_list": {"environment": ["A=1", "B=x=y", "C="]},
    "identity": {"working_dir": "/srv/app", "user": "1000:1000", "hostname": "host.example"},
    "labels_map": {"labels": {"a": 1, "b": "x", "c": None}},
    "labels_list": {"labels": ["a=1", "b", "c=x=y"]},
    "flags": {"init": True, "privileged": True, "read_only": True},
    "restart_no": {"restart": "no"},
    "restart_always": {"restart": "always"},
    "restart_on_failure": {"restart": "on-failure"},
    "restart_on_failure_3": {"restart": "on-failure:3"},
    "restart_unless_stopped": {"restart": "unless-stopped"},
    "stopping": {"stop_signal": "SIGINT", "stop_grace_period": "1m30s"},
    "ports_short": {"ports": ["80", "8080:81", "127.0.0.1:8082:82", "127.0.0.1::83", "84/udp", "8085:85/sctp"]},
    "ports_numbers": {"ports": [8080, "9090:9090"]},
    "ports_ranges": {"ports": ["3000-3002", "4000-4002:5000-5002", "6000-6005:6000/udp"]},
    "ports_ipv6": {"ports": ["[::1]:8080:80/udp"]},
    "ports_long": {"ports": [{"target": 80, "published": 8080, "protocol": "udp"}, {"target": 81}]},
    "networks_list": {"networks": ["front", "back"]},
    "networks_map": {"networks": {"front": {"aliases": ["a", "b"], "ipv4_address": "10.213.0.9"}, "back": None}},
    "mode_host": {"network_mode": "host"},
    "mode_none": {"network_mode": "none"},
    "mode_bridge": {"network_mode": "bridge"},
    "mode_service": {"network_mode": "service:flags"},
    "volumes_short": {
        "volumes": ["/anonymous", "data:/data", "other:/other/:ro", "/srv:/srv:ro", "/tmp:/host:rw,rslave"]
    },
    "volumes_long": {
        "volumes": [
            {"type": "volume", "source": "data", "target": "/data", "volume": {"nocopy": True}, "read_only": True},
            {"type": "bind", "source": "/srv", "target": "/srv", "bind": {"propagation": "rslave"}},
            {"type": "tmpfs", "target": "/tmp", "tmpfs": {"size": 1048576}},
        ]
    },
    "volumes_named": {"volumes": ["data:/data"]},
    "volumes_from": {"volumes_from": ["volumes_named:ro"]},
    "links": {"links": ["flags:banner"]},
    "tmpfs_text": {"tmpfs": "/run"},
    "tmpfs_list": {"tmpfs": ["/run:size=1m,mode=1777", "/tmp"]},
    "depends_list": {"depends_on": ["flags", "stopping"]},
    "depends_map": {
        "depends_on": {"flags": {"condition": "service_healthy"}, "stopping": {"condition": "service_started"}}
    },
    "health_text": {"healthcheck": {"test": "true || false", "interval": "1m30s", "timeout": "500ms", "retries": 3}},
    "health_list": {"healthcheck": {"test": ["CMD", "true"], "start_period": "1h5m30s20ms", "interval": "1.5s"}},
    "health_shell": {"healthcheck": {"test": ["CMD-SHELL", "true"], "timeout": "2s"}},
    "health_none": {"healthcheck": {"test": ["NONE"]}},
    "health_disabled": {"healthcheck": {"disable": True}},
    "limits_text": {"cpus": "0.5", "mem_limit": "64m", "shm_size": "1.5m"},
    "limits_number": {"cpus": 1.5, "mem_limit": 67108864, "shm_size": 1048576},
    "limits_units": {"mem_limit": "65536kb", "shm_size": "1MB"},
    "limits_bytes": {"mem_limit": "67108864", "shm_size": "1048576b"},
    "capabilities": {"cap_add": ["NET_ADMIN", "SYS_TIME"], "cap_drop": ["ALL"]},
    "devices": {"devices": ["/dev/null", "/dev/zero:/dev/nothing", "/dev/full:/dev/crowded:rw"]},
    "hosts_list": {"extra_hosts": ["a:10.0.0.1", "b:::1", "c:10.0.0.3"]},
    "hosts_map": {"extra_hosts": {"a": "10.0.0.1", "b": "::1"}},
    "dns_text": {"dns": "10.0.0.53"},
    "dns_list": {"dns": ["10.0.0.53", "10.0.0.54"]},
    "sysctls_map": {"sysctls": {"net.core.somaxconn": 1024}},
    "sysctls_list": {"sysctls": ["net.core.somaxconn=1024", "net.ipv4.ip_forward=0"]},
    "ulimits": {"ulimits": {"nproc": 65535, "nofile": {"soft": 20000, "hard": 40000}}},
    "names": {
        "domainname": "example.com",
        "hostname": "a",
        "mac_address": "02:42:ac:11:00:77",
        "network_mode": "bridge",
    },
    "terminal": {"tty": True, "stdin_open": True},
    "groups": {"group_add": [20, "video"]},
    "expose": {"expose": [80, "81-82", "53/udp"]},
    "dns_more": {"dns_opt": ["use-vc"], "dns_search": "a.example"},
    "dns_search": {"dns_search": ["b.example", "a.example"]},
    "namespaces": {"pid": "host", "ipc": "shareable", "userns_mode": "host"},
    "security": {"security_opt": ["no-new-privileges", "label:disable"], "runtime": "runc"},
    "cgroups": {"cgroup_parent": "/contract", "device_cgroup_rules": ["c 1:3 mr"]},
    "cpu_numbers": {"cpu_shares": 512, "cpu_quota": 50000, "cpu_period": 80000, "cpuset": "0"},
    "memory": {"mem_limit": "64m", "mem_reservation": "32m", "memswap_limit": "128m", "mem_swappiness": 10},
    "memory_swap": {"mem_limit": "64m", "memswap_limit": -1, "oom_kill_disable": True, "oom_score_adj": 500},
    "processes": {"pids_limit": 100, "blkio_config": {"weight": 300}},
    "deploy_limits": {
        "deploy": {"resources": {"limits": {"cpus": "0.5", "memory": "64M"}, "reservations": {"memory": "32m"}}}
    },
    "deploy_restart": {"deploy": {"restart_policy": {"condition": "on-failure", "max_attempts": 3}}},
    "deploy_restart_any": {"deploy": {"restart_policy": {"condition": "any", "delay": "5s"}, "replicas": 1}},
    "logging": {"logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}},
}

REFUSED: dict[str, Json] = {
    "a boolean for restart": {"restart": False},
    "a number for user": {"user": 1000},
    "a bare number for a duration": {"stop_grace_period": "30"},
    "a unit that is none": {"mem_limit": "64x"},
    "a port that is none": {"ports": ["http:80"]},
    "a port above the last": {"ports": ["80:65536"]},
    "ranges of two lengths": {"ports": ["3000-3002:80-81"]},
    "a number in a command": {"command": ["sleep", 5]},
    "an unknown key": {"imagge": "x"},
    "an unknown network": {"networks": ["nowhere"]},
    "an unknown volume": {"volumes": ["nowhere:/data"]},
    "an unknown service to wait for": {"depends_on": ["nobody"]},
    "an unknown condition": {"depends_on": {"flags": {"condition": "service_ready"}}},
    "a service that waits for itself": {"depends_on": ["it"]},
    "network_mode beside networks": {"network_mode": "host", "networks": ["front"]},
    "two colons too many": {"volumes": ["data:/data:ro:x"]},
    "a mount without a type": {"volumes": [{"target": "/data"}]},
    "a limit without its other half": {"ulimits": {"nofile": {"soft": 1}}},
    "null for a list": {"ports": None},
    "a number for an address": {"networks": {"front": {"ipv4_address": 5}}},
    "a number for a MAC address": {"mac_address": 5},
    "a port to expose that is none": {"expose": ["http"]},
    "an adjustment above the highest": {"oom_score_adj": 1001},
    "text for a flag": {"tty": "maybe"},
    "memory as a number in deploy": {"deploy": {"resources": {"limits": {"memory": 5}}}},
    "a misspelt key of deploy": {"deploy": {"resources": {"limit": {}}}},
}
LATE = {"a bare number for a duration", "a unit that is none", "a port above the last", "an unknown network"}
"""What 1.29 finds out only when it creates the container."""


def compose(folder: Path, project: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert SCRIPT.exists(), f"{SCRIPT} is missing: it finds or installs Compose"
    command = [str(SCRIPT), "-f", str(folder / "compose.json"), "-p", project, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SLOWEST_S, check=False)


def write(folder: Path, services: Json, image: str = "any", subnet: str = "10.213.0") -> Json:
    """The Compose file, all of it on a subnet of its own: an engine has each only once."""
    document: Json = {
        "services": {name: {"image": image, **keys} for name, keys in services.items()},
        "networks": {
            "front": {"ipam": {"config": [{"subnet": "10.213.0.0/24"}]}},
            "back": {"internal": True, "labels": ["a=1"]},
        },
        "volumes": {"data": {}, "other": {"labels": {"a": "1"}}},
    }
    text = json.dumps(document).replace("10.213.0", subnet)
    (folder / "compose.json").write_text(text)
    return json.loads(text)


def canonical(document: Json) -> dict[str, Any]:
    return validate_apps({PROJECT: document}).apps[PROJECT].model_dump(mode="json", exclude_defaults=True)


# ------------------------------------------------------------------------------------------------ compose config


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Json, Json]:
    """The canonical form of our snippets, and of what `compose config` prints of them."""
    folder = tmp_path_factory.mktemp("config")
    document = write(folder, SNIPPETS)
    run = compose(folder, PROJECT, "config")
    assert run.returncode == 0, f"compose config failed: {run.stderr}"
    return canonical(document), canonical(yaml.safe_load(run.stdout))


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_long_form_that_compose_prints_means_the_same(printed: tuple[Json, Json], name: str) -> None:
    ours, composes = printed
    assert composes["services"][name] == ours["services"][name]


def test_the_networks_and_volumes_that_compose_prints_mean_the_same(printed: tuple[Json, Json]) -> None:
    ours, composes = printed
    for section in ("networks", "volumes"):
        for definition in composes[section].values():
            definition.pop("name", None)  # version 2 writes down the name that follows from the project's
        assert composes[section] == ours[section]


# --------------------------------------------------------------------------------------------- what is created


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Service], dict[str, Any]]]:
    """Our services, and the inspections of the containers that Compose creates of the same file. None is started."""
    engine = docker.from_env()
    project = f"contract{uuid.uuid4().hex[:8]}"
    folder = tmp_path_factory.mktemp("created")
    archive = io.BytesIO()
    tarfile.open(fileobj=archive, mode="w").close()
    image = f"{project}:1"
    engine.api.import_image_from_data(archive.getvalue(), repository=project, tag="1", changes=["CMD none"])
    # Compose would wait for conditions, and one port is enough for one service.
    services = {
        name: {key: value for key, value in keys.items() if key != "depends_on"} for name, keys in SNIPPETS.items()
    }
    document = write(folder, services, image, f"10.{random.randint(200, 250)}.{random.randint(1, 250)}")
    try:
        run = compose(folder, project, "up", "--no-start")
        assert run.returncode == 0, f"compose up --no-start failed: {run.stderr}"
        containers = engine.containers.list(all=True, filters={"label": f"com.docker.compose.project={project}"})
        found = {container.labels["com.docker.compose.service"]: container.attrs for container in containers}
        app = validate_apps({PROJECT: document}).apps[PROJECT]
        yield dict(app.services), found
    finally:
        compose(folder, project, "down", "-v", "--timeout", "0")
        engine.images.remove(image, force=True)
        engine.close()


def expected(service: Service) -> dict[str, Any]:
    """What an inspection shows of a container of this service; only what the service says."""
    ports: dict[str, list[dict[str, str]]] = {}
    for port in service.ports:
        binding = {"HostIp": port.host_ip or "", "HostPort": port.published or ""}
        ports.setdefault(f"{port.target}/{port.protocol}", []).append(binding)
    restart = {"Name": service.restart.policy, "MaximumRetryCount": service.restart.max_retries}
    health = service.healthcheck
    shown: dict[str, Any] = {
        "command": list(service.command or ()) or None,
        "entrypoint": list(service.entrypoint or ()) or None,
        "environment": {f"{name}={value}" for name, value in service.environment.items()},
        "labels": dict(service.labels),
        "identity": (service.working_dir or "", service.user or "", service.hostname or ""),
        "flags": (bool(service.init), service.privileged, service.read_only),
        "restart": None if service.restart.policy == "unless-stopped" else restart,
        "stop": (service.stop_signal or "", service.stop_grace_period // 10**9),
        "ports": ports,
        "exposed": {*ports, *service.expose},
        "terminal": (service.tty, service.stdin_open),
        "domainname": service.domainname or "",
        "groups": set(service.group_add),
        "names": (list(service.dns_opt), list(service.dns_search)),
        "namespaces": (service.pid or "", service.ipc or "", service.userns_mode or ""),
        "security": set(service.security_opt),
        "runtime": service.runtime or "",
        "cgroups": (service.cgroup_parent or "", list(service.device_cgroup_rules)),
        "cpu": (service.cpu_shares or 0, service.cpu_quota or 0, service.cpu_period or 0, service.cpuset or ""),
        "memory": (service.mem_reservation or 0, service.memswap_limit, service.mem_swappiness),
        "oom": (service.oom_kill_disable, service.oom_score_adj),
        "processes": service.pids_limit,
        "limits": (service.cpus or 0, service.mem_limit or 0, service.shm_size or 64 * 2**20),
        "capabilities": (set(service.cap_add), set(service.cap_drop)),
        "devices": {(device.source, device.target, device.permissions) for device in service.devices},
        "extra_hosts": set(service.extra_hosts),
        "dns": list(service.dns),
        "sysctls": dict(service.sysctls),
        "ulimits": {(name, limit.soft, limit.hard) for name, limit in service.ulimits.items()},
        "tmpfs": dict(entry.partition(":")[::2] for entry in service.tmpfs),
        "mounts": {_mount(mount) for mount in service.volumes},
        "mounts_of_others": ["ro" if source.read_only else "rw" for source in service.volumes_from],
        "logging": dict(service.logging.options) if service.logging else {},
        "health": None
        if health is None
        else (list(health.test or ()), health.interval, health.timeout, health.retries, health.start_period),
    }
    return shown


def _mount(mount: Mount) -> tuple[object, ...]:
    source = mount.source if mount.type == "bind" else None
    return (mount.type, source, mount.target, mount.read_only, mount.propagation or "")


def seen(inspection: Any, service: Service) -> dict[str, Any]:
    """The same of the inspection."""
    config, host = inspection["Config"], inspection["HostConfig"]
    health = config.get("Healthcheck")
    mounts = {
        (
            bind["Type"],
            bind["Source"],
            bind["Target"],
            bind.get("ReadOnly", False),
            bind.get("BindOptions", {}).get("Propagation", ""),
        )
        if bind["Type"] == "bind"
        else (bind["Type"], None, bind["Target"], bind.get("ReadOnly", False), "")
        for bind in host.get("Mounts") or ()
    }
    for written in host["Binds"] or ():
        source, target, *options = written.split(":")
        words = set(",".join(options).split(","))
        propagation = next(iter(words & {"rslave"}), "")
        is_bind = source.startswith("/")
        mounts.add(("bind" if is_bind else "volume", source if is_bind else None, target, "ro" in words, propagation))
    for target in config.get("Volumes") or ():
        if target not in {mount[2] for mount in mounts}:
            mounts.add(("volume", None, target, False, ""))
    own_labels = {name: value for name, value in config["Labels"].items() if not name.startswith("com.docker.compose.")}
    restart = dict(host["RestartPolicy"])
    restart["Name"] = restart["Name"] or "no"
    return {
        "command": config["Cmd"] if service.command else None,
        "entrypoint": config["Entrypoint"],
        "environment": {variable for variable in config["Env"] or () if not variable.startswith("PATH=")},
        "labels": own_labels,
        "identity": (config["WorkingDir"], config["User"], config["Hostname"] if service.hostname else ""),
        "flags": (bool(host.get("Init")), host["Privileged"], host["ReadonlyRootfs"]),
        # A service without `restart` is the one place where the agent's default is not Compose's.
        "restart": None if service.restart.policy == "unless-stopped" else restart,
        "stop": (config.get("StopSignal", "") if service.stop_signal else "", config.get("StopTimeout", 10)),
        "ports": host["PortBindings"] or {},
        "exposed": set(config.get("ExposedPorts") or {}),
        "terminal": (config["Tty"], config["OpenStdin"]),
        "domainname": config["Domainname"],
        "groups": set(host["GroupAdd"] or ()),
        "names": (host["DnsOptions"] or [], host["DnsSearch"] or []),
        "namespaces": (host["PidMode"], host["IpcMode"] if service.ipc else "", host["UsernsMode"]),
        # The engine adds what a privileged container has, and keeps the spelling.
        "security": {security_opt(option) for option in host["SecurityOpt"] or ()} if service.security_opt else set(),
        "runtime": host["Runtime"] if service.runtime else "",
        "cgroups": (host["CgroupParent"], host["DeviceCgroupRules"] or []),
        "cpu": (host["CpuShares"], host["CpuQuota"], host["CpuPeriod"], host["CpusetCpus"]),
        "memory": (
            host["MemoryReservation"],
            host["MemorySwap"] if service.memswap_limit else None,
            host["MemorySwappiness"],
        ),
        "oom": (bool(host["OomKillDisable"]), host["OomScoreAdj"]),
        "processes": host["PidsLimit"],
        "limits": (host["NanoCpus"], host["Memory"], host["ShmSize"]),
        "capabilities": tuple({name.removeprefix("CAP_") for name in host[key] or ()} for key in ("CapAdd", "CapDrop")),
        "devices": {
            tuple(device[key] for key in ("PathOnHost", "PathInContainer", "CgroupPermissions"))
            for device in host["Devices"] or ()
        },
        "extra_hosts": set(host["ExtraHosts"] or ()),
        "dns": host["Dns"] or [],
        "sysctls": host.get("Sysctls") or {},
        "ulimits": {(limit["Name"], limit["Soft"], limit["Hard"]) for limit in host["Ulimits"] or ()},
        "tmpfs": host.get("Tmpfs") or {},
        "mounts": mounts,
        "mounts_of_others": [written.partition(":")[2] or "rw" for written in host["VolumesFrom"] or ()],
        "logging": host["LogConfig"]["Config"],
        "health": None
        if health is None
        else (health["Test"], *(health.get(key) for key in ("Interval", "Timeout", "Retries", "StartPeriod"))),
    }


@pytest.mark.parametrize("name", SNIPPETS)
def test_the_container_that_compose_creates_is_what_we_say(
    created: tuple[dict[str, Service], dict[str, Any]], name: str
) -> None:
    services, inspections = created
    assert seen(inspections[name], services[name]) == expected(services[name])


# -------------------------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> bool:
    folder = tmp_path_factory.mktemp("version")
    write(folder, {})
    return "version 1." in compose(folder, PROJECT, "version").stdout


@pytest.mark.parametrize("name", REFUSED)
def test_what_compose_refuses_we_refuse(tmp_path: Path, version_1: bool, name: str) -> None:
    document = write(tmp_path, {"it": REFUSED[name], "flags": {}})
    run = compose(tmp_path, PROJECT, "config", "--quiet")
    taken = run.returncode == 0
    assert taken == (version_1 and name in LATE), run.stderr or "Compose takes it"
    with pytest.raises(Refused):
        validate_apps({PROJECT: document})
