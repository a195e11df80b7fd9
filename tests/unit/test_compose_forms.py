"""Units and short forms, value by value. Sources: the Compose Specification, and the engine's command line."""

import pytest

from device_agent.model import compose_addresses as addresses
from device_agent.model import compose_forms as forms
from device_agent.model import compose_units as units
from device_agent.model.compose import Device, Mount, Port, Restart
from device_agent.model.compose_units import NotSupported, NotValid

MINUTE = 60 * 10**9


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (67108864, 64 * 2**20),
        (67108864.0, 64 * 2**20),
        ("67108864", 64 * 2**20),
        ("64m", 64 * 2**20),
        ("64M", 64 * 2**20),
        ("64mb", 64 * 2**20),
        ("64MB", 64 * 2**20),
        ("64MiB", 64 * 2**20),
        ("64 m", 64 * 2**20),
        ("1.5g", 3 * 2**29),
        (".5k", 512),
        ("1.k", 1024),
        ("300b", 300),
        ("1.9b", 1),
        ("2t", 2 * 2**40),
        ("1p", 2**50),
        ("0", 0),
    ],
)
def test_sizes(value: object, expected: int) -> None:
    assert units.size(value) == expected


@pytest.mark.parametrize(
    "value", ["", "m", "64x", "64mm", "-1", "1e3", "64ib", "6 4m", "9" * 400, "9p", -1, 1.5, True, None, []]
)
def test_no_sizes(value: object) -> None:
    with pytest.raises(NotValid):
        units.size(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30s", 30 * 10**9),
        ("1m30s", 90 * 10**9),
        ("1h5m30s20ms", 65 * MINUTE + 30 * 10**9 + 20 * 10**6),
        ("2h32m", 152 * MINUTE),
        ("10us", 10_000),
        ("10µs", 10_000),
        ("10ns", 10),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("0", 0),
        ("0s", 0),
        ("1d", 24 * 60 * MINUTE),
        ("30s1m", 90 * 10**9),
    ],
)
def test_durations(value: str, expected: int) -> None:
    assert units.duration(value) == expected


@pytest.mark.parametrize(
    "value", ["", "30", "s", "1 s", "-1s", "1x", "1m30", "1s;", "200w", "1" * 70 + "s", 30, 0, 1.5, None, True]
)
def test_no_durations(value: object) -> None:
    with pytest.raises(NotValid):
        units.duration(value)


def test_durations_of_a_healthcheck() -> None:
    assert units.health_duration("1ms") == 1_000_000
    assert units.health_duration("0s") is None
    with pytest.raises(NotValid):
        units.health_duration("999us")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.1, 10**8),
        ("0.1", 10**8),
        (2, 2 * 10**9),
        ("2", 2 * 10**9),
        (".5", 5 * 10**8),
        (1e-9, 1),
        (0, None),
        ("0.0", None),
    ],
)
def test_cpus(value: object, expected: int | None) -> None:
    assert units.cpus(value) == expected


@pytest.mark.parametrize(
    "value", [-1, "-1", "a", "", "1e3", "inf", "nan", float("inf"), 1e300, "9" * 60, True, None, [1]]
)
def test_no_cpus(value: object) -> None:
    with pytest.raises(NotValid):
        units.cpus(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        ("", ""),
        (1, "1"),
        (-7, "-7"),
        (1.0, "1"),
        (1.5, "1.5"),
        (0.00001, "1e-05"),
        (1e16, "10000000000000000"),
        (1e21, "1e+21"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_scalars_as_strings(value: object, expected: str) -> None:
    assert units.scalar_text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("Yes", True), ("on", True), ("false", False), ("No", False), (True, True)]
)
def test_booleans(value: object, expected: bool) -> None:
    assert units.boolean(value) is expected


@pytest.mark.parametrize("value", [0, 1, "1", "", None, "truth", []])
def test_no_booleans(value: object) -> None:
    with pytest.raises(NotValid):
        units.boolean(value)


@pytest.mark.parametrize(("value", "expected"), [("1777", 0o1777), ("01777", 0o1777), ("0o700", 0o700), (1023, 0o1777)])
def test_file_modes(value: object, expected: int) -> None:
    assert units.file_mode(value) == expected


@pytest.mark.parametrize("value", ["789", "", "77777", 4096, -1, True])
def test_no_file_modes(value: object) -> None:
    with pytest.raises(NotValid):
        units.file_mode(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("no", Restart(policy="no")),
        ("always", Restart(policy="always")),
        ("unless-stopped", Restart()),
        ("on-failure", Restart(policy="on-failure")),
        ("on-failure:3", Restart(policy="on-failure", max_retries=3)),
    ],
)
def test_restart(value: str, expected: Restart) -> None:
    assert forms.restart(value) == expected


@pytest.mark.parametrize(
    "value", [False, True, "", "never", "always:3", "on-failure:", "on-failure:-1", "on-failure:x", 1, None]
)
def test_no_restart(value: object) -> None:
    with pytest.raises(NotValid):
        forms.restart(value)


