"""The port `Engine`: the simulated and the real engine pass the same suite.

`test_docker_engine.py` is what only the real one can show.
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from device_agent.core.limits import changed
from device_agent.model.compose import File, Healthcheck, Mount, Port, Restart
from device_agent.model.errors import Cancelled, EngineAway, EngineError, Kind
from device_agent.model.image import normalise
from device_agent.model.log import LogLine
from device_agent.model.observed import (
    LABEL_NUMBER,
    LABEL_SERVICE,
    LABEL_SPEC,
    LABEL_UPDATE_LOCK,
    LABEL_VOLUME,
    UPDATE_LOCK,
    EngineEvent,
    Health,
    Status,
    moment,
)
from device_agent.model.steps import Connect, CreateVolume, Endpoint, Fill
from tests.contract.engine_bench import APP, CHECKED, Bench, DockerBench, SimulatedBench
from tests.eventually import eventually


@pytest.fixture(
    params=[
        pytest.param(SimulatedBench, id="simulated"),
        pytest.param(DockerBench, id="docker", marks=pytest.mark.docker),
    ]
)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench: Bench = request.param()
    try:
        yield bench
    finally:
        bench.close()


def failure(call: Callable[..., object], *arguments: object) -> tuple[str, Kind]:
    with pytest.raises(EngineError) as caught:
        call(*arguments)
    assert caught.value.message
    assert len(caught.value.message) < 700
    return caught.value.code, caught.value.kind


def test_a_created_container_is_seen_as_it_was_asked_for(bench: Bench) -> None:
    network = bench.network()

    made = bench.created(bench.on_network("api", network))

    assert (made.app, made.service, made.spec) == (APP, "api", "s1")
    assert made.status is Status.CREATED
    assert not made.up
    assert made.image == normalise(bench.image)
    assert made.image_id == bench.engine.observe().images[made.image]
    assert made.networks == {network.name: bench.network_id(network.name)}
    assert (made.exit_code, made.started_at, made.restarts, made.error, made.health) == (None, None, 0, "", None)
    assert made.restart == "no"


def test_of_several_containers_of_a_service_each_is_known(bench: Bench) -> None:
    second = bench.step("api-2")
    labels = {**second.labels, LABEL_SERVICE: "api", LABEL_NUMBER: "2"}

    made = bench.created(replace(second, labels=labels))

    assert made.service == "api#2"


def test_a_started_container_runs_and_starting_it_again_changes_nothing(bench: Bench) -> None:
    network = bench.network()
    first = bench.started(bench.on_network("api", network))
    assert first.status is Status.RUNNING
    assert first.up
    assert first.created_at
    assert moment(first.created_at) < moment(first.started_at)
    assert first.exit_code is None
    assert first.networks == {network.name: bench.network_id(network.name)}

    bench.engine.start(first.id)

    assert bench.seen(first.name) == first


def test_every_image_is_known_by_its_reference_and_by_its_id(bench: Bench) -> None:
    images = bench.engine.observe().images

    ids = {images[normalise(reference)] for reference in (bench.image, bench.image.replace(":1", ":2"))}
    assert len(ids) == 2
    assert all(images[id_] == id_ for id_ in ids)


def test_an_image_that_is_not_there_is_the_targets_fault(bench: Bench) -> None:
    assert failure(bench.engine.create, bench.step(image="no-such-image:1")) == ("no_such_image", Kind.TARGET)


def test_a_name_that_is_taken(bench: Bench) -> None:
    bench.created(bench.step("api"))
    bench.foreign("stranger")

    assert failure(bench.engine.create, bench.step("api")) == ("name_in_use", Kind.TEMPORARY)
    assert failure(bench.engine.create, bench.step("stranger")) == ("name_in_use", Kind.OUTSIDE)


def test_stopping(bench: Bench) -> None:
    running = bench.started(bench.step())

    bench.engine.stop(running.id, 0.2)
    bench.engine.stop(running.id, 0.2)

    stopped = bench.seen(running.name)
    assert stopped.status is Status.EXITED
    assert stopped.exit_code not in (None, 0)
    assert not stopped.completed
    bench.engine.start(running.id)
    again = bench.seen(running.name)
    assert again.status is Status.RUNNING
    assert moment(again.started_at) > moment(running.started_at)
    assert again.created_at == running.created_at


def fill(bench: Bench, *files: File, spec: str = "s1") -> Fill:
    labels = bench.labels(**{LABEL_SERVICE: "api", LABEL_NUMBER: "", LABEL_SPEC: spec})
    return Fill(CreateVolume(bench.name("files"), labels, driver="local"), files, bench.image)


def test_files_are_mounted_read_only_each_where_it_is_wanted(bench: Bench) -> None:
    secret = File(target="/run/secrets/deep/one", content="über\n", uid=1000, gid=7, mode=0o400)
    config = File(target="/one.conf", content="1")
    filling = fill(bench, config, secret)
    bench.engine.fill(fill(bench, config.model_copy(update={"content": "0"}), secret))
    bench.engine.fill(filling)
    assert bench.engine.observe().containers == ()

    wanted = replace(
        bench.step(user="1000:1000", read_only=True, tmpfs=("/run",), files=filling.files), files=filling.volume.name
    )
    made = bench.started(wanted)

    assert bench.files(made.id, secret.target, config.target) == (secret, config)
    assert bench.engine.has_file(made.id, config.target)
    bench.engine.stop(made.id, 0)
    assert failure(bench.engine.remove_volume, filling.volume.name) == ("volume_in_use", Kind.OUTSIDE)
    bench.engine.start(made.id)
    assert bench.files(made.id, secret.target) == (secret,)

    bench.engine.remove(made.id)
    (left,) = (v for v in bench.engine.observe().volumes if v.name == filling.volume.name)
    assert (left.app, left.key, left.service, left.spec) == (APP, None, "api", "s1")
    bench.engine.remove_volume(filling.volume.name)
    assert filling.volume.name not in {v.name for v in bench.engine.observe().volumes}
    assert failure(bench.engine.create, wanted) == ("volume_missing", Kind.TEMPORARY)


def test_a_volume_is_filled_again_while_a_container_has_it(bench: Bench) -> None:
    file = File(target="/run/secrets/one", content="1")
    filling = fill(bench, file)
    bench.engine.fill(filling)
    made = bench.started(replace(bench.step(files=filling.files), files=filling.volume.name))
    bench.engine.fill(filling)
    assert bench.files(made.id, file.target) == (file,)
    bench.engine.stop(made.id, 0)
    bench.engine.start(made.id)
    assert bench.files(made.id, file.target) == (file,)


def test_files_are_not_put_into_a_volume_that_is_not_ours(bench: Bench) -> None:
    foreign = bench.foreign_volume("files")
    assert failure(bench.engine.fill, fill(bench, File(target="/a", content="a"))) == ("name_in_use", Kind.OUTSIDE)
    assert bench.engine.observe().containers == ()
    seen = next(v for v in bench.engine.observe().volumes if v.name == foreign)
    assert (seen.app, seen.service) == (None, None)


def test_nobody_hears_of_what_a_volume_is_filled_through(bench: Bench) -> None:
    with bench.listening() as events:
        bench.engine.fill(fill(bench, File(target="/a", content="a")))
        made = bench.created(bench.step())
        eventually(lambda: any(event.id == made.id for event in events), 5, "the next container is heard of")
    assert {event.id for event in events if event.kind == "container"} == {made.id}


def test_what_is_gone_counts_as_stopped_removed_and_disconnected(bench: Bench) -> None:
    gone = "0" * 64
    bench.engine.stop(gone, 1)
    bench.engine.remove(gone)
    bench.engine.disconnect(gone, "bridge")
    bench.engine.remove_network(gone)
    assert bench.engine.tail(gone, 10) == ""


def test_what_is_gone_cannot_be_started_renamed_or_connected(bench: Bench) -> None:
    gone, network = "0" * 64, bench.network()
    for call in (
        lambda: bench.engine.start(gone),
        lambda: bench.engine.rename(gone, bench.name("x")),
        lambda: bench.engine.connect(Connect(gone, Endpoint(network.name))),
    ):
        assert failure(call) == ("no_such_container", Kind.TEMPORARY)


def test_removing_kills_and_takes_anonymous_volumes_but_never_a_named_one(bench: Bench) -> None:
    volume = bench.volume()
    mounts = (Mount(type="volume", target="/a", source=volume.name), Mount(type="volume", target="/b"))
    running = bench.started(bench.step(mounts=mounts))
    anonymous = bench.anonymous_volume(running.name)
    assert anonymous in {v.name for v in bench.engine.observe().volumes}

    bench.engine.remove(running.id)

    assert bench.find(running.name) is None
    left = {v.name for v in bench.engine.observe().volumes}
    assert volume.name in left
    assert anonymous not in left


def test_renaming(bench: Bench) -> None:
    made = bench.created(bench.step("old"))
    bench.created(bench.step("taken"))

    bench.foreign("stranger")

    assert failure(bench.engine.rename, made.id, bench.name("taken")) == ("name_in_use", Kind.TEMPORARY)
    assert failure(bench.engine.rename, made.id, bench.name("stranger")) == ("name_in_use", Kind.OUTSIDE)
    bench.engine.rename(made.id, bench.name("old"))
    bench.engine.rename(made.id, bench.name("new"))

    assert bench.seen(bench.name("new")).id == made.id


def test_an_image_goes_only_when_no_container_uses_it(bench: Bench) -> None:
    image = bench.spare_image("image")
    user = bench.created(bench.step(image=image))

    assert failure(bench.engine.remove_image, normalise(image)) == ("image_in_use", Kind.OUTSIDE)
    assert normalise(image) in bench.engine.observe().images

    bench.engine.remove(user.id)
    bench.engine.remove_image(normalise(image))
    assert normalise(image) not in bench.engine.observe().images
    bench.engine.remove_image(normalise(image))


LIMITED = {
    "mem_limit": 64 * 2**20,
    "mem_reservation": 32 * 2**20,
    "cpus": 500_000_000,
    "cpu_shares": 512,
    "cpuset": "0",
    "pids_limit": 50,
    "blkio_weight": 300,
    "restart": Restart(policy="on-failure", max_retries=3),
}


@pytest.mark.parametrize("keys", [{}, {"restart": Restart()}, LIMITED], ids=["plain", "restarted", "limited"])
def test_what_was_made_has_the_limits_that_were_asked_for(bench: Bench, keys: dict[str, object]) -> None:
    step = bench.step(**keys)
    assert changed(step.service, bench.started(step)) == ""


def test_what_somebody_updates_is_seen_and_an_event(bench: Bench) -> None:
    step = bench.step(**LIMITED)
    running = bench.started(step)
    with bench.listening() as events:
        bench.update(running.name, memory=96 * 2**20, retries=3)
        eventually(lambda: ("update", running.id) in {(e.action, e.id) for e in events}, 5, "the event update")
    updated = next(c for c in bench.engine.observe(frozenset({running.id})).containers if c.id == running.id)
    assert changed(step.service, updated) == "its memory limit was changed to 96 MiB"
    bench.update(running.name, memory=64 * 2**20, retries=5)
    updated = next(c for c in bench.engine.observe(frozenset({running.id})).containers if c.id == running.id)
    assert changed(step.service, updated) == "its restart policy was changed to on-failure:5"


def test_networks_are_own_by_their_labels(bench: Bench) -> None:
    network = bench.network("back")

    found = {n.name: n for n in bench.engine.observe().networks}

    assert (found[network.name].app, found[network.name].key, found[network.name].spec) == (APP, "back", "n1")
    assert found["bridge"].app is None
    bench.engine.remove_network(found[network.name].id)
    bench.engine.remove_network(found[network.name].id)
    assert network.name not in {n.name for n in bench.engine.observe().networks}


def test_there_is_one_network_of_a_name(bench: Bench) -> None:
    network = bench.network()

    assert failure(bench.engine.create_network, network) == ("name_in_use", Kind.TEMPORARY)


def test_a_network_in_use_stays(bench: Bench) -> None:
    network = bench.network()
    running = bench.started(bench.on_network("api", network))
    id_ = bench.network_id(network.name)

    assert failure(bench.engine.remove_network, id_) == ("network_in_use", Kind.TEMPORARY)

    bench.engine.remove(running.id)
    bench.engine.remove_network(id_)


def test_a_stranger_on_a_network_is_told_by_name(bench: Bench) -> None:
    network = bench.network()
    users = frozenset({bench.started(bench.on_network("api", network)).id})
    id_ = bench.network_id(network.name)
    bench.engine.check_network(id_, users)

    stranger = bench.foreign("stranger")
    bench.join(stranger, network.name)

    with pytest.raises(EngineError, match=stranger) as caught:
        bench.engine.check_network(id_, users)
    assert (caught.value.code, caught.value.kind) == ("network_in_use", Kind.OUTSIDE)
    bench.engine.check_network("0" * 64, users)


def test_a_network_that_is_missing_is_said_when_the_container_is_to_start(bench: Bench) -> None:
    step = bench.step(network_mode=bench.name("nowhere"), endpoints=(Endpoint(bench.name("nowhere")),))

    def create_and_start() -> None:
        bench.engine.create(step)
        bench.engine.start(step.name)

    assert failure(create_and_start) == ("network_missing", Kind.TEMPORARY)


def test_joining_and_leaving_a_network(bench: Bench) -> None:
    one, two = bench.network("one"), bench.network("two")
    made = bench.created(bench.on_network("api", one))

    bench.engine.connect(Connect(made.name, Endpoint(two.name, ("api",))))
    assert set(bench.seen(made.name).networks) == {one.name, two.name}
    bench.engine.start(made.id)
    bench.engine.connect(Connect(made.id, Endpoint(two.name, ("api",))))
    ids = {one.name: bench.network_id(one.name), two.name: bench.network_id(two.name)}
    assert bench.seen(made.name).networks == ids

    bench.engine.disconnect(made.id, one.name)
    bench.engine.disconnect(made.id, one.name)
    bench.engine.disconnect(made.id, bench.name("nowhere"))
    assert set(bench.seen(made.name).networks) == {two.name}

    nowhere = Connect(made.id, Endpoint(bench.name("nowhere")))
    assert failure(bench.engine.connect, nowhere) == ("network_missing", Kind.TEMPORARY)


def test_volumes_are_own_by_their_labels_and_made_once(bench: Bench) -> None:
    volume = bench.volume("data")
    foreign = bench.foreign_volume("strange")

    bench.engine.create_volume(volume)

    found = {v.name: v for v in bench.engine.observe().volumes}
    assert (found[volume.name].app, found[volume.name].key, found[volume.name].spec) == (APP, "data", "v1")
    assert (found[foreign].app, found[foreign].key) == (None, None)
    stolen = CreateVolume(foreign, bench.labels(**{LABEL_VOLUME: "strange"}))
    assert failure(bench.engine.create_volume, stolen) == ("name_in_use", Kind.OUTSIDE)


def test_a_port_that_a_stranger_holds(bench: Bench) -> None:
    stranger = bench.foreign("stranger", port=19080)
    port = Port(target=80, published="19080", host_ip="127.0.0.1")
    made = bench.created(bench.step(network_mode="bridge", ports=(port,)))
    assert made.published == {(19080, "tcp")}

    assert failure(bench.engine.start, made.id) == ("port_in_use", Kind.OUTSIDE)

    blocked = bench.seen(made.name)
    assert blocked.status is Status.CREATED
    assert blocked.error
    bench.rm(stranger)
    bench.engine.start(made.id)
    free = bench.seen(made.name)
    assert (free.status, free.error, free.published) == (Status.RUNNING, "", {(19080, "tcp")})


def test_what_cannot_be_started_says_why_to_who_looks(bench: Bench) -> None:
    odd = bench.unstartable()
    made = bench.created(bench.step(image=odd.image, command=odd.command))

    assert failure(bench.engine.start, made.name) == ("bad_command", Kind.TARGET)

    seen = bench.seen(made.name)
    assert seen.status is Status.CREATED
    assert seen.exit_code
    assert seen.error


def test_a_one_shot_that_succeeds_is_completed(bench: Bench) -> None:
    odd = bench.exits(0)
    made = bench.started(bench.step(image=odd.image, command=odd.command))

    ended = bench.becomes(made.name, lambda c: c.status is Status.EXITED, "it has ended")

    assert ended.exit_code == 0
    assert ended.completed
    assert ended.one_shot


def test_a_one_shot_that_fails_is_not(bench: Bench) -> None:
    odd = bench.exits(3)
    made = bench.started(bench.step(image=odd.image, command=odd.command))

    ended = bench.becomes(made.name, lambda c: c.status is Status.EXITED, "it has ended")

    assert ended.exit_code == 3
    assert not ended.completed


def test_a_crash_loop_counts_its_restarts(bench: Bench) -> None:
    odd = bench.exits(7)
    step = bench.step(image=odd.image, command=odd.command, restart=Restart(policy="always"))
    made = bench.started(step)

    again = bench.becomes(
        made.name, lambda c: c.restarts >= 2 and c.status is Status.RESTARTING, "it was restarted twice"
    )

    assert again.up
    assert again.exit_code == 7
    bench.engine.stop(made.id, 0)
    bench.engine.start(made.id)
    assert bench.seen(made.name).restarts < 2


def test_a_kill_by_hand_is_not_answered_by_the_restart_policy(bench: Bench) -> None:
    running = bench.started(bench.step(restart=Restart(policy="unless-stopped")))

    bench.kill(running.name)

    ended = bench.becomes(running.name, lambda c: c.status is Status.EXITED, "it has ended")
    assert ended.exit_code == 137


def test_on_failure_gives_up_after_its_tries(bench: Bench) -> None:
    odd = bench.exits(5)
    step = bench.step(image=odd.image, command=odd.command, restart=Restart(policy="on-failure", max_retries=1))
    made = bench.started(step)

    ended = bench.becomes(made.name, lambda c: c.status is Status.EXITED, "it was given up")

    assert (ended.restarts, ended.exit_code) == (1, 5)


def test_health(bench: Bench) -> None:
    checked = bench.started(bench.step("checked", healthcheck=CHECKED))
    unchecked = bench.started(bench.step("unchecked", healthcheck=Healthcheck(test=("NONE",))))

    assert checked.health in (Health.STARTING, Health.HEALTHY)
    assert unchecked.health is None
    bench.becomes(checked.name, lambda c: c.health is Health.HEALTHY, "it is healthy")


def test_what_is_paused_is_up_and_starting_it_lets_it_run(bench: Bench) -> None:
    running = bench.started(bench.step())
    bench.pause(running.name)
    paused = bench.seen(running.name)
    assert paused.status is Status.PAUSED
    assert paused.up

    bench.engine.start(running.id)

    assert bench.seen(running.name).status is Status.RUNNING


@pytest.mark.parametrize("key", ["network_mode", "pid", "ipc"])
def test_a_shared_namespace_needs_its_container_to_run(bench: Bench, key: str) -> None:
    first = bench.created(bench.step("first", ipc="shareable"))
    second = bench.created(bench.step("second", **{key: f"container:{first.id}"}))

    assert failure(bench.engine.start, second.id) == ("dependency_not_running", Kind.TEMPORARY)

    bench.engine.start(first.id)
    bench.engine.start(second.id)
    assert bench.seen(second.name).status is Status.RUNNING


def test_nothing_is_seen_of_others(bench: Bench) -> None:
    mine = bench.started(bench.step("mine"))
    stranger = bench.foreign("stranger")
    other = bench.other(bench.owner + "x")

    assert [c.name for c in bench.engine.observe().containers] == [mine.name]
    assert stranger not in {c.name for c in bench.engine.observe(None).containers}
    assert other.observe().containers == ()
    network = bench.network()
    assert {n.name: n.app for n in other.observe().networks}[network.name] is None


def test_a_deep_look_sees_the_same(bench: Bench) -> None:
    bench.started(bench.step("one"))
    bench.created(bench.step("two"))

    shallow = bench.engine.observe()

    by_name = sorted(shallow.containers, key=lambda c: c.name)
    assert sorted(bench.engine.observe(None).containers, key=lambda c: c.name) == by_name
    stale = frozenset(c.id for c in shallow.containers) | {"0" * 64}
    assert sorted(bench.engine.observe(stale).containers, key=lambda c: c.name) == by_name


def test_events_tell_what_happens_to_own_containers_and_whose_they_are(bench: Bench) -> None:
    with bench.listening() as events:
        assert events[0] == EngineEvent("stream", "open", "")
        running = bench.started(bench.step("api"))
        bench.foreign("stranger")
        bench.kill(running.name)
        bench.rm(running.name)

        def actions() -> list[str]:
            return [e.action for e in events if e.kind == "container"]

        eventually(lambda: "destroy" in actions(), 5, "its end is told")
        assert actions() == ["create", "start", "die", "destroy"]
        own = [e for e in events if e.kind == "container"]
        assert {(e.id, e.name, e.app, e.service) for e in own} == {(running.id, running.name, APP, "api")}


def test_who_looks_after_an_event_sees_it(bench: Bench) -> None:
    running = bench.started(bench.step("api"))
    with bench.listening() as events:
        bench.kill(running.name)
        eventually(lambda: any(e.action == "die" for e in events), 5, "its end is told")

        (seen,) = bench.engine.observe(frozenset({running.id})).containers

    assert (seen.status, seen.exit_code) == (Status.EXITED, 137)


def test_events_tell_of_networks_and_volumes(bench: Bench) -> None:
    with bench.listening() as events:
        network = bench.network()
        volume = bench.volume()
        id_ = bench.network_id(network.name)
        bench.engine.remove_network(id_)

        def happened(kind: str, action: str, id_: str) -> bool:
            return any((e.kind, e.action, e.id) == (kind, action, id_) for e in events)

        eventually(lambda: happened("network", "create", id_), 5, "a network was made")
        eventually(lambda: happened("volume", "create", volume.name), 5, "a volume was made")
        eventually(lambda: happened("network", "destroy", id_), 5, "a network was removed")


def test_the_last_lines(bench: Bench) -> None:
    odd = bench.says("one\\ntwo\\nthree\\n" if isinstance(bench, DockerBench) else "one\ntwo\nthree\n")
    running = bench.started(bench.step(image=odd.image, command=odd.command))

    assert eventually(lambda: bench.engine.tail(running.id, 2), 5, "it has said something") == "two\nthree\n"


def test_a_volume_is_removed_with_what_is_in_it_unless_a_container_has_it(bench: Bench) -> None:
    volume, other = bench.volume(), bench.volume("other")
    mounts = (Mount(type="volume", target="/a", source=volume.name),)
    user = bench.created(bench.step(mounts=mounts))
    assert failure(bench.engine.remove_volume, volume.name) == ("volume_in_use", Kind.OUTSIDE)
    assert volume.name in {v.name for v in bench.engine.observe().volumes}

    bench.engine.remove(user.id)
    bench.engine.remove_volume(volume.name)
    bench.engine.remove_volume(volume.name)

    assert {other.name} == {v.name for v in bench.engine.observe().volumes if v.app == APP}


def test_a_file_in_a_container_is_found_without_entering_it(bench: Bench) -> None:
    step = bench.step()
    path = "/tmp/a lock & more?"
    running = bench.started(replace(step, labels={**step.labels, LABEL_UPDATE_LOCK: path}))
    assert running.update_lock == path
    assert bench.started(bench.step("db")).update_lock == UPDATE_LOCK
    assert not bench.engine.has_file(running.id, path)
    assert not bench.engine.has_file(running.id, "/no/such/folder/lock")

    bench.touch(running.name, path)

    assert bench.engine.has_file(running.id, path)
    bench.pause(running.name)
    assert bench.engine.has_file(running.id, path)
    bench.rm(running.name)
    assert not bench.engine.has_file(running.id, path)


def test_the_log_with_its_times(bench: Bench) -> None:
    odd = bench.says("one\\ntwo\\nthree\\n" if isinstance(bench, DockerBench) else "one\ntwo\nthree\n")
    running = bench.started(bench.step(image=odd.image, command=odd.command))
    stop = threading.Event()

    def read(lines: int, since: datetime | None = None) -> list[LogLine]:
        read = bench.engine.logs(running.id, lines=lines, since=since, follow=False, stop=stop)
        return [line for batch in read for line in batch]

    eventually(lambda: len(read(10)) == 3, 5, "it has said everything")
    assert [line.text for line in read(10)] == ["one", "two", "three"]
    assert [(line.text, line.stream) for line in read(2)] == [("two", "stdout"), ("three", "stdout")]
    assert read(0) == []
    at = datetime.fromisoformat(read(1)[0].at or "")
    assert read(10, at + timedelta(seconds=1)) == []
    assert len(read(10, at - timedelta(minutes=1))) == 3


def test_a_log_is_followed_until_it_is_to_stop_or_the_container_ends(bench: Bench) -> None:
    odd = bench.says("one\\n" if isinstance(bench, DockerBench) else "one\n")
    running = bench.started(bench.step(image=odd.image, command=odd.command))
    for end in ("stop", "container"):
        stop, heard = threading.Event(), []

        def follow(stop: threading.Event = stop, heard: list[LogLine] = heard) -> None:
            for batch in bench.engine.logs(running.id, lines=10, since=None, follow=True, stop=stop):
                heard.extend(batch)

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        eventually(lambda heard=heard: [line.text for line in heard] == ["one"], 5, "what it has said")
        assert thread.is_alive()
        if end == "stop":
            stop.set()
        else:
            bench.engine.remove(running.id)
        thread.join(5)
        assert not thread.is_alive()


def test_the_log_of_what_is_gone(bench: Bench) -> None:
    with pytest.raises(EngineError):
        list(bench.engine.logs("0" * 64, lines=10, since=None, follow=False, stop=threading.Event()))


def test_a_pull_that_is_not_wanted_any_more(bench: Bench) -> None:
    cancel = threading.Event()
    cancel.set()

    with pytest.raises(Cancelled):
        bench.engine.pull("registry.invalid/a:1", None, lambda _: None, cancel)


def test_an_image_that_cannot_be_pulled(bench: Bench) -> None:
    code, kind = failure(bench.engine.pull, "127.0.0.1:1/a:1", None, lambda _: None, threading.Event())

    assert (code, kind) in {("registry_unreachable", Kind.TEMPORARY), ("no_such_image", Kind.TARGET)}


def test_an_engine_that_is_away(bench: Bench) -> None:
    away = bench.away()

    for call in (
        away.observe,
        lambda: away.start("a"),
        lambda: away.remove("a"),
        lambda: away.has_file("a", "/a"),
        lambda: away.remove_volume("a"),
        lambda: away.pull("a:1", None, lambda _: None, threading.Event()),
        lambda: list(away.events(threading.Event())),
    ):
        with pytest.raises(EngineAway):
            call()
