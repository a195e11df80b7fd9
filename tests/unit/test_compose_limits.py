"""The keys that say how much of the host a container may use, and `deploy`, which says some of it once more."""

import pytest

from device_agent.model.target import Json
from device_agent.model.validate import validate_apps
from tests.compose_app import SERVICE, app, canonical, dump, refused

MIB = 2**20
SECOND = 10**9

SAME: list[tuple[str, Json, list[Json]]] = [
    ("cpu_shares", 512, [512, "512", 512.0]),
    ("cpu_shares", None, [0]),
    ("cpu_quota", 50_000, [50_000, "50000"]),
    ("cpu_quota", -1, [-1, "-1"]),
    ("cpu_quota", None, [0]),
    ("cpu_period", 100_000, [100_000, "100000"]),
    ("cpu_period", None, [0]),
    *(("cpuset", value, [value]) for value in ("0", "0,1", "0-3", "0-1,3,5-7")),
    ("mem_reservation", 64 * MIB, ["64m", 64 * MIB, "67108864"]),
    ("mem_reservation", None, [0]),
    ("memswap_limit", -1, [-1, "-1"]),
    ("memswap_limit", None, [0]),
    ("mem_swappiness", 60, [60, "60"]),
    ("mem_swappiness", 0, [0]),
    ("oom_kill_disable", True, [True, "true"]),
    ("oom_kill_disable", None, [False]),
    ("oom_score_adj", -500, [-500, "-500"]),
    ("oom_score_adj", None, [0]),
    ("pids_limit", 100, [100, "100"]),
    ("pids_limit", -1, [-1]),
    ("pids_limit", None, [0]),
    ("scale", None, [1, "1", 1.0]),
    ("scale", 3, [3, "3", 3.0]),
    ("scale", 0, [0, "0"]),
]


@pytest.mark.parametrize(
    ("key", "expected", "value"), [(key, expected, value) for key, expected, values in SAME for value in values]
)
def test_spellings(key: str, expected: Json, value: Json) -> None:
    assert canonical(key, value) == expected


def service(**keys: Json) -> Json:
    return dump(app({"image": "api", **keys}))["services"]["api"]


