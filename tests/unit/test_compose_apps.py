"""Whole apps: what is implied becomes explicit, what is wrong is named everywhere at once, spellings do not count."""

import copy
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.model.canonical import canonical
from device_agent.model.compose import App, Dependency, NetworkDefinition, ServiceNetwork
from device_agent.model.errors import Problem, Refused
from device_agent.model.target import Json
from device_agent.model.validate import validate_apps

ANY: Json = {"image": "any"}


def parse(document: Json) -> App:
    return validate_apps({"web": document}).apps["web"]


def refuse(apps: Json) -> Refused:
    with pytest.raises(Refused) as refusal:
        validate_apps(apps)
    return refusal.value


def pointers(refusal: Refused) -> list[str]:
    return [problem.pointer for problem in refusal.problems]


def test_a_service_without_a_network_is_on_the_default_one() -> None:
    app = parse({"services": {"a": ANY}})
    assert app.services["a"].networks == {"default": ServiceNetwork()}
    assert app.networks == {"default": NetworkDefinition()}


def test_the_default_network_is_there_only_for_who_uses_it() -> None:
    app = parse(
        {"services": {"a": {**ANY, "network_mode": "host"}, "b": {**ANY, "networks": ["n"]}}, "networks": {"n": None}}
    )
    assert app.services["a"].networks == {}
    assert list(app.networks) == ["n"]


def test_a_declared_default_network_is_kept() -> None:
    app = parse({"services": {"a": ANY}, "networks": {"default": {"internal": True}}})
    assert app.networks["default"].internal


def test_one_name_is_of_one_container_and_the_engine_must_take_it() -> None:
    assert parse({"services": {"a": {**ANY, "container_name": "one"}}}).services["a"].container_name == "one"
    named = {"services": {"a": {**ANY, "container_name": "one"}}}
    refusal = refuse({"web": {"services": {**named["services"], "b": named["services"]["a"]}}, "shop": named})
    assert {problem.pointer: problem.message for problem in refusal.problems} == {
        "/apps/web/services/a/container_name": "`one` is the name of shop/a already",
        "/apps/web/services/b/container_name": "`one` is the name of shop/a already",
    }
    for name in ("-one", "a/b", "o", "", 7):
        assert pointers(refuse({"web": {"services": {"a": {**ANY, "container_name": name}}}})) == [
            "/apps/web/services/a/container_name"
        ]


@pytest.mark.parametrize(
    ("condition", "other", "why"),
    [
        ("service_completed_successfully", {}, 'run for ever (restart: unless-stopped): give it restart: "no"'),
        ("service_completed_successfully", {"restart": "no"}, ""),
        ("service_healthy", {"healthcheck": {"disable": True}}, "its health check is switched off"),
        ("service_healthy", {}, ""),
        ("service_started", {"healthcheck": {"disable": True}}, ""),
    ],
)
def test_what_can_never_be_met_is_a_warning(condition: str, other: Json, why: str) -> None:
    api = {**ANY, "depends_on": {"db": {"condition": condition}}}
    warnings = validate_apps({"web": {"services": {"api": api, "db": {**ANY, **other}}}}).warnings
    assert [warning.pointer for warning in warnings] == (
        ["/apps/web/services/api/depends_on/db/condition"] if why else []
    )
    assert all(why in warning.message for warning in warnings)


def test_two_containers_cannot_have_one_name() -> None:
    beside = {**ANY, "x-update": {"strategy": "start-first"}, "container_name": "one"}
    (problem,) = refuse({"web": {"services": {"a": beside}}}).problems
    assert problem.pointer == "/apps/web/services/a/x-update"
    assert "container_name" in problem.message
    scaled = {**ANY, "scale": 2, "container_name": "one"}
    assert pointers(refuse({"web": {"services": {"a": scaled}}})) == ["/apps/web/services/a/container_name"]


