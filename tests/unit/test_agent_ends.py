"""The agent's beginnings and ends: restarts, lost databases, restores, a full disk, SIGTERM."""

import base64
import json

import pytest

from cloud_sim.engine_parts import Behaviour
from device_agent.model.errors import Kind
from device_agent.runtime.agent import Died
from device_agent.runtime.ending import LAST_LOOK_S
from device_agent.runtime.inbox import ThreadDied
from device_agent.runtime.workers import CALL, STOP
from tests.builders import app, payload, service
from tests.device import TOPICS, Device, Jobs, PowerCut, settled

WEB = {"web": app(api=service())}
WEB2 = {"web": app(api=service("api:2"))}
TWO = {"web": app(api=service()), "db": app(db=service("db:1"))}
ALL = ("api:1", "api:2", "db:1")


def touched(device: Device) -> set[str]:
    """The engine's calls since the fuse was reset, without looking and reading."""
    return {name for name in device.fuse.calls if name in {"create", "start", "stop", "remove", "pull"}}


# Restart.


def test_a_restart_touches_nothing_and_says_nothing_new():
    device = settled(TWO)
    acks = {ack["seq"]: ack for ack in device.acks()}
    device.cut_power()
    device.boot().converge()
    assert touched(device) == set()
    # Rows that the broker had were not deleted yet: they are sent once more, as they were.
    assert {ack["seq"]: ack for ack in device.acks()} == acks
    assert device.state()["converged"]


def test_a_restart_offline_runs_the_last_target_from_local_images():
    device = settled()
    device.world.registry_down = True
    device.world.rm(device.containers()["web/api"].id)
    device.cut_power(world_too=True)
    device.boot(connect=False)
    device.wait(5)
    assert device.ups() == {"web/api"}
    assert device.broker.started


def test_a_stop_leaves_the_last_state_however_soon_after_the_one_before():
    device = settled()
    device.publish(WEB2, revision=2)
    device.publish({"db": app(db=service("db:1"))}, device="d1")
    assert device.state()["have"]["device"] is None, "or there is nothing left to tell"
    device.stop()
    assert device.state()["have"]["device"]["revision"] == 1
    assert device.broker.sent[-1].topic == TOPICS.session


def test_a_stop_in_the_middle_of_a_replacement_tells_what_has_become_of_it():
    device = replacing()
    device.stop()
    device.jobs.held.clear()
    device.settle()
    assert device.agent.ending.finished
    (runs,) = (container.name for container in device.world.containers.values() if container.status == "running")
    told = device.state()["apps"]["web"]["services"]["api"]
    assert (told["container"], told["status"]) == (runs, "running")


def test_a_stop_does_not_wait_for_an_engine_that_does_not_tell():
    device = replacing()
    device.agent.reconciler.looks.workers = Jobs()  # nobody carries them out
    device.stop()
    device.jobs.held.clear()
    device.settle()
    assert not device.agent.ending.finished
    device.wait(LAST_LOOK_S)
    assert device.agent.ending.finished


def replacing() -> Device:
    """The one that is replaced is being stopped, and takes its time."""
    device = settled(WEB)
    device.wait(10)
    device.jobs.held = {STOP}
    device.publish(WEB2, revision=2)
    device.wait(3)
    assert device.state()["apps"]["web"]["services"]["api"]["status"] == "stopping"
    return device


def test_the_first_look_is_on_its_way_before_the_network_is_thought_of():
    device = settled()
    device.cut_power()
    ready = []
    start = device.broker.start

    def watched(**keys):
        ready.append(len(device.jobs.waiting))
        start(**keys)

    device.broker.start = watched
    device.boot()
    assert ready == [1]


def test_back_off_survives_a_restart():
    device = settled()
    device.publish({"web": app(api=service("nowhere:1"))}, revision=2)
    device.wait(600)
    before = device.state()["apps"]["web"]["services"]["api"]["reason"]["attempt"]
    device.cut_power()
    device.boot()
    device.wait(3)
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["attempt"] >= before > 3


def test_a_clock_that_jumped_back_ten_years_delays_no_retry():
    device = settled()
    device.publish({"web": app(api=service("late:1"))}, revision=2)
    device.wait(300)
    device.clock.time = device.clock.time.replace(year=2016)
    device.world.offer_image("late:1")
    device.wait(310)
    assert device.containers()["web/api"].made.image == "late:1"