def resources(**sections: Json) -> Json:
    return {"resources": sections}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"blkio_config": {"weight": 300}}, {"blkio_weight": 300}),
        ({"blkio_config": {"weight": 0}}, {}),
        ({"blkio_config": {}}, {}),
        *(
            (
                {"blkio_config": {key: [{"path": "/dev/sda", "rate": rate}]}},
                {"blkio_devices": {key: [{"path": "/dev/sda", "limit": 2**20}]}},
            )
            for key in ("device_read_bps", "device_write_bps")
            for rate in ("1mb", 2**20, str(2**20))
        ),
        *(
            (
                {"blkio_config": {key: [{"path": "/dev/sda", "rate": rate}, {"path": "/dev/sdb", "rate": 0}]}},
                {"blkio_devices": {key: [{"path": "/dev/sda", "limit": 120}]}},
            )
            for key in ("device_read_iops", "device_write_iops")
            for rate in (120, "120")
        ),
        (
            {"blkio_config": {"weight": 300, "weight_device": [{"path": "/dev/sda", "weight": 400}]}},
            {"blkio_weight": 300, "blkio_devices": {"weight_device": [{"path": "/dev/sda", "limit": 400}]}},
        ),
        ({"mem_limit": "64m", "memswap_limit": "128m"}, {"mem_limit": 64 * MIB, "memswap_limit": 128 * MIB}),
        ({"mem_limit": "64m", "mem_reservation": "64m"}, {"mem_limit": 64 * MIB, "mem_reservation": 64 * MIB}),
        ({"cpu_quota": 20_000, "cpu_period": 50_000}, {"cpu_quota": 20_000, "cpu_period": 50_000}),
        ({"deploy": None}, {}),
        ({"deploy": {}}, {}),
        ({"deploy": {"replicas": 1}}, {}),
        *(({"deploy": {"replicas": value}}, {"scale": 3}) for value in (3, "3")),
        ({"deploy": {"replicas": 0}}, {"scale": 0}),
        ({"scale": 2, "deploy": {"replicas": 2}}, {"scale": 2}),
        (
            {"deploy": resources(limits={"cpus": "0.5", "memory": "64M", "pids": 10})},
            {"cpus": SECOND // 2, "mem_limit": 64 * MIB, "pids_limit": 10},
        ),
        ({"deploy": resources(limits={"cpus": 0.5, "pids": "-1"})}, {"cpus": SECOND // 2, "pids_limit": -1}),
        ({"cpus": 0.5, "deploy": resources(limits={"cpus": "0.50"})}, {"cpus": SECOND // 2}),
        ({"cpus": 0, "deploy": resources(limits={"cpus": "0.50"})}, {"cpus": SECOND // 2}),
        ({"cpus": 0.5, "deploy": resources(limits={"cpus": 0})}, {"cpus": SECOND // 2}),
        ({"deploy": resources(reservations={"memory": "64m"})}, {"mem_reservation": 64 * MIB}),
        *(
            ({"deploy": {"restart_policy": {"condition": condition}}}, {"restart": {"policy": policy}})
            for condition, policy in (("none", "no"), ("no", "no"), ("any", "always"), ("always", "always"))
        ),
        ({"deploy": {"restart_policy": {"condition": "unless-stopped"}}}, {}),
        ({"deploy": {"restart_policy": {}}}, {"restart": {"policy": "always"}}),
        (
            {"restart": "always", "deploy": {"restart_policy": {"condition": "on-failure", "max_attempts": 3}}},
            {"restart": {"policy": "on-failure", "max_retries": 3}},
        ),
    ],
)
def test_what_is_said_in_more_than_one_place(keys: Json, expected: Json) -> None:
    assert {key: value for key, value in service(**keys).items() if key not in ("image", "networks")} == expected


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        *(("cpu_shares", value, "") for value in (-1, "many", 1.5, True)),
        *(("cpu_quota", value, "") for value in (-2, 999, "50ms")),
        *(("cpu_period", value, "") for value in (-1, 999, 1_000_001, "50ms")),
        *(("cpuset", value, "") for value in (0, "", "0-", "a", "0,,1", "0, 1")),
        *(("mem_reservation", value, "") for value in (-1, "64x", None)),
        *(("memswap_limit", value, "") for value in (-2, "64x")),
        *(("mem_swappiness", value, "") for value in (-1, 101, "x")),
        *(("oom_kill_disable", value, "") for value in (1, None)),
        *(("oom_score_adj", value, "") for value in (-1001, 1001, None)),
        *(("pids_limit", value, "") for value in (-2, "many")),
        *(("blkio_config", value, where) for value, where in ((5, ""), ({"weight": 5}, "/weight"))),
        *(("blkio_config", {"weight": value}, "/weight") for value in (1001, "300")),
        ("blkio_config", {"weight_device": [{"path": "/dev/a", "weight": 5}]}, "/weight_device/0/weight"),
        (
            "blkio_config",
            {"device_read_bps": [{"path": "dev/a", "rate": "x"}]},
            "/device_read_bps/0/path /device_read_bps/0/rate",
        ),
        ("blkio_config", {"device_read_iops": [{"path": "/dev/a"}]}, "/device_read_iops/0/rate"),
        ("blkio_config", {"device_write_iops": {}, "device_write_bps": [5]}, "/device_write_iops /device_write_bps/0"),
        *(("scale", value, "") for value in ("x", -1, 1.5, None, True)),
        ("scale", 5000, ""),
        ("deploy", {"replicas": 5000}, "/replicas"),
        ("deploy", [], ""),
        ("deploy", {"replicas": "x", "restart_policy": 5, "resources": []}, "/replicas /restart_policy /resources"),
        (
            "deploy",
            {"restart_policy": {"condition": "never", "max_attempts": -1}},
            "/restart_policy/condition /restart_policy/max_attempts",
        ),
        ("deploy", {"restart_policy": {"condition": "any", "max_attempts": 3}}, "/restart_policy/max_attempts"),
        (
            "deploy",
            resources(limits={"cpus": "x", "memory": 5, "pids": -2}),
            "/resources/limits/cpus /resources/limits/memory /resources/limits/pids",
        ),
        ("deploy", resources(reservations={"memory": "x"}), "/resources/reservations/memory"),
    ],
)
def test_wrong_values(key: str, value: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", key: value}))
    assert code == "invalid"
    assert set(problems) == {f"{SERVICE}/{key}{place}" for place in (where.split(" ") if where else [""])}


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"cpus": 0.5, "deploy": resources(limits={"cpus": 1})}, "deploy/resources/limits/cpus"),
        ({"mem_limit": "1g", "deploy": resources(limits={"memory": "2g"})}, "deploy/resources/limits/memory"),
        ({"pids_limit": 1, "deploy": resources(limits={"pids": 2})}, "deploy/resources/limits/pids"),
        (
            {"mem_reservation": "1g", "deploy": resources(reservations={"memory": "2g"})},
            "deploy/resources/reservations/memory",
        ),
        ({"scale": 2, "deploy": {"replicas": 3}}, "deploy/replicas"),
        ({"cpus": 0.5, "cpu_quota": 5000}, "cpu_quota"),
        ({"cpu_period": 5000, "deploy": resources(limits={"cpus": 1})}, "cpu_period"),
        ({"memswap_limit": "1g"}, "memswap_limit"),
        ({"memswap_limit": "1g", "mem_limit": "2g"}, "memswap_limit"),
        ({"mem_reservation": "2g", "mem_limit": "1g"}, "mem_reservation"),
        (
            {"mem_limit": "1g", "deploy": resources(reservations={"memory": "2g"})},
            "deploy/resources/reservations/memory",
        ),
    ],
)
def test_what_does_not_go_together(keys: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", **keys}))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{where}"])


@pytest.mark.parametrize(
    ("key", "value", "where", "message"),
    [
        ("blkio_config", {"wieght": 5}, "/wieght", "not a key"),
        ("deploy", resources(limit={}), "/resources/limit", "not a key"),
        ("deploy", resources(limits={"devices": []}), "/resources/limits/devices", "not a key"),
    ],
)
def test_what_is_not_supported(key: str, value: Json, where: str, message: str) -> None:
    code, problems = refused(app({"image": "api", key: value}))
    assert code == "unsupported"
    assert list(problems) == [f"{SERVICE}/{key}{where}"]
    assert message in problems[f"{SERVICE}/{key}{where}"]


def test_what_one_host_has_no_use_for_is_a_warning() -> None:
    deploy = {
        "mode": "global",
        "resources": {"reservations": {"cpus": "1", "generic_resources": []}},
        "restart_policy": {"delay": "5s", "window": "1m"},
    }
    warnings = validate_apps({"web": app({"image": "api", "deploy": deploy})}).warnings
    assert [warning.pointer.removeprefix(f"{SERVICE}/deploy/") for warning in warnings] == [
        "mode",
        "resources/reservations/cpus",
        "resources/reservations/generic_resources",
        "restart_policy/delay",
        "restart_policy/window",
    ]
