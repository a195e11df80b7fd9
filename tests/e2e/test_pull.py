"""Images that are not on the device, from a real registry: pulled, waited for, never in the way of what runs."""

import contextlib
import io
import json
import os
import re
import secrets
import tarfile
from collections.abc import Iterator
from typing import Any

import docker
import psutil
import pytest

from tests.e2e.device import Device, app, service
from tests.e2e.host import TEST_IMAGE
from tests.eventually import eventually
from tests.registry import PASSWORD, USER, Registry, registry
from tests.registry_proxy import registry_proxy

KIB, MIB, GIB = 2**10, 2**20, 2**30


@pytest.fixture(scope="module")
def one_for_all() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.fixture
def shop(one_for_all: Registry) -> Iterator[Registry]:
    yield one_for_all
    one_for_all.start()  # a test may have stopped it


@contextlib.contextmanager
def forgotten(device: Device, *images: str) -> Iterator[None]:
    """The engine forgets what was pulled, once nobody makes it anew."""
    try:
        yield
    finally:
        device.kill()
        device.host.sweep(device.label)
        for image in images:
            with contextlib.suppress(docker.errors.ImageNotFound):
                device.host.api.remove_image(image)


def fresh(device: Device, shop: Registry) -> str:
    """An image of the registry with 1 MiB that the engine has never seen."""
    api, name = device.host.api, f"{device.prefix}fresh"
    container = api.create_container(f"{TEST_IMAGE}:1", name=name)["Id"]
    with io.BytesIO() as written:
        with tarfile.open(fileobj=written, mode="w") as tar:
            file = tarfile.TarInfo("noise")
            file.size = MIB
            tar.addfile(file, io.BytesIO(secrets.token_bytes(MIB)))
        api.put_archive(container, "/", written.getvalue())
    made = api.commit(container, name, "1")["Id"]
    device.host.remove(container)
    image, _ = shop.push(api, f"{name}:1")
    api.remove_image(made)
    return image


def test_an_absent_image_must_be_pulled_by_tag_and_by_digest(device: Device, shop: Registry) -> None:
    by_tag, _ = shop.push(device.host.api, f"{TEST_IMAGE}:1")
    _, by_digest = shop.push(device.host.api, f"{TEST_IMAGE}:2")
    with forgotten(device, by_tag, by_digest):
        device.start()
        device.publish({"a": app(one=service(image=by_tag), two=service(image=by_digest))})
        assert set(device.containers()) == {"a/one", "a/two"}
        assert all(container["State"]["Running"] for container in device.containers().values())


def test_what_runs_must_run_on_until_the_registry_is_back(device: Device, shop: Registry) -> None:
    image, _ = shop.push(device.host.api, f"{TEST_IMAGE}:2")
    with forgotten(device, image):
        device.start()
        device.publish({"a": app(one=service(), two=service())})
        before = device.identities()
        shop.stop()
        device.cloud.publish({"a": app(one=service(image=image), two=service(environment={"A": "1"}))})
        (failed,) = eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that it fails")
        assert (failed["app"], failed["service"], failed["code"]) == ("a", "one", "registry_unreachable")
        assert failed["attempt"] == 1
        assert failed["next_try_at"]
        assert device.identities() == before, "nothing was stopped, and nothing half made lies about"
        shop.start()
        device.converge(60)
        assert device.container("a/one")["Config"]["Image"].endswith(image.rpartition("/")[2])


def test_an_image_that_does_not_exist_must_be_told_and_hold_up_no_other_app(device: Device, shop: Registry) -> None:
    device.start()
    missing = f"127.0.0.1:{shop.port}/never/was:1"
    device.cloud.publish({"bad": app(one=service(image=missing)), "good": app(one=service())})
    eventually(lambda: device.runs("good/one"), 20, "the other app runs")
    (failed,) = eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that it fails")
    assert (failed["app"], failed["code"]) == ("bad", "no_such_image")
    assert missing in failed["message"] or "never/was" in failed["message"]
    assert "applied" not in [verdict for verdict, app_name in device.verdicts(failed["revision"]) if app_name is None]


def test_credentials_must_let_in_after_they_were_rotated_and_be_told_to_nobody(device: Device) -> None:
    with registry(login=True) as shop:
        image, _ = shop.push(device.host.api, f"{TEST_IMAGE}:1")
        file = device.folder / "config.json"
        wrong = "canary-of-yesterday"

        def give(password: str) -> None:
            file.write_text(json.dumps({"auths": {shop.host: {"username": USER, "password": password}}}))

        with forgotten(device, image):
            give(wrong)
            device.start(REGISTRY_AUTH=str(file), LOG_LEVEL="debug")
            device.cloud.publish({"a": app(one=service(image=image))})
            (failed,) = eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that it fails")
            assert (failed["app"], failed["service"], failed["code"]) == ("a", "one", "registry_auth")
            assert shop.host in failed["message"]
            assert "DEVICE_AGENT_REGISTRY_AUTH" in failed["message"]
            give(PASSWORD)
            device.converge(60)

            said = [
                device.log(),
                json.dumps(device.status()),
                device.cli("explain", "a/one").stdout.decode(),
                device.cli("config").stdout.decode(),
                json.dumps(
                    [dict(entry.body) for entry in (*device.cloud.acks(device.id), *device.cloud.events(device.id))]
                ),
                (device.data / "database.sqlite").read_bytes().decode("latin-1"),
                (device.data / "database.sqlite-wal").read_bytes().decode("latin-1"),
            ]
            for text in said:
                assert text
                assert wrong not in text
                assert PASSWORD not in text


