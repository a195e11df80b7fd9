"""A device's targets laid over each other, app by app: what it runs, and the digest that a cloud computes too."""

import pytest

from device_agent.core.scopes import effective_apps, effective_digest, lay_over
from device_agent.model.canonical import digest
from device_agent.model.errors import Refused
from tests.builders import app, service, target

WEB, DB = app(api=service(environment={"A": "1", "B": "2"})), app(db=service("db:1"))


def laid(fleet, device):
    return {name: each.document for name, each in effective_apps(fleet, device).items()}


def test_without_a_device_target_it_is_the_fleets():
    assert laid(target({"web": WEB}), None) == {"web": WEB}


def test_without_a_fleet_target_it_is_the_devices():
    assert laid(None, target({"db": DB}, device="d1")) == {"db": DB}
    assert laid(None, None) == {}


def test_an_app_of_the_device_is_added_or_replaces_the_fleets():
    assert laid(target({"web": WEB}), target({"db": DB}, device="d1")) == {"web": WEB, "db": DB}
    assert laid(target({"web": WEB}), target({"web": DB}, device="d1")) == {"web": DB}


def test_null_removes_the_fleets_app():
    assert laid(target({"web": WEB, "db": DB}), target({"web": None}, device="d1")) == {"db": DB}
    assert laid(target({"db": DB}), target({"gone": None}, device="d1")) == {"db": DB}


def test_each_app_comes_from_one_scope_with_its_version_and_release():
    fleet = target({"web": WEB, "db": DB}, revision=7, release="f")
    device = target({"web": DB}, device="d1", revision=3, release="d")
    apps = effective_apps(fleet, device)
    assert {name: (each.revision, each.release) for name, each in apps.items()} == {
        "web": ("device:1.3", "d"),
        "db": ("fleet:1.7", "f"),
    }


@pytest.mark.parametrize(
    ("change", "environment"),
    [
        ({"A": "9"}, {"A": "9", "B": "2"}),
        ({"C": "3"}, {"A": "1", "B": "2", "C": "3"}),
        ({"A": None}, {"B": "2"}),
    ],
)
def test_extending_changes_single_keys(change, environment):
    device = target({"web": {"x-extends": "fleet", "services": {"api": {"environment": change}}}}, device="d1")
    document = laid(target({"web": WEB}), device)["web"]
    assert document == app(api=service(environment=environment))


def test_extending_a_list_of_variables_reads_it_as_a_map():
    fleet = target({"web": app(api=service(environment=["A=1", "B=x=y"]))})
    device = target({"web": {"x-extends": "fleet", "services": {"api": {"environment": {"A": "2"}}}}}, device="d1")
    assert laid(fleet, device)["web"]["services"]["api"]["environment"] == {"A": "2", "B": "x=y"}


def test_extending_replaces_any_other_list():
    fleet = target({"web": app(api=service(ports=["80:80"]))})
    device = target({"web": {"x-extends": "fleet", "services": {"api": {"ports": ["81:80"]}}}}, device="d1")
    assert laid(fleet, device)["web"]["services"]["api"]["ports"] == ["81:80"]


def test_what_is_extended_is_left_as_it_is():
    fleet = {"web": app(api=service())}
    lay_over(fleet, {"web": {"x-extends": "fleet", "services": {"api": {"image": "other:1"}}}})
    assert fleet == {"web": app(api=service())}


@pytest.mark.parametrize(
    ("fleet", "extends"),
    [({}, "fleet"), ({"web": WEB}, "web"), ({"web": WEB}, True)],
    ids=["not there", "word", "type"],
)
def test_what_cannot_be_extended_is_refused_by_pointer(fleet, extends):
    with pytest.raises(Refused) as refused:
        lay_over(fleet, {"web": {"x-extends": extends}})
    assert refused.value.code == "invalid"
    assert [problem.pointer for problem in refused.value.problems] == ["/apps/web/x-extends"]


def test_the_effective_digest_is_of_what_is_left():
    documents = lay_over({"web": WEB, "db": DB}, {"web": None})
    assert effective_digest(documents) == digest({"db": DB})
