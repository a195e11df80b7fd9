"""Every row of the protocol's table: what arrives, and what the device answers. Refused is refused whole."""

import json

import pytest

from device_agent.core.policy import Policy
from device_agent.ports import Received
from device_agent.wire.payload import Limits
from tests.builders import app, document, payload, service
from tests.device import TOPICS, Device

WEB = {"web": app(api=service())}


@pytest.fixture
def device():
    """It runs `web` of revision 1.5."""
    made = Device(policy=Policy(), limits=Limits(20_000, 40_000), images=("api:1", "db:1")).boot()
    made.publish(WEB, revision=5)
    made.converge()
    return made


def answer(device: Device, content: bytes, *, own_topic: bool = False):
    """The acks and events that a message leads to; nothing else changes, and it gets its PUBACK."""
    acks, events = len(device.acks()), len(device.events())
    before = {name: c.id for name, c in device.containers().items()}
    device.bring(content, device=own_topic)
    device.wait(30)
    assert {name: c.id for name, c in device.containers().items()} == before
    assert device.broker.unacknowledged == {}
    return device.acks()[acks:], device.events()[events:]


def refusal(device: Device, content: bytes, *, own_topic: bool = False):
    """The one ack that refuses it."""
    (ack,), _ = answer(device, content, own_topic=own_topic)
    assert ack["verdict"] == "rejected"
    assert ack["message"]
    assert "app" not in ack
    if own_topic:
        assert ack["scope"] == "device"
    else:
        assert ack["scope"] == "fleet"
        assert (ack["have"]["epoch"], ack["have"]["revision"]) == (1, 5)
    assert device.state()["have"]["fleet"]["revision"] == 5
    return ack


def pointers(ack) -> list[str]:
    return [error["pointer"] for error in ack["errors"]]


def test_over_a_size_limit(device):
    assert refusal(device, b" " * 20_001)["code"] == "too_large"
    assert refusal(device, payload(WEB, revision=6, release="x" * 100) + b" " * 20_001)["code"] == "too_large"


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b"\xff\xfe", b'{"schema": 1, "schema": 1}', b'{"schema": NaN}', b"[" * 100, b"null", b'"text"'],
)
def test_not_json(device, content):
    assert refusal(device, content)["code"] == "malformed"


def test_another_schema_is_told_with_the_version_it_names(device):
    ack = refusal(device, payload(WEB, schema=2, revision=6))
    assert (ack["code"], ack["epoch"], ack["revision"]) == ("schema", 1, 6)


@pytest.mark.parametrize(
    ("keys", "own_topic"),
    [({"fleet": "other"}, False), ({"device": "d1"}, False), ({"device": "d2"}, True), ({}, True)],
    ids=["another fleet", "a device's on the fleet's topic", "another device", "the fleet's on a device's topic"],
)
def test_another_scope(device, keys, own_topic):
    ack = refusal(device, payload(WEB, revision=6, **keys), own_topic=own_topic)
    assert ack["code"] == "scope"
    assert pointers(ack)[0].startswith("/scope/")


def test_expired(device):
    assert refusal(device, payload(WEB, revision=6, expires_at="2026-11-22T09:59:59Z"))["code"] == "expired"


def test_not_expired_yet(device):
    (ack, *_), _ = answer(device, payload(WEB, revision=6, expires_at="2026-11-22T10:59:59+00:00"))
    assert ack["verdict"] == "accepted"


def test_lower_than_the_floor_is_told_once_per_connection(device):
    ack = refusal(device, payload(WEB, revision=4))
    assert (ack["code"], ack["epoch"], ack["revision"]) == ("stale", 1, 4)
    assert answer(device, payload(WEB, revision=4)) == ([], [])
    assert refusal(device, payload(WEB, revision=3))["code"] == "stale"
    device.broker.disconnect()
    device.broker.connect()
    device.settle()
    assert refusal(device, payload(WEB, revision=4))["code"] == "stale"


def test_an_older_epoch_is_stale_whatever_its_revision(device):
    assert refusal(device, payload(WEB, epoch=0, revision=99))["code"] == "stale"


def test_a_newer_epoch_counts_from_anew(device):
    (ack, *_), _ = answer(device, payload(WEB, epoch=2, revision=1))
    assert ack["verdict"] == "accepted"


def test_a_repetition_is_answered_by_nothing(device):
    assert answer(device, payload(WEB, revision=5)) == ([], [])
    spelled = json.dumps(document(WEB, revision=5), indent=3, sort_keys=True).encode()
    assert answer(device, spelled) == ([], [])