def test_a_bare_no_is_told_to_be_quoted() -> None:
    with pytest.raises(NotValid, match='write "no" in quotes'):
        forms.restart(value=False)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("echo hello", ("echo", "hello")),
        ("sh -c 'a; b | c'", ("sh", "-c", "a; b | c")),
        ('a "b c" d\\ e', ("a", "b c", "d e")),
        ("a # b", ("a", "#", "b")),
        ("echo $HOME $$", ("echo", "$HOME", "$$")),
        ("", ()),
    ],
)
def test_words(value: str, expected: tuple[str, ...]) -> None:
    assert forms.words(value) == expected


def test_no_words() -> None:
    with pytest.raises(NotValid, match="no closing quotation"):
        forms.words("echo 'a")


def port(target: int, published: str | None = None, protocol: str = "tcp", host_ip: str | None = None) -> Port:
    return Port.model_validate({"target": target, "published": published, "protocol": protocol, "host_ip": host_ip})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (80, [port(80)]),
        ("80", [port(80)]),
        ("8080:80", [port(80, "8080")]),
        ("8080:80/UDP", [port(80, "8080", "udp")]),
        ("80/sctp", [port(80, protocol="sctp")]),
        ("0:80", [port(80)]),
        (":80", [port(80)]),
        ("127.0.0.1:8080:80", [port(80, "8080", host_ip="127.0.0.1")]),
        ("127.0.0.1::80", [port(80, host_ip="127.0.0.1")]),
        ("[::1]:8080:80/udp", [port(80, "8080", "udp", "::1")]),
        ("::1:8080:80", [port(80, "8080", host_ip="::1")]),
        ("3000-3001", [port(3000), port(3001)]),
        ("3000-3001:4000-4001", [port(4000, "3000"), port(4001, "3001")]),
        ("3000-3005:80", [port(80, "3000-3005")]),
        (
            "127.0.0.1:5000-5001:5000-5001/udp",
            [port(5000, "5000", "udp", "127.0.0.1"), port(5001, "5001", "udp", "127.0.0.1")],
        ),
    ],
)
def test_ports(value: object, expected: list[Port]) -> None:
    assert addresses.ports(value, most=100) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", "80:", "a:80", "80/icmp", "0", "65536", "70000:80", "3005-3000", "3000-3002:80-81", "1-2-3:4"),
        *("host:80:80", "1.2.3.4.5:80:80", "-1:80", "80-", "8 0", 1.5, True, None, [], 0, 65536),
    ],
)
def test_no_ports(value: object) -> None:
    with pytest.raises(NotValid):
        addresses.ports(value, most=100)


def test_more_ports_than_allowed_are_not_even_made() -> None:
    with pytest.raises(NotValid, match="too many"):
        addresses.ports("1-65535:1-65535", most=100)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/data", Mount(type="volume", target="/data")),
        ("data:/var/lib//db/", Mount(type="volume", source="data", target="/var/lib/db")),
        ("data:/d:ro", Mount(type="volume", source="data", target="/d", read_only=True)),
        ("data:/d:rw,nocopy", Mount(type="volume", source="data", target="/d", nocopy=True)),
        ("data:/d:z", Mount(type="volume", source="data", target="/d")),
        ("/srv/../etc:/e", Mount(type="bind", source="/etc", target="/e")),
        ("/srv:/s:ro,rshared", Mount(type="bind", source="/srv", target="/s", read_only=True, propagation="rshared")),
        ("/srv:/s:Z,cached", Mount(type="bind", source="/srv", target="/s", selinux="Z")),
    ],
)
def test_mounts(value: str, expected: Mount) -> None:
    assert forms.mount(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", "/", ":/d", "data:", "data:/d:", "data:d", "data:/", "a:/d", "C:\\a:/d", "data:/d:ro:x", "data:/d:rox"),
        *("./a:/d", "../a:/d", ".:/d", "~/a:/d", "relative", "data:/d:rshared", "/srv:/s:nocopy", "data:/a\0"),
        *(5, None, []),
    ],
)
def test_no_mounts(value: object) -> None:
    with pytest.raises(NotValid):
        forms.mount(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/dev/a", Device(source="/dev/a", target="/dev/a")),
        ("/dev/a:/dev/b", Device(source="/dev/a", target="/dev/b")),
        ("/dev/a:/dev/b:mr", Device(source="/dev/a", target="/dev/b", permissions="rm")),
    ],
)
def test_devices(value: str, expected: Device) -> None:
    assert forms.device(value) == expected


@pytest.mark.parametrize(
    "value", ["", "dev/a", "/dev/a:b", "/dev/a:/b:x", "/dev/a:/b:", "/dev/a:/b:r:w", "/dev/a:rwm", 1]
)
def test_no_devices(value: object) -> None:
    with pytest.raises(NotValid):
        forms.device(value)