@pytest.mark.parametrize(
    "keys",
    [
        {"networks": {"lan": {"ipv4_address": "10.9.0.2"}}},
        {"networks": {"lan": {"ipv6_address": "fd00::2"}}},
        {"networks": {"lan": {"mac_address": "02:42:ac:11:00:02"}}},
        {"mac_address": "02:42:ac:11:00:02"},
    ],
)
def test_two_containers_cannot_have_one_address(keys: dict[str, Any]) -> None:
    beside = {**ANY, "x-update": {"strategy": "start-first"}, **keys}
    (problem,) = refuse({"web": {"services": {"a": beside}, "networks": {"lan": {}}}}).problems
    assert problem.pointer == "/apps/web/services/a/x-update"
    assert "fixed address" in problem.message


def test_who_shares_a_network_depends_on_its_owner() -> None:
    assert parse({"services": {"a": {**ANY, "network_mode": "service:b"}, "b": ANY}}).services["a"].depends_on == {
        "b": Dependency(restart=True)
    }


def test_a_condition_on_the_owner_of_the_network_is_kept() -> None:
    service = {**ANY, "network_mode": "service:b", "depends_on": {"b": {"condition": "service_healthy"}}}
    assert parse({"services": {"a": service, "b": ANY}}).services["a"].depends_on["b"].condition == "service_healthy"


def test_a_dependency_that_is_not_required_may_be_missing() -> None:
    service = {**ANY, "depends_on": {"tool": {"condition": "service_started", "required": False}}}
    parsed = validate_apps({"web": {"services": {"a": service}}})
    assert parsed.apps["web"].services["a"].depends_on == {}
    assert parsed.warnings == (
        Problem("/apps/web/services/a/depends_on/tool", "the app has no service `tool`: not waited for"),
    )


def test_what_has_no_effect_is_told_sorted_by_pointer() -> None:
    x = {"x-more": {"build": 1}}
    document = {
        **x,
        "name": "web",
        "version": "3.9",
        "x-extends": "fleet",
        "services": {
            "a": {
                **ANY,
                **x,
                "attach": False,
                "develop": {"watch": []},
                "labels": {"x-label": "1"},
                "environment": {"x-variable": "1"},
                "deploy": {
                    "mode": "global",
                    "placement": {},
                    "labels": {},
                    "endpoint_mode": "vip",
                    "update_config": {},
                    "rollback_config": {},
                    **x,
                },
                "ports": [{"target": 80, **x}],
                "volumes": [{"type": "bind", "source": "/a", "target": "/b", "consistency": "cached", "bind": x, **x}],
                "networks": {"n": x},
                "depends_on": {"x-b": {"condition": "service_started", **x}},
                "healthcheck": {"test": "true", **x},
                "logging": {"driver": "local", **x},
                "devices": [{"source": "/dev/a", **x}],
                "ulimits": {"core": {"soft": 1, "hard": 1, **x}},
            },
            "x-b": ANY,
        },
        "networks": {"n": {"ipam": {"config": [x], **x}, **x}},
        "volumes": {"v": x},
    }
    parsed = validate_apps({"web": document})
    a = "/apps/web/services/a"
    assert [warning.pointer for warning in parsed.warnings] == sorted(
        [
            *(f"/apps/web/{key}" for key in ("x-more", "name", "version", "x-extends")),
            *(
                "/apps/web/networks/n/x-more",
                "/apps/web/networks/n/ipam/x-more",
                "/apps/web/networks/n/ipam/config/0/x-more",
            ),
            "/apps/web/volumes/v/x-more",
            *(f"{a}/{key}" for key in ("x-more", "attach", "develop")),
            *(
                f"{a}/deploy/{key}"
                for key in (
                    "mode",
                    "placement",
                    "labels",
                    "endpoint_mode",
                    "update_config",
                    "rollback_config",
                    "x-more",
                )
            ),
            *(
                f"{a}/{key}/x-more"
                for key in ("ports/0", "volumes/0", "volumes/0/bind", "networks/n", "depends_on/x-b", "healthcheck")
            ),
            *(f"{a}/{key}/x-more" for key in ("logging", "devices/0", "ulimits/core")),
            f"{a}/volumes/0/consistency",
        ]
    )
    assert parsed.apps["web"].services["a"].labels == {"x-label": "1"}
    assert parsed.apps["web"].services["a"].environment == {"x-variable": "1"}


