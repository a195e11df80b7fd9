"""Configs and secrets: every form, every wrong value; in the hash, and in nothing that is shown."""

import io
import json
import tarfile

import pytest

from device_agent.adapters.docker_create import archive
from device_agent.model.compose import File
from device_agent.model.errors import EngineError, Kind
from device_agent.model.observed import Status
from device_agent.model.steps import Upload
from device_agent.model.target import Json
from device_agent.model.validate import validate_apps
from tests.builders import app as small_app
from tests.builders import document, exited, plan, printed, running, service, target, waits_for, wanted, world
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
        ({"secrets": ["key"], "tmpfs": "/run"}, "secrets/0"),
        ({"secrets": ["key"], "volumes": ["data:/run/secrets"]}, "secrets/0"),
        ({"secrets": ["key"], "volumes": ["/srv:/run/secrets/key"]}, "secrets/0"),
    ],
)
def test_wrong_values(keys: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", **keys}, **DECLARED))
    assert code == "invalid"
    assert set(problems) == {f"{SERVICE}/{place}" for place in where.split(" ")}


def test_a_mount_beside_a_file_hides_nothing() -> None:
    files(secrets=["key"], tmpfs="/run/secret", volumes=["data:/run/secrets/keys"])


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


def test_a_container_that_can_be_written_to_by_nobody() -> None:
    """Its files are in folders below /run, each a volume of its own, which may be in another mount."""
    secret = {"source": "key", "target": "/run/apart/key"}
    keys = {"secrets": ["key", secret], "read_only": True, "tmpfs": ["/run"]}
    made = wanted(app({"image": "api", **keys}, **DECLARED)).services["api"].mounts
    assert [(mount.type, mount.source, mount.target) for mount in made] == [
        ("volume", None, "/run/apart"),
        ("volume", None, "/run/secrets"),
    ]


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"configs": ["conf"]}, "configs/0"),
        ({"secrets": [{"source": "key", "target": "/etc/key"}]}, "secrets/0"),
        ({"secrets": [{"source": "key", "target": "/run/key"}]}, "secrets/0"),
        ({"secrets": ["key"], "tmpfs": ["/run/secrets"]}, "secrets/0"),
        ({"secrets": ["key"], "volumes": ["data:/run/secrets/key"]}, "secrets/0"),
    ],
)
def test_what_cannot_be_written_into_a_container_that_nobody_can_write_to(keys: Json, where: str) -> None:
    code, problems = refused(app({"image": "api", "read_only": True, **keys}, **DECLARED))
    assert (code, list(problems)) == ("invalid", [f"{SERVICE}/{where}"])


def test_names_and_labels_have_no_use() -> None:
    sections = {"secrets": {"key": {"content": "a", "name": "n", "labels": {}, "external": False}}}
    warnings = validate_apps({"web": app({"image": "api"}, **sections)}).warnings
    assert [warning.pointer for warning in warnings] == ["/apps/web/secrets/key/labels", "/apps/web/secrets/key/name"]


# The plan.


def with_secret(content: str = SECRET, **keys: Json) -> Json:
    return small_app({"secrets": {"key": {"content": content}}}, api=service(secrets=["key"], **keys))


def test_they_are_there_before_the_start():
    of = wanted(with_secret())
    made = plan(of, world(of))
    assert printed(made) == (
        "create web-api-*: it does not exist\n"
        "upload 1 file to web-api-*: its configs and secrets\n"
        "start web-api-*: it was just created"
    )
    assert "upload 1 file to web-api-*" in waits_for(made, "start web-api-*")


def test_once_more_after_a_crash_between_creation_and_start():
    of = wanted(with_secret())
    made = plan(of, world(of, running(of, "api", status=Status.CREATED)))
    assert printed(made) == (
        "upload 1 file to web-api-*: its configs and secrets\nstart web-api-*: it was created and never started"
    )


def test_not_for_what_has_them():
    of = wanted(with_secret())
    assert printed(plan(of, world(of, running(of, "api")))) == ""
    assert "upload" not in printed(plan(of, world(of, exited(of, "api"))))


def test_another_content_is_another_container():
    before, after = wanted(with_secret()), wanted(with_secret("another"))
    made = printed(plan(after, world(after, running(before, "api"))))
    assert [line.split(" ")[0] for line in made.splitlines()] == ["create", "upload", "stop", "start", "remove"]


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
    assert any(isinstance(thing, Upload) for thing in shown)
    for thing in shown:
        assert SECRET not in repr(thing)
        assert SECRET not in str(thing)


def test_a_device_tells_nobody(capfd):
    """Neither when all goes well, nor when the upload fails, nor when it is refused."""
    device = Device(images=("api:1",)).boot()
    failing = ["upload", "upload", "upload", "upload"]

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

    device.publish({"web": with_secret(read_only=True, tmpfs="/run/secrets")}, revision=3)
    device.wait(3)
    assert device.told()[-1] == "rejected 1.3 invalid"

    answers = [device.ask("plan", target=json.dumps(document({"web": with_secret("new")}, revision=4))), device.state()]
    shown = [sent.payload.decode() for sent in device.broker.sent] + [repr(answer) for answer in answers]
    shown += capfd.readouterr()
    assert "upload 1 file" in shown[-4] + shown[-3]
    assert not any(SECRET in text for text in shown)


# The archive.


def test_the_archive_has_the_files_and_no_folders():
    given = (
        File(target="/run/secrets/key", content="über", uid=1, gid=2, mode=0o400),
        File(target="/" + "long" * 60, content=""),
    )
    with tarfile.open(fileobj=io.BytesIO(archive(given))) as tar:
        found = tuple(
            File(
                target="/" + member.name,
                content=tar.extractfile(member).read().decode(),
                uid=member.uid,
                gid=member.gid,
                mode=member.mode,
            )
            for member in tar
        )
    assert found == given
    assert archive(given) == archive(given)
