"""What local people ask the running agent: answered from the loop, never by an exception."""

import json

import pytest

from device_agent import __version__
from tests.builders import app, payload, service
from tests.device import Device, settled

NEW = {"web": app(api=service("api:2")), "db": app(db=service("db:1"))}


def code(answer) -> str:
    assert answer["status"] == "error"
    assert answer["error"]["message"]
    return answer["error"]["code"]


def test_the_status_is_the_published_state_and_more():
    device = settled(release="r1")
    told = device.ask("status")["result"]
    assert told["apps"] == device.state()["apps"]
    assert (told["fleet"], told["device"], told["connected"]) == ("plant7", "d1", True)
    assert json.loads(json.dumps(told)) == told
    device.broker.disconnect()
    assert device.ask("status")["result"]["connected"] is False


def test_a_plan_says_what_would_be_done_and_changes_nothing():
    device = settled()
    before = device.containers()
    result = device.ask("plan", target=payload(NEW, revision=2).decode())["result"]
    device.wait(30)
    assert device.containers() == before
    assert [step["step"].split("-")[0] for step in result["apps"]["db"]] == ["create db", "start db"]
    assert "image changed: docker.io/library/api:1 → docker.io/library/api:2" in result["text"]
    assert device.told()[-1] == "applied 1.1"


def test_a_plan_of_what_runs_has_nothing_to_do():
    device = settled()
    assert device.ask("plan", target=payload().decode())["result"]["text"] == "nothing to do"


def test_a_plan_of_a_bad_target_says_what_is_wrong_with_it():
    device = settled()
    bad = device.ask("plan", target=payload({"web": app(api=service(build="."))}, revision=2).decode())
    assert code(bad) == "unsupported"
    assert bad["error"]["errors"][0]["pointer"] == "/apps/web/services/api/build"
    assert code(device.ask("plan", target=payload(revision=0).decode())) == "stale"


def test_nothing_is_planned_before_the_engine_has_answered():
    device = Device()
    device.world.away = True
    device.boot(connect=False)
    assert code(device.ask("plan", target=payload().decode())) == "engine_away"


def test_a_target_from_a_file_is_taken_as_one_from_the_broker_and_acknowledged_to_the_cloud():
    device = settled()
    answer = device.ask("apply", target=payload(NEW, revision=2).decode())
    assert answer["result"] == {"verdict": "accepted", "scope": "fleet", "epoch": 1, "revision": 2}
    device.converge()
    assert device.ups() == {"web/api", "db/db"}
    assert device.told()[-1] == "applied 1.2"
    assert device.ask("apply", target=payload(NEW, revision=2).decode())["result"]["verdict"] == "duplicate"


def test_a_target_from_a_file_has_the_same_floor():
    device = settled()
    device.ask("apply", target=payload(NEW, revision=5).decode())
    assert code(device.ask("apply", target=payload(NEW, revision=4).decode())) == "stale"
    assert code(device.ask("apply", target=payload(NEW, revision=9, fleet="other").decode())) == "scope"


def test_a_target_from_a_file_on_a_full_disk_is_not_taken():
    device = settled()
    device.store.full = True
    assert code(device.ask("apply", target=payload(NEW, revision=2).decode())) == "disk_full"
    device.store.full = False
    device.wait(30)
    assert device.ups() == {"web/api"}


def test_a_backup_goes_to_a_file_or_comes_in_the_answer(tmp_path):
    device = settled()
    result = device.ask("backup", file=str(tmp_path / "b"))["result"]
    assert result["bytes"] == (tmp_path / "b").stat().st_size
    assert device.ask("backup")["result"]["bytes"] > 0
    assert code(device.ask("backup", file=str(tmp_path / "nowhere" / "b"))) == "invalid"


@pytest.mark.parametrize(
    ("verb", "args", "expected"),
    [
        ("dance", {}, "unknown"),
        ("status", {"x": 1}, "malformed"),
        ("version", {"x": 1}, "malformed"),
        ("plan", {}, "malformed"),
        ("plan", {"target": 1}, "malformed"),
        ("plan", {"target": "{"}, "malformed"),
        ("apply", {"target": "[]"}, "malformed"),
        ("apply", {"target": "\ud800"}, "malformed"),
        ("restore", {}, "invalid"),
        ("restore", {"content": "no base64"}, "malformed"),
    ],
)
def test_a_bad_question_is_an_answer_too(verb, args, expected):
    device = settled()
    assert code(device.ask(verb, **args)) == expected
    assert device.ups() == {"web/api"}


def test_the_version():
    assert settled().ask("version") == {"status": "ok", "result": {"version": __version__}}