def test_everything_that_is_wrong_is_named_at_once() -> None:
    refusal = refuse(
        {
            "web": {
                "services": {
                    "api": {
                        "build": ".",
                        "environment": {"A": None},
                        "networks": ["q"],
                        "volumes": ["nope:/x", "./a:/b"],
                    },
                    "a b": ANY,
                    "c": [],
                },
                "models": {},
                "volumes": {"v/w": None},
            },
            "Upper": {"services": {"a": ANY}},
            "none": None,
            "empty": {},
            "void": {"services": {}},
            "list": {"services": []},
        }
    )
    assert refusal.code == "unsupported"
    assert refusal.message == "2 keys are not supported, 13 values are not valid"
    assert pointers(refusal) == [
        "/apps/Upper",
        "/apps/empty/services",
        "/apps/list/services",
        "/apps/none",
        "/apps/void/services",
        "/apps/web/models",
        "/apps/web/services/a b",
        "/apps/web/services/api/build",
        "/apps/web/services/api/environment/A",
        "/apps/web/services/api/image",
        "/apps/web/services/api/networks/0",
        "/apps/web/services/api/volumes/0",
        "/apps/web/services/api/volumes/1",
        "/apps/web/services/c",
        "/apps/web/volumes/v~1w",
    ]


@pytest.mark.parametrize(
    ("key", "hint"),
    [("include", "cloud-sim publish does it"), ("models", "run a service that serves one"), ("service", "not a key")],
)
def test_keys_of_an_app_that_are_not_supported(key: str, hint: str) -> None:
    refusal = refuse({"web": {"services": {"a": ANY}, key: []}})
    assert (refusal.code, refusal.message, pointers(refusal)) == (
        "unsupported",
        "1 key is not supported",
        [f"/apps/web/{key}"],
    )
    assert hint in refusal.problems[0].message


def service(*depends_on: str, **keys: Json) -> Json:
    return {**ANY, "depends_on": list(depends_on), **keys}


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ({"a": service("a")}, {"a/depends_on": "a → a"}),
        ({"a": service("b"), "b": service("c"), "c": service("a")}, {"c/depends_on": "a → b → c → a"}),
        ({"a": service("b"), "b": service("c"), "c": service("b")}, {"c/depends_on": "b → c → b"}),
        ({"a": service("b"), "b": {**ANY, "network_mode": "service:a"}}, {"b/network_mode": "a → b → a"}),
        (
            {"a": service("b"), "b": service("a"), "c": service("d"), "d": service("c")},
            {"b/depends_on": "a → b → a", "d/depends_on": "c → d → c"},
        ),
    ],
)
def test_cycles(services: Json, expected: dict[str, str]) -> None:
    refusal = refuse({"web": {"services": services}})
    assert refusal.code == "cycle"
    assert {problem.pointer: problem.message for problem in refusal.problems} == {
        f"/apps/web/services/{where}": f"a service cannot wait for itself: {path}" for where, path in expected.items()
    }


def test_a_diamond_is_no_cycle() -> None:
    parse({"services": {"a": service("b", "c"), "b": service("d"), "c": service("d"), "d": ANY}})


def test_a_wrong_value_outweighs_a_cycle() -> None:
    refusal = refuse({"web": {"services": {"a": service("a", user=5)}}})
    assert refusal.code == "invalid"
    assert pointers(refusal) == ["/apps/web/services/a/depends_on", "/apps/web/services/a/user"]


def test_a_long_chain_of_dependencies_is_no_recursion() -> None:
    length = 1000
    services = {f"s{i}": service(f"s{(i + 1) % length}") for i in range(length)}
    assert refuse({"web": {"services": services}}).code == "cycle"


