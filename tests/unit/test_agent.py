"""The owner loop over fakes: from a target to running containers and back, in order, and what overtakes what."""

import json

from device_agent.runtime.workers import PULL
from tests.builders import app, payload, service
from tests.device import OWNER, TOPICS, Device, online, settled

WEB = {"web": app(api=service())}
WEB2 = {"web": app(api=service("api:2"))}
ALL = ("api:1", "api:2", "db:1", "db:2")


# A target in.


def test_a_target_becomes_containers_and_is_answered_step_by_step():
    device = settled(release="r1")
    assert device.ups() == {"web/api"}
    assert device.told() == ["accepted 1.1", "applying 1.1 web", "applied 1.1 web", "applied 1.1"]
    assert {ack["release"] for ack in device.acks()} == {"r1"}
    numbers = [ack["seq"] for ack in device.acks()]
    assert numbers == sorted(set(numbers))
    assert device.state()["converged"]
    assert device.state()["apps"]["web"]["services"]["api"]["status"] == "running"


def test_the_puback_is_sent_when_the_target_is_on_disk_and_not_before():
    device = online()
    device.wait(3)
    device.fuse.reset()
    device.publish(WEB)
    assert device.fuse.calls.index("committed") < device.fuse.calls.index("puback")
    device.store.full = True
    device.publish(WEB2, revision=2)
    device.wait(60)
    assert len(device.pubacked()) == 1
    assert device.ups() == {"web/api"}


def test_acks_are_gone_from_the_outbox_only_when_the_broker_has_them():
    device = online()
    device.wait(3)
    device.broker.hold_pubacks = True
    device.publish(WEB)
    device.wait(5)
    assert device.store.rows.outbox
    device.broker.disconnect()
    device.broker.hold_pubacks = False
    device.broker.connect()
    device.converge()
    assert sorted(set(device.told())) == sorted(["accepted 1.1", "applying 1.1 web", "applied 1.1 web", "applied 1.1"])
    sequence = [ack["seq"] for ack in device.acks()]
    assert sorted(set(sequence)) == list(range(min(sequence), max(sequence) + 1))


def test_three_queued_revisions_are_one_change():
    device = Device(images=ALL).boot()
    for revision in (1, 3, 2):
        device.broker.arrive(TOPICS.fleet_target, payload(WEB, revision=revision))
    device.settle()
    device.converge()
    assert device.told() == ["accepted 1.3", "applying 1.3 web", "applied 1.3 web", "applied 1.3"]
    assert len(device.pubacked()) == 3


def test_both_scopes_answered_end_the_settle_time():
    device = Device(images=ALL).boot()
    device.broker.arrive(TOPICS.fleet_target, payload(WEB))
    device.settle()
    assert device.told() == []
    device.broker.arrive(TOPICS.device_target, payload({"extra": app(db=service("db:1"))}, device="d1"))
    device.settle()
    assert "accepted 1.1" in device.told()
    device.converge()
    assert device.ups() == {"web/api", "extra/db"}


def test_a_refused_newest_does_not_hide_the_newest_that_is_good():
    device = Device(images=ALL).boot()
    device.broker.arrive(TOPICS.fleet_target, payload(WEB, revision=1))
    device.broker.arrive(TOPICS.fleet_target, payload({"web": app(api=service(build="."))}, revision=2))
    device.converge()
    assert device.ups() == {"web/api"}
    assert device.told()[:2] == ["rejected 1.2 unsupported", "accepted 1.1"]


def test_an_update_that_leaves_an_app_as_it_is_says_nothing_of_it():
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"))})
    before = device.containers()["db/db"].id
    device.publish({"web": app(api=service("api:2")), "db": app(db=service("db:1"))}, revision=2)
    device.converge()
    assert device.told()[-4:] == ["accepted 1.2", "applying 1.2 web", "applied 1.2 web", "applied 1.2"]
    assert device.containers()["db/db"].id == before


def test_only_another_release_name_is_applied_without_touching_anything():
    device = settled(release="a")
    before = device.containers()["web/api"]
    device.publish(WEB, revision=2, release="b")
    device.converge()
    assert device.told()[-2:] == ["accepted 1.2", "applied 1.2"]
    assert device.containers()["web/api"] is before


def test_a_newer_target_overtakes_one_that_cannot_be_reached():
    device = settled()
    device.publish({"web": app(api=service("nowhere:1"))}, revision=2)
    device.wait(20)
    assert "failed 1.2 web api no_such_image" in device.told()
    device.publish(WEB2, revision=3)
    device.converge()
    assert device.told()[-5:] == [
        "superseded 1.2",
        "accepted 1.3",
        "applying 1.3 web",
        "applied 1.3 web",
        "applied 1.3",
    ]


def test_a_newer_target_cancels_a_pull_that_nobody_needs_any_more():
    device = settled()
    device.world.offer_image("big:1")
    device.jobs.held.add(PULL)
    device.publish({"web": app(api=service("big:1"))}, revision=2)
    device.wait(5)
    assert len(device.agent.reconciler.pulls.under_way) == 1
    device.publish(WEB2, revision=3)
    device.converge()
    device.jobs.held.clear()
    device.settle()
    assert device.agent.reconciler.pulls.under_way == {}
    assert "docker.io/library/big:1" not in device.world.images


