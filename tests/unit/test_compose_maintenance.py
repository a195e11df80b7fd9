"""What an app may say of when it is updated: `x-maintenance`, `x-update.force`, `x-state`, and its update lock."""

from typing import Any

import pytest

from device_agent.model.compose import App, Window
from device_agent.model.errors import Refused
from device_agent.model.validate import validate_apps
from tests.builders import app, service, wanted

HOUR = 3_600_000_000_000


def parsed(contents: Any) -> App:
    return validate_apps({"web": contents}).apps["web"]


def refusal(contents: Any) -> list[str]:
    with pytest.raises(Refused) as refused:
        parsed(contents)
    assert refused.value.code == "invalid"
    assert all(problem.message for problem in refused.value.problems)
    return [problem.pointer for problem in refused.value.problems]


def test_windows_are_read() -> None:
    windows = [
        {"cron": "0 2 * * *", "duration": "2h"},
        {"cron": "30 3 * * 6", "duration": "90m", "timezone": "Asia/Tokyo"},
    ]
    assert parsed(app({"x-maintenance": windows}, api=service())).windows == (
        Window(cron="0 2 * * *", duration=2 * HOUR),
        Window(cron="30 3 * * 6", duration=3 * HOUR // 2, timezone="Asia/Tokyo"),
    )
    assert parsed(app(api=service())).windows == ()


@pytest.mark.parametrize(
    ("window", "where"),
    [
        ({"cron": "daily", "duration": "2h"}, "/cron"),
        ({"cron": "@daily", "duration": "2h"}, "/cron"),
        ({"cron": "0 2 * *", "duration": "2h"}, "/cron"),
        ({"cron": "0 2 30 2 *", "duration": "2h"}, "/cron"),
        ({"cron": 5, "duration": "2h"}, "/cron"),
        ({"duration": "2h"}, "/cron"),
        ({"cron": "0 2 * * *"}, "/duration"),
        ({"cron": "0 2 * * *", "duration": "0s"}, "/duration"),
        ({"cron": "0 2 * * *", "duration": "soon"}, "/duration"),
        ({"cron": "0 2 * * *", "duration": "2h", "timezone": "Mars/Olympus"}, "/timezone"),
        ({"cron": "0 2 * * *", "duration": "2h", "timezone": "../etc/passwd"}, "/timezone"),
    ],
)
def test_a_window_that_means_nothing_is_refused(window: Any, where: str) -> None:
    assert refusal(app({"x-maintenance": [window]}, api=service())) == [f"/apps/web/x-maintenance/0{where}"]


def test_windows_are_a_list() -> None:
    assert refusal(app({"x-maintenance": {"cron": "0 2 * * *"}}, api=service())) == ["/apps/web/x-maintenance"]


def test_force_is_for_an_app_or_a_service() -> None:
    assert parsed(app(api=service(**{"x-update": {"force": True}}))).services["api"].update.force
    assert parsed(app({"x-update": {"force": True}}, api=service())).services["api"].update.force
    assert not parsed(app(api=service())).services["api"].update.force
    assert refusal(app(api=service(**{"x-update": {"force": "yes"}}))) == ["/apps/web/services/api/x-update/force"]


def test_state_is_running_or_stopped() -> None:
    assert parsed(app(api=service(**{"x-state": "stopped"}))).services["api"].state == "stopped"
    assert refusal(app(api=service(**{"x-state": "paused"}))) == ["/apps/web/services/api/x-state"]


def test_of_the_agents_labels_a_target_sets_the_path_of_the_update_lock_alone() -> None:
    labels = {"device-agent.update-lock": "/tmp/lock"}
    assert parsed(app(api=service(labels=labels))).services["api"].labels == labels
    where = "/apps/web/services/api/labels"
    assert refusal(app(api=service(labels={"device-agent.update-lock": "lock"}))) == [where]
    assert refusal(app(api=service(labels={"device-agent.app": "x"}))) == [f"{where}/device-agent.app"]
    under = service(labels=labels, tmpfs=["/tmp"])
    assert refusal(app(api=under)) == [where]


def test_none_of_these_makes_another_container_but_a_label() -> None:
    plain = wanted(app(api=service())).services["api"].basis
    when = {"x-maintenance": [{"cron": "0 2 * * *", "duration": "2h"}], "x-update": {"force": True}}
    assert wanted(app(when, api=service(**{"x-state": "stopped"}))).services["api"].basis == plain
