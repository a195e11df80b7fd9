"""Every key of a service, a network and a volume: each spelling to one canonical value, each wrong value to a pointer.

Canonical values are written as the dump that is hashed: `model_dump(mode="json", exclude_defaults=True)`.
"""

import pytest

from device_agent.model.target import Json
from tests.compose_app import HINT, SERVICE, app, canonical, dump, refused

SECOND = 10**9
SAME: list[tuple[str, Json, list[Json]]] = [
    # key, canonical value, spellings
    ("image", "nginx:1", ["nginx:1"]),
    ("command", ["a", "b c"], [["a", "b c"], "a 'b c'"]),
    ("command", [], [[], ""]),
    ("command", None, [None]),
    ("entrypoint", ["/bin/sh", "-c"], [["/bin/sh", "-c"], "/bin/sh -c"]),
    ("entrypoint", [], [[], ""]),
    ("entrypoint", None, [None]),
    ("environment", {"A": "1", "B": "", "C": "x=y"}, [{"A": 1, "B": "", "C": "x=y"}, ["A=1", "B=", "C=x=y"]]),
    ("environment", {"A": "1.5", "B": "true"}, [{"A": 1.5, "B": True}, {"A": "1.5", "B": "true"}]),
    ("environment", {"A": "${B} $$ $C"}, [{"A": "${B} $$ $C"}, ["A=${B} $$ $C"]]),
    ("environment", {"A": "2", "x-b": "1"}, [["A=1", "x-b=1", "A=2"], {"x-b": 1, "A": 2}]),
    ("environment", None, [{}, []]),
    ("working_dir", "/srv/app", ["/srv/app", "/srv/app/", "/srv//./app"]),
    ("user", "1000:1000", ["1000:1000"]),
    ("hostname", "api.example", ["api.example"]),
    ("labels", {"a": "1", "b": ""}, [{"a": 1, "b": None}, ["a=1", "b"], {"a": "1", "b": ""}]),
    ("init", True, [True, "true", "yes"]),
    ("init", False, [False, "no"]),
    ("restart", {"policy": "no"}, ["no"]),
    ("restart", {"policy": "always"}, ["always"]),
    ("restart", {"policy": "on-failure"}, ["on-failure", "on-failure:0"]),
    ("restart", {"policy": "on-failure", "max_retries": 3}, ["on-failure:3"]),
    ("restart", None, ["unless-stopped"]),
    ("stop_signal", "SIGINT", ["SIGINT"]),
    ("stop_grace_period", 90 * SECOND, ["90s", "1m30s", "1.5m"]),
    ("stop_grace_period", 0, ["0s", "0"]),
    ("stop_grace_period", None, ["10s"]),
    (
        "ports",
        [{"target": 80, "published": "8080"}],
        [
            ["8080:80"],
            ["8080:80/tcp"],
            [{"target": 80, "published": 8080}],
            [{"target": "80", "published": "8080"}],
            [
                {
                    "target": 80,
                    "published": "8080",
                    "protocol": "tcp",
                    "mode": "ingress",
                    "name": "web",
                    "app_protocol": "http",
                }
            ],
            ["8080:80", {"target": 80, "published": 8080, "mode": "host"}],
        ],
    ),
    (
        "ports",
        [{"target": 80}, {"target": 443, "published": "1-9", "protocol": "udp", "host_ip": "::1"}],
        [
            ["[::1]:1-9:443/udp", 80],
            ["80", {"target": 443, "published": "1-9", "protocol": "udp", "host_ip": "::1"}],
            [
                {"target": 443, "published": "1-9", "protocol": "UDP", "host_ip": "0::1"},
                {"target": 80, "published": "0"},
            ],
        ],
    ),
    (
        "ports",
        [{"target": 80, "published": "80"}, {"target": 81, "published": "81"}],
        [["80-81:80-81"], ["81:81", "80:80"]],
    ),
    ("ports", None, [[]]),
    ("networks", {"front": {}, "back": {}}, [["front", "back"], {"front": None, "back": {}}]),
    ("networks", {"default": {}}, [[], {}, ["default"], {"default": None}]),
    (
        "networks",
        {"front": {"aliases": ["a", "b"], "ipv4_address": "10.0.0.9", "ipv6_address": "fd00::9", "priority": 5}},
        [
            {"front": {"aliases": ["b", "a"], "ipv4_address": "10.0.0.9", "ipv6_address": "fd00:0::9", "priority": 5}},
            {"front": {"aliases": ["a", "b"], "ipv4_address": "10.0.0.9", "ipv6_address": "fd00::9", "priority": 5.0}},
        ],
    ),
    ("network_mode", "host", ["host"]),
    ("network_mode", "bridge", ["bridge"]),
    ("network_mode", "none", ["none"]),
    ("network_mode", "service:db", ["service:db"]),
    (
        "volumes",
        [{"type": "volume", "source": "data", "target": "/d"}],
        [
            ["data:/d"],
            ["data:/d:rw"],
            ["data:/d/"],
            [{"type": "volume", "source": "data", "target": "/d"}],
            [{"type": "volume", "source": "data", "target": "/d", "volume": {}, "bind": {}, "consistency": "cached"}],
        ],
    ),
    (
        "volumes",
        [{"type": "volume", "source": "data", "target": "/d", "read_only": True, "nocopy": True}],
        [
            ["data:/d:ro,nocopy"],
            [{"type": "volume", "source": "data", "target": "/d", "read_only": "true", "volume": {"nocopy": True}}],
        ],
    ),
    ("volumes", [{"type": "volume", "target": "/d"}], [["/d"], [{"type": "volume", "target": "/d"}]]),
    (
        "volumes",
        [
            {
                "type": "bind",
                "source": "/srv",
                "target": "/s",
                "propagation": "rslave",
                "selinux": "z",
                "read_only": True,
            }
        ],
        [
            ["/srv:/s:ro,rslave,z"],
            [
                {
                    "type": "bind",
                    "source": "/srv/",
                    "target": "/s",
                    "read_only": True,
                    "bind": {"propagation": "rslave", "selinux": "z", "create_host_path": True},
                }
            ],
        ],
    ),
    (
        "volumes",
        [{"type": "bind", "source": "/srv", "target": "/s", "create_host_path": False}],
        [[{"type": "bind", "source": "/srv", "target": "/s", "bind": {"create_host_path": False}}]],
    ),
    (
        "volumes",
        [{"type": "tmpfs", "target": "/t", "tmpfs_size": 2**20, "tmpfs_mode": 0o1777}],
        [
            [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1m", "mode": "1777"}}],
            [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": 1048576, "mode": 1023}}],
        ],
    ),
    ("volumes", [{"type": "tmpfs", "target": "/t"}], [[{"type": "tmpfs", "target": "/t"}]]),
    ("tmpfs", ["/run"], ["/run", ["/run"], ["/run/"]]),
    ("tmpfs", ["/run:size=1m", "/tmp"], [["/run:size=1m", "/tmp"]]),
    (
        "depends_on",
        {"db": {}},
        [
            ["db"],
            {"db": {"condition": "service_started"}},
            {"db": {"condition": "service_started", "required": True}},
            {"db": {"condition": "service_started", "restart": False}},
        ],
    ),
    (
        "depends_on",
        {"db": {"condition": "service_healthy", "required": False}},
        [{"db": {"condition": "service_healthy", "required": False}}],
    ),
    (
        "depends_on",
        {"db": {"condition": "service_completed_successfully"}},
        [{"db": {"condition": "service_completed_successfully"}}],
    ),
    ("depends_on", None, [[], {}]),
    (
        "healthcheck",
        {"test": ["CMD-SHELL", "a b"]},
        [{"test": "a b"}, {"test": ["CMD-SHELL", "a b"], "disable": False}],
    ),
    (
        "healthcheck",
        {
            "test": ["CMD", "a"],
            "interval": 90 * SECOND,
            "timeout": SECOND // 2,
            "retries": 3,
            "start_period": 5 * SECOND,
            "start_interval": SECOND,
        },
        [
            {
                "test": ["CMD", "a"],
                "interval": "1m30s",
                "timeout": "500ms",
                "retries": retries,
                "start_period": "5s",
                "start_interval": "1s",
            }
            for retries in (3, "3", 3.0)
        ],
    ),
    ("healthcheck", {"test": ["NONE"]}, [{"disable": True}, {"test": ["NONE"]}, {"test": ["NONE"], "interval": "5s"}]),
    ("healthcheck", {"interval": 5 * SECOND}, [{"interval": "5s"}]),
    ("healthcheck", None, [{}, {"disable": False}, {"test": []}, {"interval": "0s"}]),
    ("cpus", SECOND // 2, [0.5, "0.5", ".50"]),
    ("cpus", None, [0, "0"]),
    ("mem_limit", 64 * 2**20, [67108864, "67108864", "64m", "64MB", "65536k"]),
    ("mem_limit", None, [0, "0"]),
    ("shm_size", 2**30, ["1g", 2**30]),
    ("cap_add", ["NET_ADMIN", "SYS_TIME"], [["SYS_TIME", "NET_ADMIN"], ["CAP_NET_ADMIN", "cap_sys_time"]]),
    ("cap_drop", ["ALL"], [["ALL"], ["all"]]),
    ("privileged", True, [True, "true"]),
    ("privileged", None, [False]),
    ("read_only", True, [True, "yes"]),
    (
        "devices",
        [{"source": "/dev/a", "target": "/dev/a"}],
        [["/dev/a"], ["/dev/a:/dev/a:rwm"], [{"source": "/dev/a"}], [{"source": "/dev/a", "permissions": "mwr"}]],
    ),
    (
        "devices",
        [{"source": "/dev/a", "target": "/dev/b", "permissions": "rw"}],
        [["/dev/a:/dev/b:wr"], [{"source": "/dev/a", "target": "/dev/b", "permissions": "rw"}]],
    ),
    (
        "extra_hosts",
        ["a:10.0.0.1", "b:::1"],
        [
            ["b=::1", "a:10.0.0.1"],
            ["b=[::1]", "a=10.0.0.1"],
            {"a": "10.0.0.1", "b": "::1"},
            {"b": ["[::1]"], "a": ["10.0.0.1"]},
        ],
    ),
    ("extra_hosts", ["a:host-gateway"], [["a:host-gateway"], {"a": "host-gateway"}]),
    ("dns", ["10.0.0.53"], ["10.0.0.53", ["10.0.0.53"]]),
    ("dns", ["10.0.0.53", "fd00::53"], [["10.0.0.53", "fd00::53"]]),
    ("sysctls", {"net.core.somaxconn": "1024"}, [{"net.core.somaxconn": 1024}, ["net.core.somaxconn=1024"]]),
    (
        "ulimits",
        {"nofile": {"soft": 5, "hard": 5}},
        [{"nofile": 5}, {"nofile": "5"}, {"nofile": {"soft": 5, "hard": 5}}],
    ),
    ("ulimits", {"core": {"soft": 0, "hard": -1}}, [{"core": {"soft": 0, "hard": -1}}]),
    ("ulimits", {"core": {"soft": -1, "hard": -1}}, [{"core": -1}]),
    (
        "logging",
        {"driver": "json-file", "options": {"max-file": "3", "max-size": "10m", "tag": ""}},
        [
            {"driver": "json-file", "options": {"max-file": value, "max-size": "10m", "tag": tag}}
            for value, tag in ((3, None), ("3", ""))
        ],
    ),
    ("logging", None, [{}]),
]


@pytest.mark.parametrize(
    ("key", "expected", "value"), [(key, expected, value) for key, expected, values in SAME for value in values]
)
def test_spellings(key: str, expected: Json, value: Json) -> None:
    assert canonical(key, value) == expected


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        # What is wrong is in `where`, relative to the key.
        *(("image", value, "") for value in ("", None, 5, "a b")),
        *(("command", value, where) for value, where in ((5, ""), ({}, ""), (["a", 1, None], "/1 /2"), ("a 'b", ""))),
        *(
            ("environment", value, where)
            for value, where in (("A=1", ""), (None, ""), ({"A": None, "B": {}, "C": []}, "/A /B /C"))
        ),
        *(
            ("environment", value, where)
            for value, where in ((["A"], "/0"), (["=a", 5], "/0 /1"), ({"": "a", "a=b": "c"}, "/ /a=b"))
        ),
        ("environment", ["A=1", "A=1"], "/1"),
        ("environment", {"a/b~c": None}, "/a~1b~0c"),
        *(("working_dir", value, "") for value in ("srv", "", 5)),
        *(("user", value, "") for value in (1000, "", None)),
        *(("hostname", value, "") for value in (5, "")),
        *(
            ("labels", value, where)
            for value, where in (({"a": []}, "/a"), ({"device-agent.app": "x"}, "/device-agent.app"))
        ),
        ("labels", ["a=1", "device-agent.app=x"], "/1"),
        *(("init", value, "") for value in (1, "maybe", None)),
        *(("restart", value, "") for value in (False, "", "sometimes", "always:3", None)),
        *(("stop_signal", value, "") for value in (15, "", "term!")),
        *(("stop_grace_period", value, "") for value in (10, "10", "", None)),
        *(("ports", value, where) for value, where in (("80:80", ""), ({}, ""), (["x", 80, "80/icmp"], "/0 /2"))),
        ("ports", [{"published": 80}], "/0/target"),
        (
            "ports",
            [{"target": 0, "published": "x", "protocol": "icmp", "host_ip": "a", "mode": "x"}],
            "/0/target /0/published /0/protocol /0/host_ip /0/mode",
        ),
        ("ports", [None, True, 1.5], "/0 /1 /2"),
        *(
            ("networks", value, where)
            for value, where in ((["nowhere"], "/0"), ({"nowhere": None}, "/nowhere"), (["front", "front"], "/1"))
        ),
        (
            "networks",
            {"front": {"ipv4_address": "::1", "ipv6_address": "x", "priority": "5", "aliases": "a"}},
            "/front/ipv4_address /front/ipv6_address /front/priority /front/aliases",
        ),
        ("networks", {"front": 5}, "/front"),
        *(("network_mode", value, "") for value in ("front", "service:nobody", "service:", 5, None)),
        *(
            ("volumes", value, where)
            for value, where in (("data:/d", ""), (["./a:/d", "~/a:/e", "data:/f"], "/0 /1"), (["other:/d"], "/0"))
        ),
        ("volumes", ["data:/d", "/srv:/d/"], "/1"),
        ("volumes", ["data:/d", {"type": "volume", "target": "/d", "source": "other"}], "/1/target /1/source"),
        (
            "volumes",
            [{"target": "/d"}, {"type": "volume"}, {"type": "bind", "target": "/d"}],
            "/0/type /1/target /2/source",
        ),
        ("volumes", [{"type": "bind", "source": "./a", "target": "d"}], "/0/target"),
        ("volumes", [{"type": "bind", "source": "./a", "target": "/d"}], "/0/source"),
        ("volumes", [{"type": "tmpfs", "source": "a", "target": "/d"}], "/0/source"),
        ("volumes", [{"type": "volume", "target": "/d", "bind": {"propagation": "rshared"}}], "/0/bind"),
        (
            "volumes",
            [{"type": "tmpfs", "target": "/d", "tmpfs": {"size": "x", "mode": "9"}}],
            "/0/tmpfs/size /0/tmpfs/mode",
        ),
        ("volumes", [{"type": "disk", "target": "/d"}], "/0/type"),
        *(("tmpfs", value, where) for value, where in (("run", ""), (["run", "/"], "/0 /1"), (5, ""))),
        *(
            ("depends_on", value, where)
            for value, where in ((["nobody"], "/0"), ({"nobody": {"condition": "service_started"}}, "/nobody"))
        ),
        ("depends_on", {"db": {}}, "/db/condition"),
        ("depends_on", {"db": {"condition": "service_ready", "required": "yes"}}, "/db/condition /db/required"),
        *(("depends_on", value, where) for value, where in (("db", ""), ({"db": None}, "/db"), ([5], "/0"))),
        (
            "healthcheck",
            {"test": ["true"], "interval": 5, "retries": -1, "timeout": "1ns"},
            "/test/0 /interval /retries /timeout",
        ),
        ("healthcheck", {"test": "true", "disable": True}, "/test"),
        ("healthcheck", [], ""),
        *(("cpus", value, "") for value in (-1, "half", None)),
        *(("mem_limit", value, "") for value in (-1, "64x", 1.5, None)),
        *(("shm_size", value, "") for value in ("-1", True)),
        *(("cap_add", value, where) for value, where in (("ALL", ""), (["NET ADMIN", 5], "/0 /1"))),
        *(("privileged", value, "") for value in (1, None)),
        *(("read_only", value, "") for value in (0, "")),
        *(
            ("devices", value, where)
            for value, where in (
                ("/dev/a", ""),
                (["dev/a", "/dev/a:x"], "/0 /1"),
                ([{"target": "/dev/a"}], "/0/source"),
            )
        ),
        ("devices", [{"source": "a", "permissions": "x"}], "/0/source /0/permissions"),
        *(
            ("extra_hosts", value, where)
            for value, where in (("a:1.1.1.1", ""), (["a", "a:b"], "/0 /1"), ({"a": "b", "c": ["d"]}, "/a /c/0"))
        ),
        ("extra_hosts", {"a:b": "1.1.1.1"}, "/a:b"),
        *(("dns", value, where) for value, where in (("a", ""), (["10.0.0.1", "a"], "/1"), (5, ""))),
        *(("sysctls", value, where) for value, where in ((5, ""), ({"a": {}}, "/a"))),
        *(
            ("ulimits", value, where)
            for value, where in (([], ""), ({"NOFILE": 1, "core": "x", "cpu": -2}, "/NOFILE /core /cpu"))
        ),
        (
            "ulimits",
            {"core": {"soft": 2}, "cpu": {"soft": 2, "hard": 1}, "nofile": {"soft": -1, "hard": 1}},
            "/core/hard /cpu /nofile",
        ),
        ("logging", {"driver": 5, "options": {"a": True, "b": []}}, "/driver /options/a /options/b"),
        ("logging", "json-file", ""),
    ],
)
def test_wrong_values(key: str, value: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", key: value}))
    assert code == "invalid"
    assert set(problems) == {f"{SERVICE}/{key}{place}" for place in (where.split(" ") if where else [""])}


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [("image", "nginx:${TAG}", ""), ("mem_limit", "${MEMORY:-64m}", ""), ("ports", ["${PORT}:80"], "/0")],
)
def test_a_variable_where_it_makes_a_value_wrong_gets_a_hint(key: str, value: Json, where: str) -> None:
    _, problems = refused(app({"image": "api", key: value}))
    assert HINT in problems[f"{SERVICE}/{key}{where}"]


@pytest.mark.parametrize(
    ("key", "value", "where", "message"),
    [
        ("build", ".", "", "build on the device is not supported: publish an image"),
        ("pull_policy", "build", "", "build on the device is not supported: publish an image"),
        *((key, "x", "", HINT) for key in ("env_file", "label_file", "extends", "profiles")),
        ("imag", "x", "", "not a key that Compose has here"),
        ("deploy", {"sclae": 2}, "/sclae", "not a key"),
        ("networks", {"front": {"gw_priority": 1}}, "/front/gw_priority", "`priority`"),
        ("networks", {"front": {"interface_name": "eth0"}}, "/front/interface_name", "`mac_address`"),
        ("networks", {"front": {"link_local_ips": []}}, "/front/link_local_ips", "`ipv4_address`"),
        ("networks", {"front": {"driver_opts": {}}}, "/front/driver_opts", "where it is declared"),
        ("cpu_count", 2, "", "`cpus`"),
        ("cpu_percent", 50, "", "`cpus`"),
        ("cpu_rt_period", "1400us", "", "`cpu_shares`"),
        ("cpu_rt_runtime", "400ms", "", "`cpu_shares`"),
        ("credential_spec", {"file": "a.json"}, "", "`secrets`"),
        ("isolation", "hyperv", "", "`runtime`"),
        ("models", ["llm"], "", "run a service"),
        ("post_start", [{"command": "a"}], "", "its own command"),
        ("pre_stop", [{"command": "a"}], "", "its own command"),
        ("provider", {"type": "a"}, "", "`image`"),
        ("use_api_socket", True, "", "`volumes`"),
        ("volumes", [{"type": "volume", "target": "/d", "sourec": "a"}], "/0/sourec", "not a key"),
        ("ports", [{"target": 80, "host": 80}], "/0/host", "not a key"),
        ("healthcheck", {"start": "5s"}, "/start", "not a key"),
        ("logging", {"option": {}}, "/option", "not a key"),
        ("ulimits", {"core": {"soft": 1, "hard": 1, "max": 1}}, "/core/max", "not a key"),
        ("devices", [{"source": "/dev/a", "path": "/dev/b"}], "/0/path", "not a key"),
        ("devices", ["vendor.com/gpu=0"], "/0", "CDI"),
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
        ({"network_mode": "host", "networks": ["front"]}, "network_mode"),
        ({"network_mode": "host", "ports": [80]}, "ports"),
        ({"network_mode": "service:db", "ports": [80]}, "ports"),
        ({"network_mode": "service:db", "hostname": "a"}, "hostname"),
        ({"network_mode": "service:db", "dns": "10.0.0.1"}, "dns"),
        ({"network_mode": "service:db", "extra_hosts": ["a:10.0.0.1"]}, "extra_hosts"),
        ({"tmpfs": "/d", "volumes": ["data:/d"]}, "tmpfs"),
    ],
)
def test_keys_that_exclude_each_other(keys: dict[str, Json], where: str) -> None:
    code, problems = refused(app({"image": "api", **keys}))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{where}"])


def test_keys_that_only_seem_to_exclude_each_other() -> None:
    """An empty `networks` says nothing."""
    restarts = {"db": {"condition": "service_started", "restart": True, "required": True}}
    service = {"image": "api", "network_mode": "service:db", "networks": {}, "ports": [], "depends_on": restarts}
    assert dump(app(service))["services"]["api"] == {
        "image": "api",
        "network_mode": "service:db",
        "depends_on": {"db": {"restart": True}},
    }


@pytest.mark.parametrize(
    ("section", "value", "expected"),
    [
        ("networks", None, {}),
        ("networks", {}, {}),
        ("networks", {"ipam": {}, "external": False, "driver_opts": {}, "labels": []}, {}),
        ("networks", {"external": True}, {"external": True, "name": "it"}),
        ("networks", {"external": "true", "name": "it"}, {"external": True, "name": "it"}),
        ("networks", {"external": {"name": "shared"}}, {"external": True, "name": "shared"}),
        ("networks", {"external": True, "name": "shared", "x-a": 1}, {"external": True, "name": "shared"}),
        ("networks", {"external": True, "name": "host"}, {"external": True, "name": "host"}),
        (
            "networks",
            {
                "name": "n",
                "driver": "bridge",
                "driver_opts": {"a": 1, "b": "2"},
                "internal": "true",
                "attachable": True,
                "enable_ipv6": True,
                "labels": ["l=1"],
                "ipam": {
                    "driver": "default",
                    "options": {"o": "1"},
                    "config": [
                        {
                            "subnet": "10.5.0.0/16",
                            "ip_range": "10.5.1.0/24",
                            "gateway": "10.5.0.1",
                            "aux_addresses": {"h": "10.5.0.5"},
                        }
                    ],
                },
            },
            {
                "name": "n",
                "driver": "bridge",
                "driver_opts": {"a": "1", "b": "2"},
                "internal": True,
                "attachable": True,
                "enable_ipv6": True,
                "labels": {"l": "1"},
                "ipam": {
                    "driver": "default",
                    "options": {"o": "1"},
                    "config": [
                        {
                            "subnet": "10.5.0.0/16",
                            "ip_range": "10.5.1.0/24",
                            "gateway": "10.5.0.1",
                            "aux_addresses": {"h": "10.5.0.5"},
                        }
                    ],
                },
            },
        ),
        ("volumes", None, {}),
        ("volumes", {"external": True}, {"external": True, "name": "it"}),
        (
            "volumes",
            {"name": "v", "driver": "local", "driver_opts": {"size": 1}, "labels": {"l": None}},
            {"name": "v", "driver": "local", "driver_opts": {"size": "1"}, "labels": {"l": ""}},
        ),
    ],
)
def test_networks_and_volumes(section: str, value: Json, expected: Json) -> None:
    document = {"services": {"api": {"image": "api"}}, section: {"it": value}}
    assert dump(document)[section]["it"] == expected


@pytest.mark.parametrize(
    ("section", "value", "code", "where"),
    [
        ("networks", {"external": True, "driver": "bridge", "internal": False}, "invalid", "/driver /internal"),
        ("networks", {"external": {"name": "a"}, "name": "b"}, "invalid", "/external"),
        ("networks", {"external": {"nam": "a"}}, "unsupported", "/external/nam"),
        (
            "networks",
            {"external": 5, "name": "", "driver_opts": {"a": None}},
            "invalid",
            "/external /name /driver_opts/a",
        ),
        ("networks", {"name": "host"}, "invalid", "/name"),
        (
            "networks",
            {"ipam": {"config": [{"subnet": "x", "gateway": "y"}, 5]}},
            "invalid",
            "/ipam/config/0/subnet /ipam/config/0/gateway /ipam/config/1",
        ),
        ("networks", {"ipam": {"confg": []}}, "unsupported", "/ipam/confg"),
        ("networks", {"labels": {"device-agent.network": "x"}}, "invalid", "/labels/device-agent.network"),
        ("networks", {"enable_ipv4": False}, "unsupported", "/enable_ipv4"),
        ("networks", [], "invalid", ""),
        ("volumes", {"external": True, "labels": {"a": "b"}}, "invalid", "/labels"),
        ("volumes", {"name": "a/b"}, "invalid", "/name"),
        ("volumes", {"size": "1g"}, "unsupported", "/size"),
    ],
)
def test_wrong_networks_and_volumes(section: str, value: Json, code: str, where: str) -> None:
    document = {"services": {"api": {"image": "api"}}, section: {"it": value}}
    found, problems = refused(document)
    assert (found, set(problems)) == (
        code,
        {f"/apps/web/{section}/it{place}" for place in (where.split(" ") if where else [""])},
    )


@pytest.mark.parametrize(
    ("key", "value", "field", "expected"),
    [
        ("x-state", "running", "state", None),
        ("x-state", "stopped", "state", "stopped"),
        ("x-update", {}, "update", None),
        ("x-update", {"strategy": "recreate"}, "update", None),
        *(
            ("x-update", {"strategy": strategy}, "update", {"strategy": strategy})
            for strategy in ("start-first", "stop-first", "delete-first")
        ),
    ],
)
def test_keys_of_our_own(key: str, value: Json, field: str, expected: Json) -> None:
    assert dump(app({"image": "api", key: value}))["services"]["api"].get(field) == expected


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [("x-state", "paused", ""), ("x-state", None, ""), ("x-update", {"strategy": "x"}, "/strategy")],
)
def test_wrong_values_of_our_own(key: str, value: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", key: value}))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{key}{where}"])