def test_every_problem_has_a_sentence() -> None:
    refusal = refuse(
        {"web": {"services": {"a": {"image": 5, "cpus": "x", "volumes": ["./a:/b"], "env_file": "x", "zz": 1}}}}
    )
    assert all(len(problem.message) > len("wrong value") for problem in refusal.problems)


def test_a_canonical_app_reads_back_as_it_is() -> None:
    """The store and the tests make models without parsing: nothing in them is converted a second time."""
    document = {
        "services": {
            "a": {**ANY, "ports": ["1-3:1-3"], "cpus": 0.5, "stop_grace_period": "1m", "volumes": ["/a:/b:ro"]}
        }
    }
    app = parse(document)
    assert App.model_validate_json(app.model_dump_json(exclude_defaults=True)) == app


@pytest.mark.parametrize(
    "keys",
    [
        {"user": "\ud800"},
        {"environment": {"A": "\ud800"}},
        {"labels": {"\ud800": "a"}},
        {"logging": {"options": {"\ud800": 1}}},
    ],
)
def test_half_a_surrogate_pair_is_not_valid(keys: Json) -> None:
    refusal = refuse({"web": {"services": {"a": {**ANY, **keys}, "\ud800": ANY}}})
    assert refusal.code == "invalid"
    assert {pointer[: len("/apps/web/services/a")] for pointer in pointers(refusal)} >= {"/apps/web/services/a"}


# ---------------------------------------------------------------------------------- spellings, as a property

