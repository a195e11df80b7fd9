import pytest

from device_agent.wire.topics import FleetTopics, Topics, check_id, check_root

HERE = Topics("fleet/v1", "plant7", "d1")
CLOUD = FleetTopics("fleet/v1", "plant7")


def test_every_topic_of_a_device() -> None:
    assert {
        "fleet target": HERE.fleet_target,
        "device target": HERE.device_target,
        "command": HERE.command("restart"),
        "broadcast": HERE.broadcast("report"),
        "session": HERE.session,
        "state": HERE.state,
        "ack": HERE.ack,
        "event": HERE.event,
        "progress": HERE.progress,
        "response": HERE.response,
        "log": HERE.log("web", "api"),
    } == {
        "fleet target": "fleet/v1/plant7/down/target",
        "device target": "fleet/v1/plant7/down/device/d1/target",
        "command": "fleet/v1/plant7/down/device/d1/command/restart",
        "broadcast": "fleet/v1/plant7/down/command/report",
        "session": "fleet/v1/plant7/up/d1/session",
        "state": "fleet/v1/plant7/up/d1/state",
        "ack": "fleet/v1/plant7/up/d1/ack",
        "event": "fleet/v1/plant7/up/d1/event",
        "progress": "fleet/v1/plant7/up/d1/progress",
        "response": "fleet/v1/plant7/up/d1/response",
        "log": "fleet/v1/plant7/up/d1/log/web/api",
    }


def test_a_device_subscribes_to_exact_topics() -> None:
    topics = (*HERE.subscriptions, *HERE.commands(("report", "restart")))
    assert HERE.subscriptions == (HERE.fleet_target, HERE.device_target)
    assert not any(mark in topic for topic in topics for mark in "+#")
    assert len(topics) == 6


def test_the_scope_of_a_topic() -> None:
    assert HERE.scope_of(HERE.fleet_target) == "fleet"
    assert HERE.scope_of(HERE.device_target) == "device"
    for other in (HERE.state, CLOUD.device_target("d2"), "fleet/v1/other/down/target", "", HERE.fleet_target + "/"):
        assert HERE.scope_of(other) is None


def test_the_verb_of_a_command() -> None:
    assert HERE.verb_of(HERE.command("restart")) == "restart"
    assert HERE.verb_of(HERE.broadcast("report")) == "report"
    for other in (HERE.command(""), HERE.command("a/b"), HERE.fleet_target, "restart"):
        assert HERE.verb_of(other) is None


@pytest.mark.parametrize(
    ("topic", "may"),
    [
        ("fleet/v1/plant7/up/d1/response", True),
        ("fleet/v1/plant7/reply/cloud-1", True),
        ("fleet/v1/plant7/reply/cloud/1", True),
        ("fleet/v1/plant7/up/d2/response", False),
        ("fleet/v1/plant7/up/d1/state", False),
        ("fleet/v1/plant7/down/target", False),
        ("fleet/v1/plant7/reply/", False),
        ("fleet/v1/plant7/reply", False),
        ("fleet/v1/plant7/reply/a//b", False),
        ("fleet/v1/plant7/reply/+", False),
        ("fleet/v1/plant7/reply/#", False),
        ("fleet/v1/plant70/reply/a", False),
        ("", False),
    ],
)
def test_where_answers_may_go(topic: str, may: bool) -> None:
    assert HERE.may_answer(topic) is may


@pytest.mark.parametrize("value", ["a", "0", "d1", "a-", "a" * 63])
def test_ids(value: str) -> None:
    assert check_id(value, "device id") == value


@pytest.mark.parametrize("value", ["", "-a", "A", "a_b", "a.b", "a/b", "+", "#", "a" * 64, "ä", "a\n", " a", "$a"])
def test_not_ids(value: str) -> None:
    with pytest.raises(ValueError, match="device id"):
        check_id(value, "device id")
    with pytest.raises(ValueError, match="not an id"):
        Topics("fleet/v1", "plant7", value)
    with pytest.raises(ValueError, match="not an id"):
        FleetTopics("fleet/v1", value)


@pytest.mark.parametrize("root", ["fleet/v1", "a", "acme/eu/fleet/v2", "Ünï/ v1"])
def test_roots(root: str) -> None:
    assert check_root(root) == root


@pytest.mark.parametrize(
    "root", ["", "/", "/a", "a/", "a//b", "a/+", "#", "a#", "$SYS/a", "a\0", "a\n", "x" * 129, "\ud800"]
)
def test_not_roots(root: str) -> None:
    with pytest.raises(ValueError, match="topic root"):
        check_root(root)


def test_a_cloud_hears_its_fleet() -> None:
    assert CLOUD.subscriptions() == (
        "fleet/v1/plant7/up/+/session",
        "fleet/v1/plant7/up/+/state",
        "fleet/v1/plant7/up/+/ack",
        "fleet/v1/plant7/up/+/event",
    )
    assert CLOUD.every("log") == "fleet/v1/plant7/up/+/log/+/+"
    assert CLOUD.targets == ("fleet/v1/plant7/down/target", "fleet/v1/plant7/down/device/+/target")
    assert CLOUD.target == HERE.fleet_target
    assert CLOUD.device_target("d1") == HERE.device_target
    assert CLOUD.reply("c1") == "fleet/v1/plant7/reply/c1"


@pytest.mark.parametrize(
    ("topic", "device", "kind"),
    [
        (HERE.state, "d1", "state"),
        (HERE.session, "d1", "session"),
        (HERE.log("web", "api"), "d1", "log"),
        (HERE.device_target, "d1", None),
        (HERE.command("restart"), "d1", None),
        (HERE.fleet_target, None, None),
        ("fleet/v1/plant7/up/d1/other", None, None),
        ("fleet/v1/plant7/up/D1/state", None, None),
        ("fleet/v1/plant7/up/d1", None, None),
        ("fleet/v1/plant8/up/d1/state", None, None),
    ],
)
def test_whose_message_it_is(topic: str, device: str | None, kind: str | None) -> None:
    assert CLOUD.device_of(topic) == device
    assert CLOUD.parse_up(topic) == ((device, kind) if kind else None)
