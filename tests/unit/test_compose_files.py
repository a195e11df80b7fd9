"""Configs and secrets: every form, every wrong value; in the hash, and in nothing that is shown."""

import io
import json
import tarfile
from dataclasses import replace
from typing import Any

import pytest

from cloud_sim.engine_parts import Behaviour, image_id
from device_agent.adapters.docker_files import archive
from device_agent.core.intake import own_apps
from device_agent.core.status import orphan_volumes
from device_agent.core.wanted import WantedApp
from device_agent.model.compose import File, Service
from device_agent.model.errors import EngineError, Kind
from device_agent.model.observed import LABEL_SPEC, Health, Status, Volume
from device_agent.model.steps import Create, Fill, RemoveVolume
from device_agent.model.target import Json
from device_agent.model.validate import validate_apps
from tests.builders import app as small_app
from tests.builders import (
    attempt,
    document,
    everything,
    exited,
    plan,
    printed,
    removal,
    running,
    service,
    target,
    waits_for,
    wanted,
    world,
)
from tests.compose_app import SERVICE, app, dump, refused
from tests.device import Device

SECRET = "the-very-secret-content"
DECLARED = {"configs": {"one": {"content": "1"}}, "secrets": {"key": {"content": SECRET}}}
KEY = {"target": "/run/secrets/key", "content": SECRET}


def files(sections: Json = DECLARED, **keys: Json) -> Json:
    return dump(app({"image": "api", **keys}, **sections))["services"]["api"].get("files")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"configs": [], "secrets": []}, None),
        ({"configs": ["one"]}, [{"target": "/one", "content": "1"}]),
        ({"configs": [{"source": "one"}]}, [{"target": "/one", "content": "1"}]),
        ({"configs": [{"source": "one", "target": "/etc/./a.conf"}]}, [{"target": "/etc/a.conf", "content": "1"}]),
        ({"configs": [{"source": "one", "target": "a.conf"}]}, [{"target": "/a.conf", "content": "1"}]),
        ({"secrets": ["key"]}, [KEY]),
        ({"secrets": [{"source": "key", "target": "k"}]}, [KEY | {"target": "/run/secrets/k"}]),
        ({"secrets": [{"source": "key", "target": "/k"}]}, [KEY | {"target": "/k"}]),
        *(
            (
                {"secrets": [{"source": "key", "uid": "1000", "gid": "7", "mode": mode}]},
                [KEY | {"uid": 1000, "gid": 7, "mode": 0o440}],
            )
            for mode in ("0440", "440", 288)
        ),
        ({"secrets": [{"source": "key", "uid": "0", "mode": "0444"}]}, [KEY]),
        ({"secrets": ["key"], "configs": ["one"]}, [{"target": "/one", "content": "1"}, KEY]),
        (
            {"configs": ["one", {"source": "one", "target": "/a"}]},
            [{"target": "/a", "content": "1"}, {"target": "/one", "content": "1"}],
        ),
    ],
)
def test_what_a_service_is_given(keys: Json, expected: Json) -> None:
    assert files(**keys) == expected


