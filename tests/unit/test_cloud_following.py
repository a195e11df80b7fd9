"""What becomes of a published target, from a cloud whose knowledge is made up; and how it is shown."""

import json
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, cast

import pytest
from rich.console import Console

from cloud_sim.cli.screen import Screen, summary
from cloud_sim.cloud import Cloud, Published
from cloud_sim.database import Entry
from cloud_sim.following import Following, Outcome, why
from cloud_sim.roster import Device, born, died
from device_agent.model.target import Version

PUBLISHED = Published(None, Version(1, 5), "sha256:5", "a", (), entry=10)


@dataclass
class Known:
    """The part of a cloud that following asks."""

    online: dict[str, str | None]
    """Device → its shortfall."""
    offline: tuple[str, ...] = ()
    heard: list[Entry] = field(default_factory=list)

    def devices(self) -> tuple[Device, ...]:
        there = [born(Device(name), 1, {}, None) for name in self.online]
        return (*there, *(died(Device(name), 1, "stopped", 0.0, retained=False) for name in self.offline))

    def presence(self, device: Device) -> str:
        return device.presence(0.0)

    def shortfalls(self, devices: list[str]) -> dict[str, str | None]:
        return {name: self.online.get(name, "offline (stopped)") for name in devices}

    def acks(self, device: str | None = None, *, after: int = 0) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.heard if entry.id > after and device in (None, entry.device))

    def ack(self, device: str, verdict: str, *, revision: int = 5, **more: Any) -> None:
        body = {"scope": "fleet", "epoch": 1, "revision": revision, "verdict": verdict, **more}
        number = 11 + len(self.heard)
        self.heard.append(Entry(number, device, number, "ack", "2026-11-22T10:00:00.000Z", body))


def following(known: Known, published: Published = PUBLISHED) -> Following:
    made = Following(cast("Cloud", known), published)
    made.update()
    return made


def test_nobody_is_online() -> None:
    assert following(Known({}, offline=("d1",))).outcome is Outcome.NOBODY
    assert following(Known({})).outcome is Outcome.NOBODY
    own = Published("d9", Version(1, 1), "", None, (), entry=0)
    assert [row.device for row in following(Known({"d1": None}), own).rows] == ["d9"]


def test_it_has_converged_when_all_that_are_online_have() -> None:
    assert following(Known({"d1": None, "d2": None}, offline=("d3",))).outcome is Outcome.CONVERGED
    assert following(Known({"d1": None, "d2": "is still working on it"})).outcome is Outcome.PENDING


@pytest.mark.parametrize("verdict", ["rejected", "rolled_back", "superseded"])
def test_it_has_failed_when_all_have_ended_and_one_badly(verdict: str) -> None:
    known = Known({"d1": "has still 1.4", "d2": "is still working on it"})
    known.ack("d1", verdict, code="some_code")
    assert following(known).outcome is Outcome.PENDING
    known.online["d2"] = None
    assert following(known).outcome is Outcome.FAILED
    assert following(known).rows[0].outcome is Outcome.FAILED


def test_what_is_said_of_an_app_or_of_another_target_ends_nothing() -> None:
    known = Known({"d1": "is still working on it"})
    known.ack("d1", "rolled_back", app="web")
    known.ack("d1", "rejected", revision=4)
    known.ack("d1", "failed", app="web", code="no_such_image", message="there is none")
    made = following(known)
    (row,) = made.rows
    assert (row.outcome, row.verdict, row.app) == (Outcome.PENDING, "failed", "web")
    assert row.reason == "no_such_image; there is none"


def test_a_refusal_that_could_not_read_the_version_is_of_what_was_published() -> None:
    known = Known({"d1": "has still 1.4"})
    known.ack("d1", "rejected", code="signature")
    del known.heard[-1].body["revision"]  # type: ignore[attr-defined]
    assert following(known).outcome is Outcome.FAILED
    known.heard[-1].body["scope"] = "device"  # type: ignore[index]
    assert following(known).outcome is Outcome.PENDING


def test_every_ack_is_told_once() -> None:
    known = Known({"d1": "…"})
    made = following(known)
    known.ack("d1", "accepted")
    assert [entry.body["verdict"] for entry in made.update()] == ["accepted"]
    assert made.update() == ()


def test_why() -> None:
    assert why({"verdict": "superseded"}) == "by a newer target"
    assert why({"verdict": "applied"}) == ""
    stale = why({"verdict": "rejected", "code": "stale", "have": {"epoch": 1, "revision": 9}})
    assert stale == "stale; it has 1.9: publish again, which will go above that"
    refused = {"code": "invalid", "message": "1 place", "errors": [{"pointer": "/apps/a", "message": "no"}]}
    assert why(refused) == "invalid; 1 place; /apps/a: no"
    assert why({"code": "x", "attempt": 3, "next_try_at": "T"}) == "x; attempt 3, next at T"


def shown(known: Known, *, height: int, width: int = 80) -> str:
    screen = Screen(as_json=False)
    out = StringIO()
    screen.console = Console(file=out, force_terminal=True, width=width, height=height, color_system=None)
    screen.console.print(screen.following(following(known), 12.3))
    return out.getvalue()


def test_the_table_shows_first_what_needs_looking_at() -> None:
    known = Known({"a-fine": None, "b-slow": "is still working on it", "c-bad": "…"}, offline=("a-off",))
    known.ack("c-bad", "rejected", code="invalid")
    lines = [line.split()[0] for line in shown(known, height=30).splitlines()]
    assert lines[:5] == ["device", "c-bad", "b-slow", "a-fine", "a-off"]
    assert shown(known, height=30).splitlines()[-1].strip() == (
        "1 of 3 online devices converged, 1 failed; 1 offline; 12 s left"
    )


def test_the_table_fits_the_terminal() -> None:
    known = Known({f"d{number:03}": "is still working on it" for number in range(500)})
    text = shown(known, height=24)
    assert len(text.splitlines()) < 24
    assert "… and 484 more; 0 of 500 online devices converged" in text


def test_programs_get_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(as_json=True)
    known = Known({"d1": "…"})
    known.ack("d1", "accepted")
    screen.say("for people")
    screen.published(PUBLISHED)
    screen.ack(known.heard[0])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in told] == ["published", "ack"]
    assert (told[0]["epoch"], told[0]["revision"], told[0]["scope"]) == (1, 5, "fleet")
    assert told[1]["ack"]["verdict"] == "accepted"


def test_the_summary() -> None:
    assert summary(following(Known({"d1": None}))) == "1 of 1 online device converged"
    assert summary(following(Known({}, offline=("d1", "d2")))) == "no device is online, 2 offline"