def test_the_same_version_with_another_content_is_a_fork(device):
    (ack,), events = answer(device, payload({"web": app(api=service(user="1"))}, revision=5))
    assert (ack["verdict"], ack["code"]) == ("rejected", "fork")
    assert events == ["target_fork"]
    event = json.loads(device.broker.on(TOPICS.event)[-1].payload)
    assert (event["epoch"], event["revision"], event["digest"]) == (1, 5, ack["digest"])


@pytest.mark.parametrize(
    ("contents", "code", "pointer"),
    [
        ({"web": app(api=service(build="."))}, "unsupported", "/apps/web/services/api/build"),
        ({"web": app(api=service(cpus="x"))}, "invalid", "/apps/web/services/api/cpus"),
        ({"web": app(api={"network_mode": "none"})}, "invalid", "/apps/web/services/api/image"),
        ({"web": app(api=service(depends_on=["db"]))}, "invalid", "/apps/web/services/api/depends_on/0"),
        ({"web": app(api=service(networks=["nowhere"]))}, "invalid", "/apps/web/services/api/networks/0"),
        ({"web": None}, "invalid", "/apps/web"),
        (
            {"web": app(a=service(depends_on=["b"]), b=service(depends_on=["a"]))},
            "cycle",
            "/apps/web/services/b/depends_on",
        ),
        ({"web": app(api=service(privileged=True))}, "policy", "/apps/web/services/api/privileged"),
        ({"web": app(api=service(volumes=["/etc:/e"]))}, "policy", "/apps/web/services/api/volumes/0"),
    ],
)
def test_what_an_app_may_not_say(device, contents, code, pointer):
    ack = refusal(device, payload(contents, revision=6))
    assert (ack["code"], pointers(ack)) == (code, [pointer])


def test_every_wrong_place_is_listed(device):
    contents = {"web": app(a=service(build=".", cpus="x"), b=service(build="."))}
    places = pointers(refusal(device, payload(contents, revision=6)))
    assert places == ["/apps/web/services/a/build", "/apps/web/services/a/cpus", "/apps/web/services/b/build"]


def test_an_unknown_key_at_the_top(device):
    ack = refusal(device, payload(WEB, revision=6, aps={}))
    assert (ack["code"], pointers(ack)) == ("unsupported", ["/aps"])


def test_an_x_key_is_a_warning(device):
    (ack, *_), _ = answer(device, payload(WEB, revision=6, **{"x-note": 1}))
    assert ack["verdict"] == "accepted"
    assert [warning["pointer"] for warning in ack["warnings"]] == ["/x-note"]


def test_one_that_would_leave_nothing(device):
    assert refusal(device, payload({}, revision=6))["code"] == "empty"


def test_one_that_would_leave_nothing_and_says_so(device):
    device.publish({}, revision=6, allow_empty=True)
    device.converge()
    assert device.containers() == {}
    assert device.told()[-1] == "applied 1.6"


def test_a_device_target_that_removes_every_app_must_say_so(device):
    assert refusal(device, payload({"web": None}, device="d1"), own_topic=True)["code"] == "empty"


def test_an_empty_payload_changes_nothing(device):
    assert answer(device, b"") == ([], ["target_cleared"])
    assert device.ups() == {"web/api"}


def test_a_device_target_that_extends_what_is_not_there(device):
    content = payload({"db": {"x-extends": "fleet"}}, device="d1")
    ack = refusal(device, content, own_topic=True)
    assert (ack["code"], pointers(ack)) == ("invalid", ["/apps/db/x-extends"])


def test_a_message_on_a_topic_that_was_not_subscribed_to_is_taken_and_dropped(device):
    device.inbox.put(Received("fleet/v1/plant7/down/elsewhere", b"{}", token="t"))
    device.settle()
    assert device.ups() == {"web/api"}


def test_the_header_is_judged_before_the_keys(device):
    assert refusal(device, payload(WEB, revision=4, aps={}))["code"] == "stale"


def test_a_refusal_says_which_document_it_was(device):
    content = payload({"web": app(api=service(build="."))}, revision=6, release="2026.11")
    ack = refusal(device, content)
    assert (ack["revision"], ack["release"], ack["digest"][:7]) == (6, "2026.11", "sha256:")


def test_a_first_target_that_is_refused_leaves_a_fresh_device_empty():
    device = Device(policy=Policy()).boot()
    device.publish({"web": app(api=service(privileged=True))})
    device.wait(10)
    assert device.told() == ["rejected 1.1 policy"]
    assert "have" not in device.acks()[0]
    assert json.loads(device.broker.retained[TOPICS.state])["have"] == {"fleet": None, "device": None}