def test_an_empty_content_is_one() -> None:
    assert files({"configs": {"one": {"content": ""}}}, configs=["one"]) == [{"target": "/one", "content": ""}]


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"configs": ["key", 5]}, "configs/0 configs/1"),
        ({"configs": "one"}, "configs"),
        ({"secrets": [{"target": "/a"}]}, "secrets/0/source"),
        ({"secrets": [{"source": "one"}]}, "secrets/0/source"),
        ({"secrets": [{"source": "key", "target": "/"}]}, "secrets/0/target"),
        ({"secrets": [{"source": "key", "target": 5}]}, "secrets/0/target"),
        (
            {"secrets": [{"source": "key", "uid": 1000, "gid": "staff", "mode": "9"}]},
            "secrets/0/uid secrets/0/gid secrets/0/mode",
        ),
        ({"configs": ["one", "one"]}, "configs/1"),
        ({"configs": ["one"], "secrets": [{"source": "key", "target": "/one"}]}, "secrets/0"),
        ({"secrets": ["key"], "volumes": ["data:/run/secrets:ro"]}, "secrets/0"),
        (
            {"secrets": ["key"], "volumes": ["data:/run:ro", "/srv:/run/secrets"], "tmpfs": "/run/secrets/key"},
            "secrets/0",
        ),
        ({"secrets": ["key"], "volumes": ["/srv:/run/secrets/key"]}, "secrets/0"),
        ({"secrets": ["key"], "volumes": ["/srv:/run/secrets/key/deep"]}, "secrets/0"),
        ({"secrets": ["key"], "tmpfs": ["/run/secrets/key"]}, "secrets/0"),
        # In a file, or in the place of the volume that they are in.
        ({"configs": ["one"], "secrets": [{"source": "key", "target": "/one/two"}]}, "secrets/0"),
        ({"configs": [{"source": "one", "target": "/run/secrets"}], "secrets": ["key"]}, "secrets/0"),
        ({"configs": [{"source": "one", "target": "/.device-agent"}]}, "configs/0"),
        ({"configs": [{"source": "one", "target": "/.device-agent/files/0"}]}, "configs/0"),
        ({"secrets": ["key"], "volumes": ["data:/.device-agent"]}, "secrets/0"),
        ({"secrets": ["key"], "tmpfs": ["/.device-agent/tmp"]}, "secrets/0"),
    ],
)
def test_wrong_values(keys: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", **keys}, **DECLARED))
    assert code == "invalid"
    assert set(problems) == {f"{SERVICE}/{place}" for place in where.split(" ")}


@pytest.mark.parametrize(
    "keys",
    [
        {"tmpfs": "/run/secret", "volumes": ["data:/run/secrets/keys"]},
        {"tmpfs": "/run", "read_only": True},
        {"volumes": ["data:/run/secrets", "/srv:/run"]},
        {"volumes": ["data:/run:ro"], "tmpfs": "/run/secrets"},
    ],
)
def test_a_file_is_mounted_after_what_it_is_in(keys: Json) -> None:
    assert files(secrets=["key"], **keys) == [KEY]


@pytest.mark.parametrize(
    ("definition", "code", "where", "message"),
    [
        ({}, "invalid", "/content", "is required"),
        (None, "invalid", "", "expected an object"),
        ({"content": 5}, "invalid", "/content", "put it in quotes"),
        ({"file": "./a"}, "unsupported", "/file", "cloud-sim publish does it"),
        ({"environment": "A"}, "unsupported", "/environment", "cloud-sim publish does it"),
        ({"external": True}, "unsupported", "/external", "give the content itself"),
        ({"content": "a", "template_driver": "golang"}, "unsupported", "/template_driver", "before it is published"),
        ({"content": "a", "contents": "b"}, "unsupported", "/contents", "not a key"),
    ],
)
@pytest.mark.parametrize("section", ["configs", "secrets"])
def test_wrong_definitions(section: str, definition: Json, code: str, where: str, message: str) -> None:
    found, problems = refused(app({"image": "api", section: ["it"]}, **{section: {"it": definition}}))
    assert (found, list(problems)) == (code, [f"/apps/web/{section}/it{where}"])
    assert message in problems[f"/apps/web/{section}/it{where}"]


def test_names_and_labels_have_no_use() -> None:
    sections = {"secrets": {"key": {"content": "a", "name": "n", "labels": {}, "external": False}}}
    warnings = validate_apps({"web": app({"image": "api"}, **sections)}).warnings
    assert [warning.pointer for warning in warnings] == ["/apps/web/secrets/key/labels", "/apps/web/secrets/key/name"]


# The plan.


def with_secret(content: str = SECRET, **keys: Json) -> Json:
    return small_app({"secrets": {"key": {"content": content}}}, api=service(secrets=["key"], **keys))


def filled(of: WantedApp, **changes: Any) -> Volume:
    """The volume of `api`, as the engine shows it."""
    service = of.services["api"]
    create = of.create(service, image_id(service.image))
    return replace(Volume(create.files, of.name, None, create.labels[LABEL_SPEC], "api"), **changes)


def test_they_are_there_before_the_container():
    of = wanted(with_secret())
    made = plan(of, world(of))
    assert printed(made) == (
        "fill volume web-api-*-files with 1 file: its configs and secrets\n"
        "create web-api-*: it does not exist\n"
        "start web-api-*: it was just created"
    )
    assert "fill volume web-api-*-files with 1 file" in waits_for(made, "create web-api-*")


def test_once_more_after_a_crash_before_the_creation():
    of = wanted(with_secret())
    assert printed(plan(of, world(of, volumes=(filled(of),)))) == printed(plan(of, world(of)))


def test_not_for_a_container_that_is_there():
    of = wanted(with_secret())
    volume = filled(of)
    ended = exited(of, "api")
    for there, failures in (
        (running(of, "api"), ()),
        (ended, ()),
        (ended, (attempt("api", ended.spec, code="port_in_use"),)),
        (ended, (attempt("api", "another", code="mount_failed"),)),
    ):
        assert "volume" not in printed(plan(of, world(of, there, volumes=(volume,)), *failures))


@pytest.mark.parametrize(("status", "code"), [(Status.CREATED, "port_in_use"), (Status.EXITED, "mount_failed")])
@pytest.mark.parametrize("absent", [(), ("api:1",)])
def test_once_more_for_one_that_never_ran_or_whose_mounts_failed(status, code, absent):
    of = wanted(with_secret())
    volume = filled(of)
    there = running(of, "api", status=status)
    failure = attempt("api", there.spec, code=code)
    made = plan(of, world(of, there, volumes=(volume,), absent=absent), failure)
    fill = next(step.action for step in made.steps if isinstance(step.action, Fill))
    assert (fill.volume.name, fill.image) == (volume.name, there.image_id)
    assert "fill volume web-api-*-files with 1 file" in waits_for(made, "start web-api-*")


def test_not_over_and_over_while_its_start_waits():
    """Seen as thousands of fillings in a second, each with a container that is made and removed."""
    device = Device(images=("api:1",))
    device.world.add_image("db:1", behaviour=Behaviour(health=Health.STARTING))
    device.boot()
    waits = {"depends_on": {"db": {"condition": "service_healthy"}}, "secrets": ["key"]}
    secrets = {"secrets": {"key": {"content": SECRET}}}
    device.publish({"web": small_app(secrets, api=service(**waits), db=service("db:1", healthcheck={"test": "true"}))})
    device.wait(30)
    assert device.fuse.calls.count("fill") == 1

    (db,) = (c for c in device.world.containers.values() if c.service == "db")
    device.world.become(db.id, Health.HEALTHY)
    device.converge()
    assert device.fuse.calls.count("fill") == 2


def test_another_content_is_another_container():
    before, after = wanted(with_secret()), wanted(with_secret("another"))
    made = printed(plan(after, world(after, running(before, "api"))))
    assert [line.split(" ")[0] for line in made.splitlines()] == ["fill", "create", "stop", "start", "remove"]


def test_what_is_left_of_a_crash_in_the_middle_goes():
    of = wanted(with_secret())
    volume = filled(of)
    holder = running(of, "api", status=Status.CREATED, name="holder", spec="")
    made = printed(plan(of, world(of, holder, volumes=(volume,))))
    assert "remove holder: it was never started and is no longer wanted" in made
    assert "remove volume" not in made
    another = wanted(with_secret("another"))
    after = waits_for(plan(another, world(another, holder, volumes=(volume,))), "remove volume web-api-*-files")
    assert after == {"remove holder"}


def test_a_volume_goes_once_no_container_has_it():
    before, of = wanted(with_secret()), wanted(with_secret("another"))
    old, new = filled(before), filled(of)
    runs = running(of, "api")
    gone = "remove volume web-api-*-files: no container has these configs and secrets any more"
    replaced = exited(before, "api")

    made = plan(of, world(of, runs, volumes=(old, new)))
    assert (printed(made), made.steps[0].action) == (gone, RemoveVolume(old.name))
    assert "volume" not in printed(plan(of, world(of, runs, replaced, volumes=(old, new))))
    for another in (
        replace(old, app=None, service=None),
        replace(old, app="other"),
        Volume("web_data", "web", "data", "s"),
    ):
        assert printed(plan(of, world(of, runs, volumes=(new, another)))) == ""
    twins = replace(new, service="db", name="web-db-files")
    left = plan(of, world(of, runs, volumes=(new, twins)))
    assert [step.action for step in left.steps] == [RemoveVolume(twins.name)], "of another service with equal files"


def test_of_an_app_that_goes_its_volumes_with_files_go_last():
    of = wanted(with_secret())
    volume = filled(of)
    data = Volume("web_data", "web", "data", "s")
    there = world(of, running(of, "api"), volumes=(volume, data))
    assert "volume" not in printed(removal("web", there))

    left = world(of, volumes=(volume, data))
    assert own_apps(left) == {"web"}
    assert printed(removal("web", left)).startswith("remove volume web-api-*-files: ")
    assert own_apps(world(of, volumes=(data,))) == set()
    assert orphan_volumes({}, left) == ("web_data",)


@pytest.mark.parametrize("change", [{"mode": "0400"}, {"uid": "1"}, {"gid": "1"}, {"target": "other"}])
def test_how_it_is_there_counts(change):
    def spec(**how: Json) -> str:
        sections = {"secrets": {"key": {"content": "a"}}}
        of = wanted(small_app(sections, api=service(secrets=[{"source": "key", **how}])))
        return of.services["api"].spec("sha256:0")

    assert spec(**change) != spec()


# What is shown.


def test_a_content_is_in_no_text():
    of = wanted(with_secret())
    made = plan(of, world(of))
    shown = [of, made, *made.steps, *(step.action for step in made.steps), target({"web": with_secret()})]
    assert any(isinstance(thing, Fill) for thing in shown)
    for thing in shown:
        assert SECRET not in repr(thing)
        assert SECRET not in str(thing)


def test_a_device_tells_nobody(capfd):
    """Neither when all goes well, nor when the filling fails, nor when it is refused."""
    device = Device(images=("api:1",)).boot()
    failing = ["fill", "fill", "fill", "fill"]

    def trouble(name: str) -> None:
        if name in failing:
            failing.remove(name)
            raise EngineError("engine_error", "it failed", Kind.TEMPORARY)

    device.trouble = trouble
    device.publish({"web": with_secret()})
    device.converge()
    assert not failing
    (container,) = device.containers().values()
    assert container.files == {"/run/secrets/key": File(target="/run/secrets/key", content=SECRET)}

    device.publish({"web": with_secret("another-" + SECRET)}, revision=2)
    device.converge()
    (container,) = device.containers().values()
    assert container.files["/run/secrets/key"].content == "another-" + SECRET

    device.publish({"web": with_secret(tmpfs="/run/secrets/key")}, revision=3)
    device.wait(3)
    assert device.told()[-1] == "rejected 1.3 invalid"

    answers = [device.ask("plan", target=json.dumps(document({"web": with_secret("new")}, revision=4))), device.state()]
    shown = [sent.payload.decode() for sent in device.broker.sent] + [repr(answer) for answer in answers]
    shown += capfd.readouterr()
    assert "with 1 file" in shown[-4] + shown[-3]
    assert not any(SECRET in text for text in shown)


# On the engine.


def test_a_foreign_volume_of_the_name_is_not_touched():
    device = Device(images=("api:1",)).boot()
    of = everything(target({"web": with_secret()})).apps["web"]
    name = filled(of).name
    device.world.add_volume(name)
    device.publish({"web": with_secret()})
    device.wait(30)
    assert (device.world.volumes[name].labels, device.world.volumes[name].files) == ({}, ())
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["code"] == "name_in_use"

    device.world.remove_volume(name)
    device.converge()
    assert device.containers()["web/api"].files == {KEY["target"]: File(**KEY)}


def test_a_volume_that_is_not_let_go_holds_up_nothing():
    device = Device(images=("api:1",)).boot()
    device.publish({"web": with_secret()})
    device.converge()
    (name,) = device.world.volumes
    device.world.add(Create("stranger", "api:1", Service(image="api:1"), {}, "none", files=name))
    device.publish({"web": with_secret("another")}, revision=2)
    device.converge()
    assert device.told()[-1] == "applied 1.2"
    assert name in device.world.volumes

    device.world.rm("stranger")
    device.wait(600)
    assert [volume.files[0].content for volume in device.world.volumes.values()] == ["another"]


def test_the_archive_has_the_files_by_their_numbers():
    given = (
        File(target="/run/secrets/key", content="über", uid=1, gid=2, mode=0o400),
        File(target="/" + "long" * 60, content=""),
    )
    with tarfile.open(fileobj=io.BytesIO(archive(given))) as tar:
        folder, *members = tar
        found = tuple(
            File(
                target=file.target,
                content=tar.extractfile(member).read().decode(),
                uid=member.uid,
                gid=member.gid,
                mode=member.mode,
            )
            for member, file in zip(members, given, strict=True)
        )
    assert (folder.name, folder.mode, folder.isdir()) == ("files", 0o700, True)
    assert [member.name for member in members] == ["files/0", "files/1"]
    assert found == given
    assert archive(given) == archive(given)
