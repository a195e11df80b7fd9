"""What the services of an app have of each other: namespaces, mounts and names; and what follows from it."""

from collections.abc import Callable
from typing import Any

import pytest

from device_agent.core.policy import Policy, offences
from device_agent.model.compose import App, Dependency
from device_agent.model.target import Json
from device_agent.model.validate import validate_apps
from tests.builders import OPEN, wanted
from tests.compose_app import SERVICE, refused

ANY = {"image": "any"}


def document(keys: Json, **others: Json) -> Json:
    """`api` with these keys, and `db`."""
    return {
        "services": {"api": {**ANY, **keys}, "db": {**ANY, **others.pop("db", {})}, **others},
        "networks": {"front": {}, "back": {}},
        "volumes": {"data": {}, "logs": {}},
    }


def parse(made: Json) -> App:
    return validate_apps({"web": made}).apps["web"]


def dump(made: Json) -> dict[str, Any]:
    return parse(made).services["api"].model_dump(mode="json", exclude_defaults=True)


# Namespaces.


@pytest.mark.parametrize(("key", "db"), [("network_mode", {}), ("pid", {}), ("ipc", {"ipc": "shareable"})])
def test_who_joins_a_namespace_depends_on_its_owner(key: str, db: Json) -> None:
    service = parse(document({key: "service:db"}, db=db)).services["api"]
    assert getattr(service, key) == "service:db"
    assert service.depends_on == {"db": Dependency(restart=True)}


@pytest.mark.parametrize("key", ["network_mode", "pid", "ipc"])
def test_a_namespace_that_cannot_be_joined(key: str) -> None:
    shareable = {"ipc": "shareable"}
    for mode, db in (("service:nobody", shareable), ("service:db", {**shareable, "scale": 0}), ("service:", {})):
        code, problems = refused(document({key: mode}, db=db))
        assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{key}"])


@pytest.mark.parametrize(
    ("ipc", "possible"), [("shareable", True), ("host", True), ("private", False), ("none", False)]
)
def test_shared_memory_is_had_of_one_that_shares_it(ipc: str, possible: bool) -> None:
    made = document({"ipc": "service:db"}, db={"ipc": ipc})
    if possible:
        dump(made)
    else:
        assert "give it `ipc: shareable`" in refused(made)[1][f"{SERVICE}/ipc"]
    assert "give it `ipc: shareable`" in refused(document({"ipc": "service:db"}))[1][f"{SERVICE}/ipc"]


@pytest.mark.parametrize("keys", [{"pid": "service:db"}, {"links": ["db"]}, {"volumes_from": ["db"]}, {}])
def test_what_is_written_of_a_dependency_counts_beside_what_implies_it(keys: Json) -> None:
    depends_on = {"db": {"condition": "service_started", "restart": False, "required": False}}
    made = document({**keys, "depends_on": depends_on}, db={"ipc": "shareable"})
    assert parse(made).services["api"].depends_on == {"db": Dependency(required=False)}


@pytest.mark.parametrize(
    ("keys", "restart"),
    [
        ({"network_mode": "service:db"}, True),
        ({"links": ["db"]}, True),
        ({"volumes_from": ["db"]}, False),
        ({"volumes_from": ["db"], "links": ["db"]}, True),
    ],
)
def test_an_implied_dependency_restarts_as_with_compose(keys: Json, restart: bool) -> None:
    assert parse(document(keys)).services["api"].depends_on == {"db": Dependency(restart=restart)}


# Mounts.


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["db"], [{"service": "db"}]),
        (["db:rw"], [{"service": "db"}]),
        (["db:ro"], [{"service": "db", "read_only": True}]),
        (["service:db"], [{"service": "db"}]),
        (["service:db:ro"], [{"service": "db", "read_only": True}]),
        (["db:ro", "db:ro"], [{"service": "db", "read_only": True}]),
    ],
)
def test_spellings_of_volumes_from(written: Json, expected: Json) -> None:
    assert dump(document({"volumes_from": written}))["volumes_from"] == expected
    assert dump(document({"volumes_from": written}))["depends_on"] == {"db": {}}


@pytest.mark.parametrize(
    ("written", "code", "where", "message"),
    [
        (["nobody"], "invalid", "/0", "no service `nobody`"),
        (["db:rx"], "invalid", "/0", "SERVICE:ro"),
        (["db:ro:x"], "invalid", "/0", "SERVICE:ro"),
        (["db:"], "invalid", "/0", "SERVICE:ro"),
        ([5], "invalid", "/0", "a string"),
        ("db", "invalid", "", "a list"),
        (["container:x"], "unsupported", "/0", "make it a service of the app"),
        (["container:x:ro"], "unsupported", "/0", "make it a service of the app"),
    ],
)
def test_volumes_from_that_is_wrong(written: Json, code: str, where: str, message: str) -> None:
    refusal, problems = refused(document({"volumes_from": written}))
    assert (refusal, list(problems)) == (code, [f"{SERVICE}/volumes_from{where}"])
    assert message in problems[f"{SERVICE}/volumes_from{where}"]


def mounted(made: Json) -> dict[str, tuple[str | None, bool]]:
    return {m.target: (m.source, m.read_only) for m in wanted(made).services["api"].mounts}


