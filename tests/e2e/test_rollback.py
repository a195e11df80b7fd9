"""Releases on a real engine: one that fails comes back to what ran before; start-first loses no request."""

import contextlib
import threading
import urllib.request
from typing import Any, Self

import pytest

from tests.e2e.device import Device, app, service
from tests.eventually import eventually

HTTPD = ["sh", "-c", "echo hello > /www/index.html; exec httpd -f -p 80 -h /www"]


def test_a_release_that_crashes_must_be_rolled_back_to_the_very_containers_that_ran_before(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service(), db=service())}, release="good")
    before = device.identities()
    crashing = service(2, command=["sh", "-c", "echo no config; exit 3"])
    published = device.cloud.publish({"web": app(api=crashing, db=service())}, release="bad")
    ack = device.cloud.wait_for_ack(device.id, verdict="rolled_back", app="web", timeout=60)
    assert ack.body["from"]["revision"] == published.revision
    assert (ack.body["from"]["release"], ack.body["to"]["release"]) == ("bad", "good")
    device.cloud.wait_for_ack(device.id, verdict="rolled_back", app=None, timeout=10)
    after = device.identities()
    assert after["web/api"][0] == before["web/api"][0], "the very container"
    assert after["web/db"] == before["web/db"], "what the release left as it was is not touched"
    status = device.status()
    assert status["converged"] is False
    assert status["apps"]["web"]["reason"]["code"] == "rolled_back"
    device.kill()
    device.start()
    eventually(lambda: device.status()["apps"]["web"]["phase"] == "settled", 20, "it settles")
    assert device.identities()["web/api"] == after["web/api"], "the bad release is not tried again"
    device.publish({"web": app(api=service(2), db=service())}, release="mended")
    assert device.container("web/api")["Config"]["Image"].endswith(":2")


class Client:
    """Asks the service again and again: whichever of its containers answers."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.answers: list[bool] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _ask(self) -> None:
        while not self._stop.wait(0.02):
            self.answers.append(any(map(self._answers, self.device.host.containers(self.device.label))))

    def _answers(self, container: dict[str, Any]) -> bool:
        addresses = [network["IPAddress"] for network in container["NetworkSettings"]["Networks"].values()]
        with contextlib.suppress(OSError):
            for address in filter(None, addresses):
                with urllib.request.urlopen(f"http://{address}/", timeout=1) as answer:
                    return bool(answer.status == 200)
        return False


@pytest.mark.parametrize(("strategy", "gap"), [("start-first", False), ("recreate", True)])
def test_start_first_must_have_no_gap_and_recreate_one(device: Device, strategy: str, gap: bool) -> None:
    def apps(number: int) -> dict[str, Any]:
        server = service(command=HTTPD, environment={"N": str(number)}, **{"x-update": {"strategy": strategy}})
        return {"web": app(api=server)}

    device.start()
    device.publish(apps(1))
    with Client(device) as client:
        eventually(lambda: client.answers[-5:] == [True] * 5, 20, "it answers")
        begun = len(client.answers)
        device.publish(apps(2))
        eventually(lambda: client.answers[-5:] == [True] * 5, 20, "it answers")
    gaps = "".join("." if answered else "x" for answered in client.answers[begun:]).split(".")
    assert bool(any(gaps)) is gap
    assert len([each for each in gaps if each]) <= 1