def test_the_device_target_lies_over_the_fleets():
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"))})
    extended = {"x-extends": "fleet", "services": {"api": {"environment": {"A": "1"}}}}
    device.publish({"web": extended, "db": None}, device="d1")
    device.converge()
    assert device.ups() == {"web/api"}
    assert device.containers()["web/api"].made.service.environment == {"A": "1"}
    assert device.containers()["web/api"].labels["device-agent.revision"] == "device:1.1"
    assert [ack["scope"] for ack in device.acks()[-1:]] == ["device"]


def test_the_order_in_which_the_scopes_arrive_means_nothing():
    extended = {"x-extends": "fleet", "services": {"api": {"environment": {"A": "1"}}}}
    device = settled({"db": app(db=service("db:1"))})
    device.publish({"web": extended}, device="d1")
    device.converge()
    assert device.told()[-1] == "rejected 1.1 invalid"
    device.publish(WEB, revision=2)
    device.converge()
    assert device.told().count("accepted 1.1") == 2
    assert device.containers()["web/api"].made.service.environment == {"A": "1"}
    device.publish({"db": app(db=service("db:2"))}, revision=3)
    device.converge()
    assert device.told()[-1] == "rejected 1.3 invalid"
    device.publish({}, device="d1", revision=2)
    device.converge()
    assert device.ups() == {"db/db"}
    assert device.told().count("rejected 1.3 invalid") == 1


def test_a_refused_target_that_was_taken_back_is_not_judged_again():
    device = settled()
    device.publish({"db": {"x-extends": "fleet"}}, device="d1")
    device.bring(b"", device=True)
    device.publish({**WEB, "db": app(db=service("db:1"))}, revision=2)
    device.converge()
    assert device.agent.rollout.targets.keys() == {"fleet"}


def test_the_scopes_arrive_together_after_a_connection_and_are_good_only_together():
    device = settled()
    device.publish({"web": {"x-extends": "fleet"}}, device="d1")
    device.converge()
    device.broker.disconnect()
    device.publish({"db": app(db=service("db:1"))}, revision=2)
    device.publish({}, device="d1", revision=2)
    device.broker.connect()
    device.converge()
    assert device.ups() == {"db/db"}
    assert not [ack for ack in device.told() if ack.startswith("rejected")]


def test_a_device_never_says_converged_while_something_unwanted_is_there():
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"))})
    false = []

    def watch():
        names = {c.app for c in device.world.containers.values() if c.owned_by(OWNER)}
        state = device.agent.current.read()
        if state.converged and state.have["fleet"].version.revision == 2 and names != {"web"}:
            false.append(names)

    device.watch = watch
    device.publish({"web": app(api=service())}, revision=2)
    watch()
    device.converge()
    for sent in device.broker.on(TOPICS.state):
        told = json.loads(sent.payload)
        if told["converged"] and told["have"]["fleet"]["revision"] == 2:
            assert set(told["apps"]) == {"web"}
    assert false == []


def test_two_targets_that_are_good_only_together_are_accepted_together():
    device = settled()
    device.publish({"web": {"x-extends": "fleet"}}, device="d1")
    device.converge()
    device.publish({"db": app(db=service("db:1"))}, revision=2)
    assert device.told()[-1] == "rejected 1.2 invalid"
    device.publish({"db": {"x-extends": "fleet", "services": {"db": {"user": "7"}}}}, device="d1", revision=2)
    device.converge()
    assert device.containers()["db/db"].made.service.user == "7"
    assert device.ups() == {"db/db"}
    versions = {scope: accepted.target.version for scope, accepted in device.agent.rollout.targets.items()}
    assert versions == {"fleet": (1, 2), "device": (1, 2)}
    assert all(accepted.ended == "applied" for accepted in device.agent.rollout.targets.values())
    assert len(device.pubacked()) == 4
    device.boot().converge()
    assert device.ups() == {"db/db"}


def test_a_newer_target_at_any_moment_of_an_apply_is_the_one_that_stays():
    both = {"web": app(api=service()), "bad": app(api=service("nowhere:1"))}
    for moment in range(40):
        device = online()
        device.wait(3)
        device.broker.arrive(TOPICS.fleet_target, payload(both))
        for _ in range(moment):
            device.step()
        device.jobs.run_one()
        device.broker.arrive(TOPICS.fleet_target, payload(WEB2, revision=2))
        device.wait(30)
        assert device.store.rows.targets["fleet"].target.version == (1, 2), moment
        device.converge()
        numbers = [ack["seq"] for ack in device.acks()]
        assert numbers == sorted(numbers)
        told = device.told()
        assert not [ack for ack in told[told.index("accepted 1.2") :] if " 1.1" in ack], f"{moment}: {told}"
        device.cut_power()
        device.boot().converge()
        assert device.containers()["web/api"].made.image == "api:2"


def test_a_target_takes_over_what_the_one_before_it_had_not_reached():
    device = settled()
    late = app(api=service("late:1"))
    device.publish({"web": late}, revision=2)
    device.wait(20)
    device.publish({"web": late, "db": app(db=service("db:1"))}, revision=3)
    device.wait(20)
    assert "applied 1.3 db" in device.told()
    assert "applied 1.3" not in device.told()
    assert device.told().count("failed 1.3 web api no_such_image") == 1
    device.world.offer_image("late:1")
    device.converge()
    assert device.told()[-2:] == ["applied 1.3 web", "applied 1.3"]
