"""Whether a target is let in, and what may be concluded from what is known: decisions alone, nothing around them."""

import pytest

from device_agent.core.intake import (
    Standing,
    admit,
    adopted_apps,
    changed_apps,
    decide,
    own_apps,
    unknown_scopes,
    want,
)
from device_agent.core.policy import Policy
from device_agent.model.errors import Refused
from device_agent.model.memory import AcceptedTarget, Floor
from device_agent.model.observed import Network, Observed
from device_agent.model.target import Version
from tests.builders import IDENTITY, NAMING, NOW, app, everything, running, service, target, wanted, world

WEB = {"web": app(api=service())}


def standing(*targets, floors=None, has_apps: bool = False, policy: Policy | None = None) -> Standing:
    known = {each.scope: AcceptedTarget(each, NOW) for each in targets}
    own = {scope: Floor(each.target.version, each.target.digest) for scope, each in known.items()}
    return Standing(IDENTITY, NAMING, policy or Policy(), known, floors or own, has_apps)


def code_of(call, *args) -> str:
    with pytest.raises(Refused) as refused:
        call(*args)
    return refused.value.code


HAS = target(WEB, epoch=2, revision=5)


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        ((2, 6), "new"),
        ((3, 0), "new"),
        ((2, 5), "known"),
        ((2, 4), "stale"),
        ((1, 99), "stale"),
    ],
)
def test_versions_are_compared_as_pairs(version, verdict):
    arrived = target(WEB, epoch=version[0], revision=version[1])
    if verdict == "stale":
        assert code_of(admit, arrived, "fleet", standing(HAS), NOW) == "stale"
    else:
        assert admit(arrived, "fleet", standing(HAS), NOW) == (verdict == "new")


def test_the_scopes_have_floors_of_their_own():
    assert admit(target(WEB, device="d1", revision=1), "device", standing(HAS), NOW)


def test_the_same_version_with_another_content_is_a_fork_also_when_only_the_floor_knows_it():
    other = target({"web": app(api=service("x"))}, epoch=2, revision=5)
    assert code_of(admit, other, "fleet", standing(HAS), NOW) == "fork"
    only_floor = standing(floors={"fleet": Floor(Version(2, 5), HAS.digest)})
    assert code_of(admit, other, "fleet", only_floor, NOW) == "fork"


def test_a_target_that_was_lost_is_taken_again():
    assert admit(HAS, "fleet", standing(floors={"fleet": Floor(Version(2, 5), HAS.digest)}), NOW)


def test_where_only_a_label_told_the_floor_any_content_of_that_version_is_taken():
    assert admit(HAS, "fleet", standing(floors={"fleet": Floor(Version(2, 5))}), NOW)
    assert code_of(admit, HAS, "fleet", standing(floors={"fleet": Floor(Version(2, 6))}), NOW) == "stale"


def test_a_restored_backup_takes_the_newest_target_again_and_nothing_below_it():
    restored = standing(target(WEB, revision=1), floors={"fleet": Floor(Version(1, 3), "sha256:x")})
    assert code_of(admit, target(WEB, revision=2), "fleet", restored, NOW) == "stale"
    assert code_of(admit, target(WEB, revision=3), "fleet", restored, NOW) == "fork"


def test_the_order_of_checks_is_scope_expiry_version():
    old = target(WEB, revision=1, fleet="other", expires_at="2000-01-01T00:00:00Z")
    assert code_of(admit, old, "fleet", standing(HAS), NOW) == "scope"
    old = target(WEB, revision=1, expires_at="2000-01-01T00:00:00Z")
    assert code_of(admit, old, "fleet", standing(HAS), NOW) == "expired"


def test_a_target_expires_in_its_own_time_zone():
    assert admit(target(WEB, expires_at="2026-11-22T09:30:00-01:00"), "fleet", standing(), NOW)
    assert code_of(admit, target(WEB, expires_at="2026-11-22T10:30:00+01:00"), "fleet", standing(), NOW) == "expired"


@pytest.mark.parametrize("has_apps", [True, False])
def test_nothing_is_left_only_where_there_is_nothing_or_it_says_so(has_apps):
    if has_apps:
        assert code_of(decide, standing(has_apps=True), target({})) == "empty"
    else:
        assert decide(standing(), target({})).apps == {}
    assert decide(standing(has_apps=has_apps), target({}, allow_empty=True)).apps == {}


def test_what_was_accepted_is_not_judged_by_the_policy_again():
    forbidden = target({"web": app(api=service(privileged=True))})
    assert code_of(decide, standing(), forbidden) == "policy"
    assert set(want({"fleet": forbidden}, NAMING, None).apps) == {"web"}


def test_the_policy_judges_what_comes_of_both_scopes():
    fleet = target(WEB)
    device = target({"web": {"x-extends": "fleet", "services": {"api": {"privileged": True}}}}, device="d1")
    assert code_of(decide, standing(fleet), device) == "policy"


def test_a_fleet_target_that_takes_away_what_the_device_extends_is_refused():
    device = target({"web": {"x-extends": "fleet", "services": {"api": {"init": True}}}}, device="d1")
    without = target({"db": app(db=service("db:1"))}, revision=2)
    assert code_of(decide, standing(target(WEB), device), without) == "invalid"


def test_which_apps_a_target_changes():
    before = everything(target({"a": app(x=service()), "b": app(x=service()), "c": app(x=service())}))
    after = everything(target({"a": app(x=service()), "b": app(x=service("y")), "d": app(x=service())}, revision=2))
    assert changed_apps(before, after) == {"b", "c", "d"}


def test_a_scope_whose_target_was_lost_is_unknown_and_its_apps_are_adopted():
    floors = {"fleet": Floor(Version(1, 1)), "device": Floor(Version(1, 1))}
    assert unknown_scopes(floors, {"fleet": AcceptedTarget(target(WEB), NOW)}) == {"device"}
    web, own = wanted(app(api=service())), wanted(app(api=service()), name="own", device="d1")
    observed = Observed((running(web, "api"), running(own, "api", id="o")))
    assert adopted_apps(observed, frozenset({"device"})) == {"own"}
    assert adopted_apps(observed, frozenset()) == set()


def test_own_apps_are_those_of_containers_and_of_networks():
    web = wanted(app(api=service()))
    networks = (Network("n", "i", "left", "default", "s"), Network("bridge", "b"))
    assert own_apps(world(web, running(web, "api"), networks=networks)) == {"web", "left"}
