"""The real engine alone: every Compose key as `docker inspect` shows it, and what it costs to look."""

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from structlog.testing import capture_logs

from device_agent.adapters.docker_files import holder_body
from device_agent.model.compose import (
    Device,
    File,
    Healthcheck,
    IpamConfig,
    IpamPool,
    Logging,
    Mount,
    Port,
    Restart,
    Ulimit,
)
from device_agent.model.errors import EngineError, Kind
from device_agent.model.observed import LABEL_SERVICE, LABEL_SPEC, Status
from device_agent.model.steps import Connect, CreateNetwork, CreateVolume, Endpoint, Fill
from tests.contract.engine_bench import APP, DockerBench

pytestmark = pytest.mark.docker


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
    ({}, {"HostConfig.RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "Config.StopTimeout": 10}),
    ({"image": f"{DockerBench.image}"}, {"Config.Image": f"{DockerBench.image}"}),
    ({"labels": {"team": "a"}}, {"Config.Labels.team": "a"}),
    ({"command": ("echo", "a b")}, {"Config.Cmd": ["echo", "a b"], "Config.Entrypoint": None}),
    ({"entrypoint": ("echo", "a")}, {"Config.Entrypoint": ["echo", "a"], "Config.Cmd": None}),
    ({"environment": {"A": "1", "B": "x=y z"}}, {"Config.Env": ["A=1", "B=x=y z", "PATH=/bin"]}),
    ({"working_dir": "/tmp"}, {"Config.WorkingDir": "/tmp"}),
    ({"user": "1000:1000"}, {"Config.User": "1000:1000"}),
    ({"hostname": "h1"}, {"Config.Hostname": "h1"}),
    ({"init": True}, {"HostConfig.Init": True}),
    (
        {"restart": Restart(policy="on-failure", max_retries=3)},
        {"HostConfig.RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
    ),
    ({"restart": Restart()}, {"HostConfig.RestartPolicy": {"Name": "unless-stopped", "MaximumRetryCount": 0}}),
    ({"stop_signal": "SIGINT"}, {"Config.StopSignal": "SIGINT"}),
    ({"stop_grace_period": 90_000_000_000}, {"Config.StopTimeout": 90}),
    (
        {
            "healthcheck": Healthcheck(
                test=("CMD-SHELL", "true"), interval=10**9, timeout=2 * 10**9, start_period=10**9, retries=4
            )
        },
        {
            "Config.Healthcheck": {
                "Test": ["CMD-SHELL", "true"],
                "Interval": 10**9,
                "Timeout": 2 * 10**9,
                "StartPeriod": 10**9,
                "Retries": 4,
            }
        },
    ),
    ({"healthcheck": Healthcheck(test=("NONE",))}, {"Config.Healthcheck": {"Test": ["NONE"]}}),
    (
        {
            "network_mode": "bridge",
            "ports": (
                Port(target=80, published="19081", host_ip="127.0.0.1"),
                Port(target=53, protocol="udp", published="19082-19083"),
                Port(target=443),
            ),
        },
        {
            "HostConfig.PortBindings": {
                "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "19081"}],
                "53/udp": [{"HostIp": "", "HostPort": "19082-19083"}],
                "443/tcp": [{"HostIp": "", "HostPort": ""}],
            },
            "Config.ExposedPorts": {"80/tcp": {}, "53/udp": {}, "443/tcp": {}},
            "HostConfig.NetworkMode": "bridge",
        },
    ),
    ({"network_mode": "host"}, {"HostConfig.NetworkMode": "host"}),
    ({"tmpfs": ("/run", "/tmp:size=64m")}, {"HostConfig.Tmpfs": {"/run": "", "/tmp": "size=64m"}}),
    ({"cpus": 500_000_000}, {"HostConfig.NanoCpus": 500_000_000}),
    ({"mem_limit": 64 << 20}, {"HostConfig.Memory": 64 << 20}),
    ({"shm_size": 32 << 20}, {"HostConfig.ShmSize": 32 << 20}),
    ({"cap_add": ("NET_ADMIN",), "cap_drop": ("ALL",)}, {"HostConfig.CapDrop": ["ALL"]}),
    ({"privileged": True}, {"HostConfig.Privileged": True}),
    ({"read_only": True}, {"HostConfig.ReadonlyRootfs": True}),
    (
        {"devices": (Device(source="/dev/null", target="/dev/x", permissions="r"),)},
        {"HostConfig.Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}]},
    ),
    ({"extra_hosts": ("db:10.0.0.9",)}, {"HostConfig.ExtraHosts": ["db:10.0.0.9"]}),
    ({"dns": ("10.0.0.53",)}, {"HostConfig.Dns": ["10.0.0.53"]}),
    ({"sysctls": {"net.ipv4.ip_forward": "1"}}, {"HostConfig.Sysctls": {"net.ipv4.ip_forward": "1"}}),
    (
        {"ulimits": {"nofile": Ulimit(soft=1000, hard=2000)}},
        {"HostConfig.Ulimits": [{"Name": "nofile", "Soft": 1000, "Hard": 2000}]},
    ),
    (
        {"logging": Logging(driver="json-file", options={"max-size": "1m", "max-file": "2"})},
        {"HostConfig.LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}},
    ),
]


@pytest.mark.parametrize(("keys", "shown"), KEYS, ids=["+".join(keys) or "defaults" for keys, _ in KEYS])
def test_every_key_is_what_inspect_shows(bench: DockerBench, keys: dict[str, Any], shown: dict[str, Any]) -> None:
    made = bench.created(bench.step(**keys))

    inspected = bench.docker.inspect_container(made.id)

    assert {path: part(inspected, path) for path in shown} == shown
    if "privileged" not in keys:  # it is asked for; not every machine grants it
        bench.engine.start(made.id)


def test_capabilities_are_added(bench: DockerBench) -> None:
    made = bench.created(bench.step(cap_add=("NET_ADMIN",)))

    added = bench.docker.inspect_container(made.id)["HostConfig"]["CapAdd"]

    assert [word.removeprefix("CAP_") for word in added] == ["NET_ADMIN"]


def test_labels_of_ours_outweigh_the_services(bench: DockerBench) -> None:
    step = bench.step(labels={"device-agent.app": "stolen", "team": "a"})
    made = bench.created(step)

    labels = bench.docker.inspect_container(made.id)["Config"]["Labels"]

    assert {name: labels[name] for name in (*step.labels, "team")} == {**step.labels, "team": "a"}


def test_mounts(bench: DockerBench, tmp_path_factory: pytest.TempPathFactory) -> None:
    volume = bench.volume()
    there = tmp_path_factory.mktemp("there")
    missing = there / "made" / "by-the-engine"
    mounts = (
        Mount(type="volume", target="/v", source=volume.name, read_only=True, nocopy=True),
        Mount(type="volume", target="/anonymous"),
        Mount(type="bind", target="/b", source=str(missing)),
        Mount(
            type="bind", target="/c", source=str(there), create_host_path=False, read_only=True, propagation="rprivate"
        ),
        Mount(type="tmpfs", target="/t", tmpfs_size=1 << 20, tmpfs_mode=0o700),
    )
    made = bench.started(bench.step(mounts=mounts))

    shown = {m["Destination"]: m for m in bench.docker.inspect_container(made.id)["Mounts"]}

    assert (shown["/v"]["Name"], shown["/v"]["RW"]) == (volume.name, False)
    assert shown["/anonymous"]["Type"] == "volume"
    assert (shown["/b"]["Source"], shown["/b"]["RW"]) == (str(missing), True)
    assert (shown["/c"]["Source"], shown["/c"]["RW"], shown["/c"]["Propagation"]) == (str(there), False, "rprivate")
    assert shown["/t"]["Type"] == "tmpfs"
    assert missing.is_dir()
    ids = bench.docker.exec_create(made.id, ["sh", "-c", "df -k /t | tail -1; stat -c %a /t"])
    words = bench.docker.exec_start(ids).split()
    assert (words[1], words[-1]) == (b"1024", b"700")


def test_what_belongs_to_a_volume_that_only_one_container_has(bench: DockerBench) -> None:
    mount = Mount(type="volume", target="/v", labels={"team": "a"})
    made = bench.created(bench.step(mounts=(mount,)))

    (shown,) = bench.docker.inspect_container(made.id)["Mounts"]

    assert bench.docker.inspect_volume(shown["Name"])["Labels"] == {"team": "a"}


def test_mounts_below_a_bind_mount(bench: DockerBench, tmp_path_factory: pytest.TempPathFactory) -> None:
    there = str(tmp_path_factory.mktemp("there"))
    mounts = tuple(
        Mount(type="bind", target=f"/{word}", source=there, recursive=word, read_only=True)
        for word in ("disabled", "writable")
    )
    made = bench.started(bench.step(mounts=mounts))

    shown = {each["Target"]: each for each in bench.docker.inspect_container(made.id)["HostConfig"]["Mounts"]}

    assert shown["/disabled"]["BindOptions"]["NonRecursive"] is True
    below = shown["/writable"].get("BindOptions", {}).get("ReadOnlyNonRecursive", False)
    assert below == (api(bench) >= (1, 44))


@pytest.mark.parametrize(
    ("mount", "since"),
    [
        (Mount(type="volume", target="/v", source="v", subpath="a"), (1, 45)),
        (Mount(type="bind", target="/v", source="/tmp", recursive="readonly", read_only=True), (1, 44)),
    ],
)
def test_what_an_engine_would_leave_out_unasked(bench: DockerBench, mount: Mount, since: tuple[int, int]) -> None:
    if mount.source == "v":
        mount = mount.model_copy(update={"source": bench.volume().name})
    if api(bench) >= since:
        bench.created(bench.step(mounts=(mount,)))
        return
    with pytest.raises(EngineError, match="it takes API") as caught:
        bench.engine.create(bench.step(mounts=(mount,)))
    assert caught.value.code == "bad_config"
    assert bench.find(bench.name("api")) is None


def test_what_is_left_out_is_told(bench: DockerBench) -> None:
    check = Healthcheck(test=("CMD", "true"), start_interval=10**9)
    with capture_logs() as logs:
        made = bench.created(bench.step(healthcheck=check))

    shown = bench.docker.inspect_container(made.id)["Config"]["Healthcheck"].get("StartInterval")
    told = any("start_interval" in entry.get("message", "") for entry in logs)
    assert (shown, told) == ((10**9, False) if api(bench) >= (1, 44) else (None, True))


def api(bench: DockerBench) -> tuple[int, ...]:
    return tuple(int(word) for word in bench.docker.api_version.split("."))


def test_a_host_path_that_must_be_there_is_not_made(
    bench: DockerBench, tmp_path_factory: pytest.TempPathFactory
) -> None:
    missing = tmp_path_factory.mktemp("there") / "missing"
    mount = Mount(type="bind", target="/c", source=str(missing), create_host_path=False)

    with pytest.raises(EngineError) as caught:
        bench.engine.create(bench.step(mounts=(mount,)))

    assert caught.value.code == "mount_failed"
    assert not missing.exists()


def test_networks_with_fixed_addresses_and_aliases(bench: DockerBench) -> None:
    networks = []
    for key, subnet in (("one", "10.213.77.0/24"), ("two", "10.213.78.0/24")):
        ipam = IpamConfig(config=(IpamPool(subnet=subnet, gateway=subnet.replace(".0/24", ".1")),))
        networks.append(CreateNetwork(bench.name(key), bench.labels(), driver="bridge", ipam=ipam, internal=True))
        bench.engine.create_network(networks[-1])
    first = Endpoint(networks[0].name, ("api", "web"), ipv4_address="10.213.77.9")
    made = bench.created(bench.step(network_mode=networks[0].name, endpoints=(first,)))
    bench.engine.connect(Connect(made.id, Endpoint(networks[1].name, ("api",), ipv4_address="10.213.78.9")))
    bench.engine.start(made.id)

    shown = bench.docker.inspect_container(made.id)["NetworkSettings"]["Networks"]

    assert {name: endpoint["IPAddress"] for name, endpoint in shown.items()} == {
        networks[0].name: "10.213.77.9",
        networks[1].name: "10.213.78.9",
    }
    assert {"api", "web"} <= set(shown[networks[0].name]["Aliases"])
    assert "api" in shown[networks[1].name]["Aliases"]
    network = bench.docker.inspect_network(networks[0].name)
    assert (network["Internal"], network["Driver"]) == (True, "bridge")
    assert network["IPAM"]["Config"] == [{"Subnet": "10.213.77.0/24", "Gateway": "10.213.77.1"}]

    taken = bench.created(bench.step("second", network_mode=networks[0].name, endpoints=(first,)))
    with pytest.raises(EngineError) as caught:
        bench.engine.start(taken.id)
    assert caught.value.code == "address_in_use"


def test_volumes_with_options(bench: DockerBench) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    bench.engine.create_volume(CreateVolume(bench.name("v"), bench.labels(), driver="local", driver_opts=options))

    shown = bench.docker.inspect_volume(bench.name("v"))

    assert (shown["Driver"], shown["Options"]) == ("local", options)
    assert bench.labels().items() <= shown["Labels"].items()


def test_root_in_the_container_cannot_change_its_files(bench: DockerBench) -> None:
    """Nor take them away, or put others in their place; and nothing shows what is in them."""
    files = (
        File(target="/app/deep/one.conf", content="what-is-in-it"),
        File(target="/run/secrets/key", content="the-secret", mode=0o400),
    )
    labels = bench.labels(**{LABEL_SERVICE: "api", LABEL_SPEC: "s1"})
    volume = CreateVolume(bench.name("files"), labels, driver="local")
    bench.engine.fill(Fill(volume, files, bench.image))
    made = bench.started(replace(bench.step(user="0", files=files), files=volume.name))

    def code(script: str, user: str = "0") -> int:
        started = bench.docker.exec_create(made.id, ["sh", "-c", script], user=user)["Id"]
        bench.docker.exec_start(started)
        found: int = bench.docker.exec_inspect(started)["ExitCode"]
        return found

    for path in ("/app/deep/one.conf", "/run/secrets/key", "/.device-agent/files/1"):
        for attempt in (
            "echo x > {0}",
            "rm -f {0}",
            "mv {0} /tmp/x",
            "echo x > /tmp/x && mv /tmp/x {0}",
            "chmod 666 {0}",
        ):
            assert code(attempt.format(path)) != 0, attempt.format(path)
    assert code("cat /run/secrets/key") == 0
    assert code("cat /run/secrets/key || cat /.device-agent/files/1", user="1000") != 0
    assert bench.files(made.id, *(file.target for file in files)) == files
    shown = bench.docker.inspect_container(made.id)
    assert {mount["Destination"]: mount["RW"] for mount in shown["Mounts"]} == {
        "/.device-agent": False,
        "/app/deep/one.conf": False,
        "/run/secrets/key": False,
    }
    everything = json.dumps([shown, bench.docker.inspect_volume(volume.name)])
    assert not any(file.content in everything for file in files)


@pytest.mark.parametrize("target", ["/etc", "/etc/passwd/one", "/proc/one", "/sys/one"])
def test_a_file_where_none_can_be_is_the_targets_fault(bench: DockerBench, target: str) -> None:
    """So that its release is rolled back, and not tried for ever: the file itself is there."""
    files = (File(target=target, content="1"),)
    volume = CreateVolume(bench.name("api-files"), bench.labels(**{LABEL_SERVICE: "api"}), driver="local")
    bench.engine.fill(Fill(volume, files, bench.image))
    bench.engine.create(replace(bench.step(files=files), files=volume.name))

    with pytest.raises(EngineError) as caught:
        bench.engine.start(bench.name("api"))

    assert (caught.value.code, caught.value.kind) == ("bad_config", Kind.TARGET)


@pytest.mark.parametrize("kind", ["volume", "tmpfs"])
@pytest.mark.parametrize("target", ["/etc/passwd", "/proc/one"])
def test_a_mount_where_none_can_be_is_the_targets_fault(
    bench: DockerBench, kind: Literal["volume", "tmpfs"], target: str
) -> None:
    mounts = (Mount(type=kind, target=target),)

    def create_and_start() -> None:
        bench.engine.create(replace(bench.step(), mounts=mounts))
        bench.engine.start(bench.name("api"))

    with pytest.raises(EngineError) as caught:
        create_and_start()

    assert (caught.value.code, caught.value.kind) == ("bad_config", Kind.TARGET)


def test_what_is_left_of_a_filling_that_was_cut_off_is_known_as_the_services(bench: DockerBench) -> None:
    volume = CreateVolume(bench.name("files"), bench.labels(**{LABEL_SERVICE: "api", LABEL_SPEC: "s1"}))
    bench.engine.create_volume(volume)
    body = holder_body(Fill(volume, (), bench.image))
    bench.docker.create_container_from_config(body, bench.name("holder"))  # type: ignore[no-untyped-call]

    found = bench.seen(bench.name("holder"))

    assert (found.app, found.service, found.spec, found.status) == (APP, "api", "", Status.CREATED)
    bench.engine.remove(found.id)
    bench.engine.remove_volume(volume.name)


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({"mem_limit": 1000}, "bad_config"),
        ({"cpus": 10**15}, "bad_config"),
        ({"user": "nobody77"}, "bad_command"),
        ({"command": ("nope",)}, "bad_command"),
        ({"devices": (Device(source="/dev/nope", target="/dev/nope"),)}, "device_missing"),
        ({"ulimits": {"nope": Ulimit(soft=1, hard=1)}}, "start_failed"),
        ({"network_mode": "container:nope"}, "no_such_container"),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_what_the_engine_refuses(bench: DockerBench, keys: dict[str, Any], code: str) -> None:
    def create_and_start() -> None:
        bench.engine.create(bench.step(**keys))
        bench.engine.start(bench.name("api"))

    with pytest.raises(EngineError) as caught:
        create_and_start()

    assert caught.value.code == code


def test_a_listing_that_shows_another_end_is_enough_to_look_again(bench: DockerBench) -> None:
    made = bench.started(bench.step(command=("sh", "-c", "[ -e /tmp/again ] && exit 4; touch /tmp/again; exit 3")))
    first = bench.becomes(made.name, lambda c: c.exit_code == 3, "it has ended")

    bench.docker.start(made.id)
    bench.docker.wait(made.id)

    second = bench.becomes(made.name, lambda c: c.exit_code == 4, "it has ended again")
    assert first.started_at != second.started_at


def test_no_connection_is_left_behind(bench: DockerBench) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count

    made = bench.started(bench.step())
    bench.engine.observe(None)
    before = open_files()

    for _ in range(20):
        bench.engine.observe(frozenset({made.id}))
        bench.engine.start(made.id)
        with bench.listening():
            pass

    assert open_files() <= before + 1


def test_a_look_with_nothing_to_do_costs_little_more_than_the_bare_list(bench: DockerBench) -> None:
    # No timed test: a ratio far off the figure (it is 1.4), so that a lost cache or a call too many is noticed.
    for number in range(3):
        bench.started(bench.step(f"s{number}"))

    def median(call: Any) -> float:
        times = []
        for _ in range(40):
            begun = time.perf_counter()
            call()
            times.append(time.perf_counter() - begun)
        return statistics.median(times)

    filters = {"label": f"device-agent.device={bench.owner}"}
    with bench.listening():
        bench.engine.observe()
        look = median(bench.engine.observe)
    bare = median(lambda: bench.docker.containers(all=True, filters=filters))

    assert look < 6 * bare