def test_a_session_number_is_never_used_twice():
    device = settled()
    numbers = []
    for _ in range(100):
        device.cut_power()
        device.boot(connect=False)
        numbers.append(device.broker.connect())
    assert numbers == sorted(set(numbers))


# A lost database.


def lost(device: Device, good: bool = False) -> None:
    device.cut_power()
    if not good:
        device.store.good = ()
        device.store.rows.floors = {}
    device.store.lose_database()
    if not good:
        device.store.rows.floors = {}


def test_a_lost_database_touches_nothing_that_runs():
    device = settled(TWO, revision=7)
    device.broker.retained.pop(TOPICS.fleet_target)
    lost(device)
    device.boot()
    device.wait(3600)
    assert touched(device) == set()
    assert device.ups() == {"web/api", "db/db"}
    state = device.state()
    assert state["apps"]["web"]["reason"]["code"] == "target_unknown"
    assert (state["apps"]["web"]["phase"], state["apps"]["web"]["revision"]) == ("held", [1, 7])
    assert "store_recovered" in device.events()


def test_after_a_lost_database_the_labels_are_the_floor():
    device = settled(revision=7)
    device.broker.retained.pop(TOPICS.fleet_target)
    lost(device)
    device.boot()
    device.publish(WEB2, revision=6)
    device.wait(10)
    assert device.told()[-1] == "rejected 1.6 stale"
    assert device.containers()["web/api"].made.image == "api:1"


def test_after_a_lost_database_the_same_target_is_taken_again_and_nothing_is_touched():
    device = settled(TWO, revision=7)
    lost(device)
    device.boot().converge()
    assert touched(device) == set()
    assert device.told()[-2:] == ["accepted 1.7", "applied 1.7"]


def test_after_a_lost_database_a_newer_target_removes_what_it_does_not_name():
    device = settled(TWO, revision=7)
    lost(device)
    device.broker.retained.pop(TOPICS.fleet_target)
    device.boot()
    device.wait(3)
    device.publish(WEB, revision=8)
    device.converge()
    assert device.ups() == {"web/api"}


def test_a_fleet_target_removes_nothing_of_a_device_target_that_was_lost():
    device = settled(WEB)
    device.publish({"own": app(db=service("db:1"))}, device="d1", revision=3)
    device.converge()
    lost(device)
    device.broker.retained.pop(TOPICS.device_target)
    device.boot()
    device.wait(700)
    assert device.ups() == {"web/api", "own/db"}
    assert device.state()["apps"]["own"]["phase"] == "held"


def test_the_sidecar_brings_the_last_good_target_back():
    device = settled(WEB, revision=7)
    lost(device, good=True)
    device.boot(connect=False)
    device.world.rm(device.containers()["web/api"].id)
    device.wait(5)
    assert device.ups() == {"web/api"}


def test_an_empty_target_on_a_device_that_lost_its_database_removes_nothing():
    device = settled(WEB, revision=7)
    lost(device)
    device.broker.retained.pop(TOPICS.fleet_target)
    device.boot()
    device.publish({}, revision=8)
    device.wait(10)
    assert device.told()[-1] == "rejected 1.8 empty"
    assert device.ups() == {"web/api"}


def test_where_the_floor_alone_is_known_an_empty_target_waits_for_the_first_look():
    """Of a release that was never good the sidecar has the number, and not the apps."""
    device = settled(WEB, revision=7)
    device.cut_power()
    device.store.good = ()
    device.store.lose_database()
    assert device.store.rows.floors
    device.broker.retained.pop(TOPICS.fleet_target)
    device.world.away = True
    device.boot()
    device.publish({}, revision=8)
    device.wait(10)
    assert len(device.broker.unacknowledged) == 1
    device.world.away = False
    device.wait(60)
    assert device.told()[-1] == "rejected 1.8 empty"
    assert device.ups() == {"web/api"}


# Backup and restore.


def test_a_restore_goes_back_and_the_newest_target_comes_again():
    device = settled(WEB)
    content = device.ask("backup")["result"]["content"]
    device.publish(WEB2, revision=2)
    device.converge()
    answer = device.ask("restore", content=content)
    assert answer == {"status": "ok", "result": {"targets": {"fleet": [1, 1]}}}
    assert device.store.rows.floors["fleet"].version == (1, 2)
    device.wait(5)
    assert device.containers()["web/api"].made.image == "api:1"
    device.broker.disconnect()
    device.broker.connect()
    device.converge()
    assert device.containers()["web/api"].made.image == "api:2"