def test_images_must_go_when_nothing_wants_them_and_a_rollback_must_need_no_registry(
    device: Device, shop: Registry
) -> None:
    api = device.host.api
    first, second, third = (shop.push(api, f"{TEST_IMAGE}:{version}")[0] for version in (1, 2, 3))

    def here(image: str) -> bool:
        return bool(api.images(name=image))

    with forgotten(device, first, second, third):
        device.start()
        for image in (first, second, third):
            device.publish({"a": app(one=service(image=image))})
        eventually(lambda: not here(first), 20, "the image of the release before the one before goes")
        (removed,) = eventually(lambda: device.events("image_removed"), 10, "it is told")
        assert removed["image"].endswith(first.partition("/")[2])
        assert here(second), "what the release before needs stays"
        assert here(f"{TEST_IMAGE}:1"), "what the agent did not pull stays"

        shop.stop()
        published = device.cloud.publish({"a": app(one=service(image=third, command=["sh", "-c", "exit 3"]))})
        eventually(
            lambda: ("rolled_back", None) in device.verdicts(published.revision), 40, "the release is rolled back"
        )
        assert device.container("a/one")["Config"]["Image"].endswith(third.partition("/")[2])
        device.publish({"a": app(one=service(image=second))})
        assert device.runs("a/one")


def test_a_tag_that_moved_must_be_followed_only_where_the_pull_policy_says_so(device: Device, shop: Registry) -> None:
    api = device.host.api
    pushed = [shop.push(api, f"{TEST_IMAGE}:1") for _ in range(4)]
    (followed, _), (kept, _), (loaded, _), (_, fixed) = pushed
    for name, _ in pushed:
        shop.push(api, f"{TEST_IMAGE}:2", "2", repository=name.rpartition(":")[0])
    ids = [api.inspect_image(f"{TEST_IMAGE}:{version}")["Id"] for version in (1, 2)]

    def apps(revision: str) -> dict[str, Any]:
        """Each is of a new revision, and changes no container by itself."""
        return {
            "never": app(one=service(image=loaded, pull_policy="never")),
            "web": {
                **app(
                    followed=service(image=followed, pull_policy="always"),
                    kept=service(image=kept, pull_policy="missing"),
                    fixed=service(image=fixed, pull_policy="always"),
                ),
                "x-note": revision,
            },
        }

    # By digest as well: what a tag has moved on from keeps that name.
    with forgotten(device, followed, kept, loaded, *(digest for _, digest in pushed)):
        device.start()
        device.cloud.publish(apps("first"))
        failed, *_ = eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that nobody may pull it")
        assert (failed["app"], failed["code"]) == ("never", "image_absent")
        assert loaded in failed["message"]
        assert shop.asked(loaded) == 0
        api.pull(loaded)
        device.converge()
        before, asked = device.identities(), {image: shop.asked(image) for image in (kept, loaded, fixed)}
        assert device.container("web/followed")["Image"] == ids[0]

        for name, _ in pushed:
            shop.move(name, to="2")
        device.publish(apps("second"))
        after = device.identities()
        assert device.container("web/followed")["Image"] == ids[1]
        assert [key for key in before if after[key] != before[key]] == ["web/followed"]
        assert {image: shop.asked(image) for image in asked} == asked, "what is here was not asked for"
        assert f'"cause": "image {followed} ' in device.log(), "the step says which image it is that has changed"
        assert not device.events("drift")


def test_a_pull_without_room_must_touch_nothing_and_must_tell_how_far_it_is_once_there_is_room(
    device: Device, shop: Registry
) -> None:
    image = fresh(device, shop)
    ballast = device.folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2 * GIB)
    with registry_proxy(shop.host) as proxy:
        image = image.replace(shop.host, proxy.host)
        kept = psutil.disk_usage(str(device.folder)).free + GIB
        with forgotten(device, image):
            device.start(DISK_RESERVE=str(kept))
            device.publish({"a": app(one=service())})
            before = device.identities()
            device.cloud.publish({"a": app(one=service(image=image))})
            (failed,) = eventually(lambda: device.acks(verdict="failed"), 20, "the ack says that it fails")
            assert (failed["app"], failed["service"], failed["code"]) == ("a", "one", "disk_short")
            told = re.search(
                r"needs about (\d+) MiB .*; (\d+) MiB of \d+ MiB are free, and (\d+) MiB are to stay", failed["message"]
            )
            assert told, failed["message"]
            assert (int(told[1]) + int(told[3]) > int(told[2]), int(told[3])) == (True, round(kept / MIB))
            assert device.identities() == before
            assert proxy.passed() < 64 * KIB, "of the image nothing but its description was read"

            proxy.pace_s = 0.3
            ballast.unlink()
            pulling = re.compile(rf"^pulling {image}: \d\.\d of \d\.\d MiB \(\d+ %\)", re.MULTILINE)
            eventually(
                lambda: pulling.search(device.cli("status").stdout.decode()), 20, "it is pulled, and that is told"
            )
            (pull,) = device.status()["pulls"]
            assert pull["image"] == image
            assert 0 < pull["done"] < pull["total"] < 2 * MIB
            proxy.over.set()
            device.converge(60)
            assert device.container("a/one")["Config"]["Image"] == image