def test_cdi_devices_are_not_supported() -> None:
    with pytest.raises(NotSupported):
        forms.device("vendor.com/gpu=0")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a:10.0.0.1", ("a", ["10.0.0.1"])),
        ("a=10.0.0.1", ("a", ["10.0.0.1"])),
        ("a:::1", ("a", ["::1"])),
        ("a=[::1]", ("a", ["::1"])),
        ("a:0:0:0:0:0:0:0:1", ("a", ["::1"])),
        ("a=10.0.0.1,10.0.0.2", ("a", ["10.0.0.1", "10.0.0.2"])),
        ("a:host-gateway", ("a", ["host-gateway"])),
    ],
)
def test_extra_hosts(value: str, expected: tuple[str, list[str]]) -> None:
    assert addresses.extra_host(value) == expected


@pytest.mark.parametrize("value", ["", "a", "a:", ":10.0.0.1", "a:b", "a:b=10.0.0.1", "a=10.0.0.1,", "a=10.0.0.256", 1])
def test_no_extra_hosts(value: object) -> None:
    with pytest.raises(NotValid):
        addresses.extra_host(value)


DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    "value",
    [
        "nginx",
        "nginx:1.25",
        f"nginx{DIGEST}",
        f"a/b:1{DIGEST}",
        "registry.example:5000/a/b_c/d-e:V1.2_3",
        "[::1]:5000/a",
        "sha256:" + "a" * 64,
        "localhost/a",
        "a__b",
        "a--b",
    ],
)
def test_images(value: str) -> None:
    assert forms.image(value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Nginx",
        "a b",
        "a:",
        "a@sha256:00",
        "-a",
        "a//b",
        "/a",
        "a:-1",
        "https://a/b",
        "a" * 600,
        "a_-b",
        "a___b",
        "a:1\n",
        "${IMAGE}",
        1,
        None,
    ],
)
def test_no_images(value: object) -> None:
    with pytest.raises(NotValid):
        forms.image(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true && false", ("CMD-SHELL", "true && false")),
        (["CMD", "true"], ("CMD", "true")),
        (["CMD-SHELL", "true || false"], ("CMD-SHELL", "true || false")),
        (["NONE"], ("NONE",)),
        ([], None),
    ],
)
def test_health_tests(value: object, expected: tuple[str, ...] | None) -> None:
    assert forms.health_test(value) == expected


@pytest.mark.parametrize(
    "value", ["", ["true"], ["CMD"], ["CMD-SHELL"], ["NONE", "x"], ["CMD", 1], [None], {}, 1, None]
)
def test_no_health_tests(value: object) -> None:
    with pytest.raises(NotValid):
        forms.health_test(value)


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (forms.capability, "cap_net_admin", "NET_ADMIN"),
        (forms.capability, "ALL", "ALL"),
        (forms.signal, "SIGRTMIN+3", "SIGRTMIN+3"),
        (forms.signal, "15", "15"),
        (forms.tmpfs, "/run/", "/run"),
        (forms.tmpfs, "/run:size=64m,mode=1777", "/run:size=64m,mode=1777"),
        (addresses.network_mode, "service:db", "service:db"),
        (addresses.network_mode, "host", "host"),
        (addresses.ip_address, "2001:DB8::0001", "2001:db8::1"),
        (addresses.ip_version(4), "10.0.0.1", "10.0.0.1"),
        (addresses.subnet, "172.28.0.0/16", "172.28.0.0/16"),
        (forms.container_path, "//a/./b/..", "/a"),
        (addresses.published_port, 8080, "8080"),
        (addresses.published_port, "8080-8080", "8080"),
        (addresses.published_port, "8080-8090", "8080-8090"),
        (addresses.published_port, "", None),
        (addresses.published_port, 0, None),
    ],
)
def test_other_forms(parse, value, expected) -> None:  # type: ignore[no-untyped-def]
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (forms.capability, "NET ADMIN"),
        (forms.signal, "TERMINATE!"),
        (forms.tmpfs, "run"),
        (forms.tmpfs, "/"),
        (addresses.network_mode, "service:"),
        (addresses.network_mode, "front"),
        (addresses.ip_address, "10.0.0"),
        (addresses.ip_version(4), "::1"),
        (addresses.ip_version(6), "10.0.0.1"),
        (addresses.subnet, "172.28.0.0/64"),
        (forms.container_path, "a/b"),
        (addresses.published_port, "80a"),
        (addresses.published_port, 70000),
        (units.text, ""),
        (units.text, "a\0b"),
        (units.integer, "1.0"),
        (units.number, "1"),
    ],
)
def test_wrong_values_of_other_forms(parse, value) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(NotValid) as refusal:
        parse(value)
    assert not isinstance(refusal.value, NotSupported)


def test_the_network_of_a_foreign_container_is_not_supported() -> None:
    with pytest.raises(NotSupported):
        addresses.network_mode("container:x")
