"""The long form of a mount: what of it belongs to which type, and what does not go together."""

import pytest

from device_agent.model.target import Json
from tests.compose_app import SERVICE, app, canonical, refused

VOLUME = {"type": "volume", "source": "data", "target": "/d"}
BIND = {"type": "bind", "source": "/srv", "target": "/d"}


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({**VOLUME, "volume": {"subpath": "a//b/"}}, {**VOLUME, "subpath": "a/b"}),
        (
            {"type": "volume", "target": "/d", "volume": {"labels": ["a=1"]}},
            {"type": "volume", "target": "/d", "labels": {"a": "1"}},
        ),
        ({**BIND, "bind": {"recursive": "enabled"}}, BIND),
        ({**BIND, "bind": {"recursive": "disabled"}}, {**BIND, "recursive": "disabled"}),
        ({**BIND, "bind": {"recursive": "writable"}}, {**BIND, "recursive": "writable"}),
        (
            {**BIND, "read_only": True, "bind": {"recursive": "readonly"}},
            {**BIND, "read_only": True, "recursive": "readonly"},
        ),
    ],
)
def test_details(written: Json, expected: Json) -> None:
    assert canonical("volumes", [written]) == [expected]


@pytest.mark.parametrize(
    ("written", "where"),
    [
        ({**VOLUME, "volume": {"subpath": "/a"}}, "volume/subpath"),
        ({**VOLUME, "volume": {"subpath": "a/../../b"}}, "volume/subpath"),
        ({**VOLUME, "volume": {"subpath": ""}}, "volume/subpath"),
        ({"type": "volume", "target": "/d", "volume": {"subpath": "a"}}, "volume/subpath"),
        ({**VOLUME, "volume": {"labels": {"a": "1"}}}, "volume"),
        ({**VOLUME, "volume": {"labels": {"device-agent.app": "1"}}}, "volume/labels/device-agent.app"),
        ({**BIND, "bind": {"recursive": "sometimes"}}, "bind/recursive"),
        ({**BIND, "bind": {"recursive": "readonly"}}, "bind/recursive"),
        ({**BIND, "bind": {"recursive": "disabled", "selinux": "z"}}, "bind/selinux"),
    ],
)
def test_details_that_are_wrong(written: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", "volumes": [written]}))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/volumes/0/{where}"])


@pytest.mark.parametrize(
    ("written", "where", "remedy"),
    [
        ({"type": "image", "target": "/d"}, "type", "a volume that a service of that image fills"),
        ({**VOLUME, "image": {"subpath": "a"}}, "image", "a volume that a service of that image fills"),
        ({"type": "cluster", "target": "/d"}, "type", "a volume of a driver"),
        ({"type": "npipe", "target": "/d"}, "type", "Windows"),
    ],
)
def test_what_one_engine_cannot_mount(written: Json, where: str, remedy: str) -> None:
    code, problems = refused(app({"image": "api", "volumes": [written]}))
    assert (code, list(problems)) == ("unsupported", [f"{SERVICE}/volumes/0/{where}"])
    assert remedy in problems[f"{SERVICE}/volumes/0/{where}"]