def test_a_restore_of_something_else_changes_nothing():
    device = settled(WEB)
    for content in ("no base64", base64.b64encode(b"x" * 100).decode()):
        assert device.ask("restore", content=content)["status"] == "error"
    assert device.state()["have"]["fleet"]["revision"] == 1


# A full disk.


def test_on_a_full_disk_everything_runs_on_and_is_told_later():
    device = settled(WEB)
    device.store.full = True
    device.publish(WEB2, revision=2)
    device.world.rm(device.containers()["web/api"].id)
    device.wait(60)
    assert device.ups() == {"web/api"}
    assert device.told()[-1] == "applied 1.1"
    assert device.state()["store"]["status"] == "full"
    device.store.full = False
    device.converge()
    assert device.told()[-1] == "applied 1.2"
    assert "drift" in device.events()
    assert device.state()["store"]["status"] == "ok"


def test_on_a_full_disk_a_refusal_gets_no_puback_before_it_is_stored():
    device = settled(WEB)
    before = len(device.pubacked())
    device.store.full = True
    device.bring(b"{")
    device.wait(30)
    assert len(device.pubacked()) == before
    device.store.full = False
    device.converge()
    assert device.told()[-1] == "rejected malformed"
    assert len(device.pubacked()) == before + 1


@pytest.mark.parametrize("moment", range(24))
def test_a_disk_that_fills_up_at_any_moment_of_an_apply(moment):
    device = Device(images=ALL).boot()
    device.wait(3)
    device.broker.arrive(TOPICS.fleet_target, payload(WEB))
    for _ in range(moment):
        device.step()
    device.store.full = True
    device.wait(30)
    device.broker.disconnect()
    device.broker.connect()
    device.wait(30)
    device.store.full = False
    device.converge()
    assert device.ups() == {"web/api"}
    assert device.told()[-1] == "applied 1.1"


def test_a_disk_that_is_full_at_every_connection_does_not_end_the_agent():
    device = settled(WEB)
    device.store.full = True
    for _ in range(40):
        device.broker.disconnect()
        device.settle()
        device.broker.connect()
        device.wait(3)
    device.store.full = False
    device.wait(10)
    assert device.state()["store"]["status"] == "ok"


@pytest.mark.parametrize("days", [0, 400])
@pytest.mark.parametrize("reboots", [0, 3])
def test_sessions_rise_over_a_boot_on_a_full_disk_without_the_file_for_it(reboots: int, days: int):
    device = settled(WEB)
    device.store.spare = None
    sessions = [device.broker.session]

    def reboot() -> None:
        device.cut_power()
        device.boot()
        device.wait(3)
        sessions.append(device.broker.session)

    # At once, one after the other: so the numbers that are on disk get ahead of the clock's seconds.
    for _ in range(reboots):
        reboot()
    device.clock.pass_(days * 86400)
    device.store.full = True
    reboot()
    device.store.full = False
    reboot()
    assert sessions == sorted(set(sessions))


@pytest.mark.parametrize("connections", [1, 70])
@pytest.mark.parametrize("good_boots", [0, 2])
def test_sessions_rise_over_boots_on_a_full_disk(good_boots: int, connections: int):
    """Also where it gets room, or loses it, while an agent runs; all at once, so ahead of the clock's seconds."""
    device = settled(WEB)
    sessions = [device.broker.session]

    def reboot(*, full: bool) -> None:
        device.cut_power()
        device.store.full = full
        device.boot(connect=False)
        for _ in range(connections):
            sessions.append(device.broker.connect())
            device.broker.disconnect()
            device.settle()

    for _ in range(2):
        for _ in range(good_boots):
            reboot(full=False)
        for _ in range(2):
            reboot(full=True)
        device.store.full = False
        sessions.append(device.broker.connect())
        device.settle()
    assert sessions == sorted(set(sessions))


def test_sessions_rise_wherever_a_boot_on_a_full_disk_was_cut_off():
    at, cuts = 0, []
    while len(cuts) == at:
        at += 1
        device = settled(WEB)
        sessions = [device.broker.session]
        device.cut_power()
        device.store.full = True
        device.fuse.reset(at)
        try:
            device.boot(connect=False)
            device.broker.connect()
            device.settle()
        except PowerCut as cut:
            cuts.append(str(cut))
        if device.broker.session not in (sessions[0], None):
            sessions.append(device.broker.session)
        for full in (True, False):
            device.cut_power()
            device.store.full = full
            device.boot(connect=False)
            sessions.append(device.broker.connect())
        assert sessions == sorted(set(sessions)), device.fuse.calls
    assert {"spare", "spared"} <= set(cuts)


