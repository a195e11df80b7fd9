"""How an image comes to the device: each spelling of a policy, each wrong one, and one platform for a reference."""

import pytest

from device_agent.model.errors import Refused
from device_agent.model.validate import validate_apps
from tests.compose_app import SERVICE, app, refused
from tests.unit.test_spec_hash import FULL, spec

H = 3600 * 10**9


def policy(**keys):
    made = validate_apps({"web": app({"image": "api", **keys})}).apps["web"].services["api"]
    return made.pull_policy, made.pull_refresh_after


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("missing", 0)),
        ({"pull_policy": "missing"}, ("missing", 0)),
        ({"pull_policy": "if_not_present"}, ("missing", 0)),
        ({"pull_policy": "always"}, ("always", 0)),
        ({"pull_policy": "never"}, ("never", 0)),
        ({"pull_policy": "daily"}, ("refresh", 24 * H)),
        ({"pull_policy": "weekly"}, ("refresh", 7 * 24 * H)),
        ({"pull_policy": "every_12h"}, ("refresh", 12 * H)),
        ({"pull_policy": "every_1w2d3h4m5s"}, ("refresh", (9 * 24 + 3) * H + 245 * 10**9)),
        ({"pull_policy": "refresh", "pull_refresh_after": "90m"}, ("refresh", H * 3 // 2)),
    ],
)
def test_spellings(keys, expected):
    assert policy(**keys) == expected


@pytest.mark.parametrize(
    ("keys", "where", "words"),
    [
        *(({"pull_policy": value}, "pull_policy", "expected always") for value in ("sometimes", "every_", "every_5")),
        ({"pull_policy": "every_1.5h"}, "pull_policy", "expected always"),
        ({"pull_policy": 5}, "pull_policy", "expected"),
        ({"pull_policy": "every_0s"}, "pull_policy", "at least 1s"),
        ({"pull_policy": "every_999w"}, "pull_policy", "at most"),
        ({"pull_policy": "refresh"}, "pull_refresh_after", "is required"),
        ({"pull_policy": "refresh", "pull_refresh_after": "0"}, "pull_refresh_after", "at least 1s"),
        ({"pull_policy": "refresh", "pull_refresh_after": "soon"}, "pull_refresh_after", "expected a duration"),
        ({"pull_refresh_after": "1h"}, "pull_refresh_after", "goes with `pull_policy: refresh` only"),
        ({"pull_policy": "daily", "pull_refresh_after": "1h"}, "pull_refresh_after", "goes with"),
    ],
)
def test_wrong_values(keys, where, words):
    code, problems = refused(app({"image": "api", **keys}))
    assert code == "invalid"
    assert list(problems) == [f"{SERVICE}/{where}"]
    assert words in problems[f"{SERVICE}/{where}"]


def test_how_an_image_comes_is_nothing_of_the_container():
    assert spec(FULL | {"pull_policy": "always"}) == spec(FULL)
    assert spec(FULL | {"pull_policy": "daily"}) == spec(FULL)


def platforms(first, second, reference="docker.io/library/api:latest"):
    def one(platform):
        return {"platform": platform} if platform else {}

    services = {"a": {"image": "api", **one(first)}}
    return {"web": {"services": services}, "shop": {"services": {"b": {"image": reference, **one(second)}}}}


@pytest.mark.parametrize(
    ("first", "second"), [("linux/arm64", "linux/amd64"), (None, "linux/arm64"), ("linux/arm64", None)]
)
def test_one_reference_has_one_platform(first, second):
    with pytest.raises(Refused) as caught:
        validate_apps(platforms(first, second))
    assert caught.value.code == "invalid"
    (problem,) = caught.value.problems
    assert problem.pointer == "/apps/shop/services/b/platform"
    assert "/apps/web/services/a has docker.io/library/api:latest for" in problem.message


def test_two_references_may_have_two_and_one_may_say_the_same_twice():
    validate_apps(platforms("linux/arm64", "linux/amd64", "api:2"))
    validate_apps(platforms("linux/arm64", "linux/arm64"))