def test_a_service_has_the_mounts_of_another_and_its_own_outweigh_them() -> None:
    db = {"volumes": ["data:/data", "logs:/logs:ro", {"type": "tmpfs", "target": "/tmp"}], "tmpfs": ["/run"]}
    assert mounted(document({"volumes_from": ["db"]}, db=db)) == {
        "/data": ("web_data", False),
        "/logs": ("web_logs", True),
    }
    assert mounted(document({"volumes_from": ["db:ro"]}, db=db)) == {
        "/data": ("web_data", True),
        "/logs": ("web_logs", True),
    }
    own = {"volumes_from": ["db:ro"], "volumes": ["logs:/data"], "tmpfs": ["/logs"]}
    assert mounted(document(own, db=db)) == {"/data": ("web_logs", False)}


def test_mounts_come_through_several_services_and_the_last_named_outweighs() -> None:
    made = document(
        {"volumes_from": ["db", "other"]},
        db={"volumes_from": ["third:ro"], "volumes": ["data:/x"]},
        other={**ANY, "volumes": ["logs:/x"]},
        third={**ANY, "volumes": ["logs:/third"]},
    )
    assert mounted(made) == {"/third": ("web_logs", True), "/x": ("web_logs", False)}
    assert wanted(made).services["api"].volumes == {"logs"}


def test_an_anonymous_volume_is_one_containers_own() -> None:
    code, problems = refused(document({"volumes_from": ["db"]}, db={"volumes": ["/data"]}))
    assert code == "unsupported"
    assert "give it a name" in problems[f"{SERVICE}/volumes_from"]


def test_a_file_is_not_mounted_in_a_read_only_mount_of_another_service() -> None:
    made = document({"volumes_from": ["db:ro"], "secrets": ["key"]}, db={"volumes": ["data:/run/secrets"]})
    made["secrets"] = {"key": {"content": "x"}}
    assert "is read-only" in refused(made)[1][f"{SERVICE}/volumes_from"]
    made["services"]["api"]["volumes_from"] = ["db"]
    parse(made)


def test_few_bytes_cannot_ask_for_very_many_mounts() -> None:
    chain = {
        f"s{n}": {**ANY, "volumes": [f"data:/{n}"], **({"volumes_from": [f"s{n - 1}"]} if n else {})}
        for n in range(400)
    }
    code, problems = refused({"services": chain, "volumes": {"data": {}}})
    assert code == "invalid"
    assert set(problems.values()) == {"too many mounts for one target"}


def test_a_policy_judges_a_mount_where_it_is_written() -> None:
    made = document({"volumes_from": ["db"]}, db={"volumes": ["/srv:/srv"]})
    apps = {"web": parse(made)}
    assert offences(OPEN, apps, {"web": made}) == ()
    found = offences(Policy(), apps, {"web": made})
    assert [problem.pointer for problem in found] == ["/apps/web/services/db/volumes/0"]


# Links.


def links(made: Json) -> dict[str, list[tuple[str, str]]]:
    return {endpoint.network: list(endpoint.links) for endpoint in wanted(made).services["api"].endpoints}


def test_a_link_is_a_name_on_the_networks_in_common() -> None:
    keys = {"links": ["db:database", "db", "db:store"], "networks": ["front", "back"]}
    made = document(keys, db={"networks": ["back"]})
    assert dump(made)["links"] == {"database": "db", "db": "db", "store": "db"}
    assert dump(made)["depends_on"] == {"db": {"restart": True}}
    assert links(made) == {"web_front": [], "web_back": [("db", "database"), ("db", "store")]}


def test_a_link_makes_another_container_of_the_one_that_has_it_alone() -> None:
    plain, linked = wanted(document({})), wanted(document({"links": ["db:database"]}))
    assert plain.services["api"].basis != linked.services["api"].basis
    assert plain.services["db"].basis == linked.services["db"].basis
    assert plain.services["api"].basis == wanted(document({"links": ["db"]})).services["api"].basis


def test_a_link_that_leads_nowhere_is_told() -> None:
    made = document({"links": ["db:database"], "networks": ["front"]}, db={"networks": ["back"]})
    (warning,) = validate_apps({"web": made}).warnings
    assert (warning.pointer, "no network in common" in warning.message) == (f"{SERVICE}/links", True)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"links": ["nobody"]}, "links/0"),
        ({"links": ["db:"]}, "links/0"),
        ({"links": ["db:a:b"]}, "links/0"),
        ({"links": ["db:a", "db:a"]}, "links/1"),
        ({"links": [5]}, "links/0"),
        ({"links": {"db": "a"}}, "links"),
        ({"links": ["db"], "network_mode": "host"}, "links"),
    ],
)
def test_links_that_are_wrong(keys: Json, where: str) -> None:
    code, problems = refused(document(keys))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{where}"])


@pytest.mark.parametrize(
    ("key", "of"),
    [
        ("network_mode", "service:{}".format),
        ("pid", "service:{}".format),
        ("volumes_from", lambda name: [name]),
        ("links", lambda name: [name]),
    ],
)
def test_a_cycle_is_told_where_it_is_written(key: str, of: Callable[[str], Json]) -> None:
    code, problems = refused(document({key: of("db")}, db={"depends_on": ["api"]}))
    assert (code, list(problems)) == ("cycle", ["/apps/web/services/db/depends_on"])
    code, problems = refused(document({"depends_on": ["db"]}, db={key: of("api")}))
    assert (code, list(problems)) == ("cycle", [f"/apps/web/services/db/{key}"])