def test_a_boot_on_a_full_disk_runs_what_is_stored_and_tells_it():
    device = settled(WEB, revision=7)
    session = device.broker.session
    device.cut_power()
    device.store.full = True
    device.world.rm(device.containers()["web/api"].id)
    device.boot()
    device.wait(10)
    assert device.ups() == {"web/api"}
    assert device.state()["session"] >= session


def test_a_lost_database_on_a_full_disk_keeps_the_floor_of_the_labels():
    device = settled(WEB, revision=7)
    device.broker.retained.pop(TOPICS.fleet_target)
    lost(device)
    device.store.full = True
    device.boot()
    device.publish(WEB2, revision=6)
    device.wait(30)
    assert device.containers()["web/api"].made.image == "api:1"
    device.store.full = False
    device.wait(30)
    assert device.store.rows.floors["fleet"].version == (1, 7)
    assert device.told()[-1] == "rejected 1.6 stale"


# SIGTERM.


def test_a_stop_says_farewell_and_leaves_everything_running():
    device = settled(TWO)
    device.stop()
    assert device.agent.ending.finished
    assert device.ups() == {"web/api", "db/db"}
    farewell = json.loads(device.broker.retained[TOPICS.session])
    assert (farewell["online"], farewell["reason"]) == (False, "stopped")


def test_a_stop_in_the_middle_of_a_replacement_finishes_it():
    device = settled(WEB)
    device.jobs.held.add(STOP)
    device.publish(WEB2, revision=2)
    device.settle()
    assert [lane for lane, _ in device.jobs.waiting] == [STOP]
    device.stop()
    assert not device.agent.ending.finished
    device.jobs.held.clear()
    device.settle()
    assert device.agent.ending.finished
    assert "web/api" in device.ups()
    (up,) = [c for c in device.world.containers.values() if c.up]
    assert up.made.image == "api:2"


def test_a_stop_before_a_replacement_has_stopped_anything_does_not_begin_it():
    device = settled(WEB)
    device.wait(60)
    device.jobs.held.add(CALL)
    device.publish(WEB2, revision=2)
    device.settle()
    device.stop()
    device.jobs.held.clear()
    device.settle()
    assert device.agent.ending.finished
    (up,) = [c for c in device.world.containers.values() if c.up]
    assert up.made.image == "api:1"


def test_a_stop_waits_only_so_long_for_the_engine():
    device = settled(WEB)
    device.jobs.held.add(STOP)
    device.publish(WEB2, revision=2)
    device.settle()
    device.stop()
    device.wait(8.5)
    assert device.agent.ending.finished


def test_a_slow_stop_is_cut_short_so_that_the_replacement_runs_when_the_agent_is_gone():
    device = settled(WEB)
    (old,) = device.containers().values()
    device.jobs.held.add(STOP)
    device.publish(WEB2, revision=2)
    device.settle()
    device.stop()
    device.wait(5.5)
    assert device.world.containers[old.id].up
    device.wait(1)
    assert not device.world.containers[old.id].up
    device.jobs.held.clear()
    device.settle()
    assert device.agent.ending.finished
    (up,) = [c for c in device.world.containers.values() if c.up]
    assert up.made.image == "api:2"


def test_what_is_only_to_go_keeps_its_grace_when_the_agent_is_told_to_stop():
    device = settled(TWO)
    device.jobs.held.add(STOP)
    device.publish({"web": TWO["web"]}, revision=2)
    device.settle()
    device.stop()
    device.wait(9)
    assert device.agent.ending.finished
    assert device.ups() == {"web/api", "db/db"}


def test_a_replacement_that_fails_during_a_stop_is_made_good_by_the_next_agent():
    device = settled(WEB)
    device.world.add_image("bad:1", behaviour=Behaviour(start_error=("bad_command", Kind.TARGET)))
    device.jobs.held.add(STOP)
    device.publish({"web": app(api=service("bad:1"))}, revision=2)
    device.settle()
    device.stop()
    device.jobs.held.clear()
    device.settle()
    assert device.agent.ending.finished
    device.cut_power()
    device.boot()
    device.wait(10)
    (up,) = [c for c in device.world.containers.values() if c.up]
    assert up.made.image == "api:1"


def test_a_thread_that_ended_ends_the_agent():
    device = settled(WEB)
    device.inbox.put(ThreadDied("the engine watch", "boom"))
    with pytest.raises(Died, match="the engine watch"):
        device.settle()