PATIENT = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A loaded machine is no failure."""

NAMES = st.text("abcxyz", min_size=1, max_size=3)
VALUES = st.one_of(st.text("ab =:$é", max_size=4), st.integers(0, 10**6))
PAIRS = st.dictionaries(NAMES, VALUES, max_size=4)
AMOUNT = st.integers(1, 2**13)


@st.composite
def long_services(draw: st.DrawFn) -> dict[str, Any]:
    """A service in long forms throughout."""
    ports = draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from(("tcp", "udp"))), max_size=3))
    return {
        "image": "any",
        "command": draw(st.lists(st.text("ab'\" $\\", max_size=3), max_size=3)),
        "environment": draw(PAIRS),
        "labels": draw(PAIRS),
        "sysctls": draw(PAIRS),
        "mem_limit": draw(AMOUNT) * 2**20,
        "stop_grace_period": f"{draw(AMOUNT)}s",
        "cpus": draw(st.integers(1, 400)) / 100,
        "ports": [{"target": target, "published": published, "protocol": how} for target, published, how in ports],
        "volumes": [
            {"type": "volume", "source": name, "target": f"/{name}", "read_only": draw(st.booleans())}
            for name in draw(st.sets(st.sampled_from(("aa", "bb", "cc"))))
        ],
        "networks": {name: {} for name in draw(st.sets(st.sampled_from(("n", "m")), min_size=1))},
        "depends_on": {name: {"condition": "service_started"} for name in draw(st.sets(st.sampled_from(("s", "t"))))},
        "ulimits": {
            name: {"soft": count, "hard": count}
            for name, count in draw(st.dictionaries(NAMES, AMOUNT, max_size=2)).items()
        },
        "devices": [{"source": f"/dev/{name}", "target": f"/dev/{name}"} for name in draw(st.sets(NAMES, max_size=2))],
        "extra_hosts": dict.fromkeys(draw(st.sets(NAMES, max_size=2)), "10.0.0.1"),
        "healthcheck": {"test": ["CMD-SHELL", draw(st.text("ab $", min_size=1, max_size=5))]},
        "dns": ["10.0.0.53"],
        "tmpfs": ["/run"],
    }


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _as_list(pairs: Json) -> Json:
    return [f"{name}={value}" for name, value in pairs.items()]


SHORT: dict[str, Callable[[Any], Json]] = {
    "command": lambda words: " ".join(map(_quoted, words)),
    "environment": _as_list,
    "labels": _as_list,
    "sysctls": _as_list,
    "mem_limit": lambda size: f"{size // 2**20}m",
    "stop_grace_period": lambda period: f"{int(period[:-1]) // 60}m{int(period[:-1]) % 60}s",
    "cpus": str,
    "ports": lambda ports: [f"{port['published']}:{port['target']}/{port['protocol']}" for port in reversed(ports)],
    "volumes": lambda mounts: [
        f"{mount['source']}:{mount['target']}:{'ro' if mount['read_only'] else 'rw'}" for mount in mounts
    ],
    "networks": list,
    "depends_on": list,
    "ulimits": lambda limits: {name: limit["hard"] for name, limit in limits.items()},
    "devices": lambda devices: [device["source"] for device in devices],
    "extra_hosts": lambda hosts: [f"{host}:{address}" for host, address in hosts.items()],
    "healthcheck": lambda check: {"test": check["test"][1]},
    "dns": lambda servers: servers[0],
    "tmpfs": lambda paths: paths[0],
}


def _with(service: Json) -> Json:
    return {
        "services": {"a": service, "s": ANY, "t": ANY},
        "networks": {"n": None, "m": None},
        "volumes": {"aa": None, "bb": None, "cc": None},
    }


@PATIENT
@given(long_services(), st.sets(st.sampled_from(sorted(SHORT))), st.randoms())
def test_two_spellings_are_one_canonical_app(service: dict[str, Any], shortened: set[str], random: Any) -> None:
    respelled = {key: SHORT[key](value) if key in shortened else value for key, value in service.items()}
    keys = list(respelled)
    random.shuffle(keys)
    one, other = parse(_with(service)), parse(_with({key: respelled[key] for key in keys}))
    assert one == other
    assert canonical(one.model_dump(mode="json", exclude_defaults=True)) == canonical(
        other.model_dump(mode="json", exclude_defaults=True)
    )


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@PATIENT
@given(long_services(), st.data())
def test_junk_anywhere_is_refused_or_read_but_never_an_error(service: dict[str, Any], data: st.DataObject) -> None:
    document = _with(copy.deepcopy(service))
    place: Any = document
    while isinstance(place, dict | list) and place:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            place[key] = data.draw(JUNK)
            break
        place = place[key]
    try:
        parsed = validate_apps({"web": document})
    except Refused as refusal:
        assert refusal.code in ("unsupported", "invalid", "cycle")  # noqa: PT017 - either outcome is right
        assert refusal.problems  # noqa: PT017
    else:
        canonical(parsed.apps["web"].model_dump(mode="json", exclude_defaults=True))


# ------------------------------------------------------------------------------------------------ hostile size


@pytest.mark.parametrize(
    "document",
    [
        {"services": {"a": {**ANY, "environment": {f"V{i}": None for i in range(50_000)}}}},
        {"services": {"a": {**ANY, "environment": [f"V{i}=1" for i in range(50_000)]}}},
        {"services": {"a": {**ANY, **{f"k{i}": 1 for i in range(50_000)}}}},
        {"services": {f"a{i}": {**ANY, "ports": ["1-65535:1-65535"] * 10} for i in range(100)}},
        {"services": {"a": {**ANY, "volumes": [f"/v{i}" for i in range(30_000)]}}},
        {"services": {f"a{i}": {**ANY, "depends_on": [f"a{i + 1}", f"a{i + 2}"]} for i in range(10_000)}},
        {"services": {"a": {**ANY, "labels": [f"device-agent.{i}=1" for i in range(20_000)]}}},
        {"services": {"a": {**ANY, "image": "a" * 10**6, "command": "\\" * 10**6, "mem_limit": "1" * 10**6}}},
        {"services": {"a": {**ANY, "stop_grace_period": "1h" * 10**6, "user": "é" * 10**6}}},
    ],
    ids=lambda document: json.dumps(document)[:60],
)
def test_large_documents_are_judged_in_time(document: Json) -> None:
    """A bound against quadratic behaviour, generous to a slow machine; most take a tenth of it."""
    started = time.process_time()
    try:
        validate_apps({"web": document})
    except Refused as refusal:
        assert refusal.problems or refusal.code == "too_large"  # noqa: PT017 - either outcome is right
    assert time.process_time() - started < 3
