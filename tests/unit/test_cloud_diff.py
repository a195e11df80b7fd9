from typing import Any

import pytest

from cloud_sim.diff import diff


def printed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [str(change) for change in diff(old, new)]


APP = {"services": {"api": {"image": "api:1", "environment": {"PORT": "80"}}}, "volumes": {"data": {}}}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"web": APP}, {"web": APP}, []),
        ({}, {"web": APP}, ["+ web: services api"]),
        ({"web": APP}, {}, ["- web: services api"]),
        ({"web": APP}, {"web": None}, ["~ web: services api → null (removed here)"]),
        (
            {"web": APP},
            {"web": {**APP, "services": {"api": {"image": "api:2", "environment": {"PORT": "80", "A": "1"}}}}},
            ['+ web/services/api/environment/A: "1"', '~ web/services/api/image: "api:1" → "api:2"'],
        ),
        (
            {"web": APP},
            {"web": {"services": {**APP["services"], "db": {"image": "db:1"}}}},
            ["+ web/services/db: image db:1", '- web/volumes: {"data": {}}'],
        ),
        ({"a": {"x": 1}}, {"a": {"x": True}}, ["~ a/x: 1 → true"]),
        ({"a": {"x": [1]}}, {"a": {"x": {}}}, ["~ a/x: [1] → {}"]),
    ],
)
def test_diff(old: dict[str, Any], new: dict[str, Any], expected: list[str]) -> None:
    assert printed(old, new) == expected


def test_secrets_are_not_shown() -> None:
    old = {"a": {"services": {"s": {"environment": {"DB_PASSWORD": "hunter1"}, "x": ["API_KEY=hunter2", "A=1"]}}}}
    new = {"a": {"services": {"s": {"environment": {"DB_PASSWORD": "hunter3"}, "x": {"token": "hunter4"}}}}}
    text = "\n".join(printed(old, new))
    assert "hunter" not in text
    assert "DB_PASSWORD: (hidden) → (hidden)" in text
    assert '"A=1"' in text


def test_long_values_are_cut() -> None:
    (line,) = printed({}, {"a": {"services": 1}, "b": {"x": "y" * 500}})[1:]
    assert len(line) < 120
    assert line.endswith("…")
