"""Sessions, states and convergence, without a broker."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cloud_sim.numbering import next_version
from cloud_sim.roster import LOST_AFTER_S, Device, Yardstick, born, died, forgotten, reported
from device_agent.core.scopes import effective_digest
from device_agent.model.report import AppReport, Have, Reason, ServiceReport, State
from device_agent.model.target import Target, Version

SOME = Have(Version(1, 1), "sha256:a")


def state(have: dict[str, Have | None], digest: str | None = None, *, converged: bool = True) -> State:
    return State(
        have=have, effective_digest=digest, converged=converged, since=datetime(2026, 11, 22, tzinfo=UTC), apps={}
    )


def target(revision: int, apps: dict[str, object], device: str | None = None) -> Target:
    return Target(
        scope="device" if device else "fleet",
        version=Version(1, revision),
        digest=f"sha256:{revision}",
        release=None,
        issued_at=None,
        expires_at=None,
        allow_empty=False,
        apps=apps,
        raw=b"",
        fleet="plant7",
        device=device,
    )


def online(session: int = 1) -> Device:
    return born(Device("d1"), session, {}, "0.1.0")


def test_a_death_of_an_older_session_means_nothing() -> None:
    device = died(online(session=7), 6, "lost", 0.0, retained=False)
    assert device.presence(1e9) == "online"


def test_a_clean_stop_is_offline_at_once() -> None:
    device = died(online(), 1, "stopped", 0.0, retained=False)
    assert (device.presence(0.0), device.offline_reason) == ("offline", "stopped")


def test_a_lost_device_has_thirty_seconds() -> None:
    device = died(online(), 1, "lost", 100.0, retained=False)
    assert device.presence(100.0 + LOST_AFTER_S - 0.1) == "lost?"
    assert device.presence(100.0 + LOST_AFTER_S) == "offline"
    assert born(device, 2, {}, None).presence(1e9) == "online"


def test_a_retained_death_is_offline_at_once() -> None:
    assert died(online(), 1, "lost", 0.0, retained=True).presence(0.0) == "offline"


def test_a_device_whose_volume_was_deleted_numbers_anew_and_is_heard() -> None:
    old = reported(online(session=9), (9, 40), state({"fleet": SOME}), None)
    new = reported(born(old, 1, {}, None), (1, 1), state({"fleet": None}), None)
    assert new.presence(0.0) == "online"
    assert new.state
    assert new.state.have == {"fleet": None}


def test_what_the_broker_retains_of_a_lost_database_is_outranked_by_the_new_session() -> None:
    """The birth of the new session came, and its state not yet: what is retained is the old session's."""
    retained = (9, 40), state({"fleet": SOME}), None
    for device in (
        born(reported(Device("d1"), *retained), 1, {}, None),
        reported(born(Device("d1"), 1, {}, None), *retained),
    ):
        assert Yardstick({}).shortfall(device, 0.0) == "has not reported its state since it connected"
        new = reported(device, (1, 1), state({"fleet": None}), None)
        assert new.state
        assert new.state.have == {"fleet": None}
        assert Yardstick({}).shortfall(new, 0.0) is None
        assert reported(new, *retained) == new


def test_a_death_of_the_new_session_counts_although_its_number_is_lower() -> None:
    device = born(online(session=9), 1, {}, None)
    assert died(device, 1, "lost", 100.0, retained=False).presence(100.0) == "lost?"
    assert died(device, 1, "stopped", 100.0, retained=False).presence(100.0) == "offline"


def test_an_older_state_is_left_out() -> None:
    device = reported(online(), (1, 5), state({"fleet": SOME}), None)
    assert reported(device, (1, 4), state({"fleet": None}), None) == device


def test_a_state_of_an_earlier_session_proves_nothing() -> None:
    old = reported(Device("d1"), (1, 5), state({"fleet": None}), None)
    assert Yardstick({}).shortfall(born(old, 2, {}, None), 0.0) == "has not reported its state since it connected"


def test_the_worst_reason_comes_first() -> None:
    reason = Reason("port_taken", "port 80 is taken", attempt=3)
    services = {"db": ServiceReport("running"), "api": ServiceReport("failed", reason=reason)}
    app = AppReport(release="a", revision=None, phase="updating", services=services)
    device = replace(online(), state=replace(state({}), apps={"web": app}))
    assert device.worst == "web/api: port 80 is taken (attempt 3)"
    assert device.services == (1, 2)
    held = replace(app, reason=Reason("network", "the network is in the way"))
    assert replace(device, state=replace(state({}), apps={"web": held})).worst == "web: the network is in the way"


class TestConvergence:
    fleet = target(3, {"web": {"services": {"api": {"image": "a"}}}})
    own = target(2, {"web": None, "own": {"services": {}}}, device="d1")
    have_fleet = Have(Version(1, 3), "sha256:3")
    have_own = Have(Version(1, 2), "sha256:2")

    def shortfall(self, targets: dict[str | None, Target], told: State) -> str | None:
        return Yardstick(targets).shortfall(reported(online(), (1, 1), told, None), 0.0)

    def test_proven_by_the_effective_digest(self) -> None:
        digest = effective_digest({"own": {"services": {}}})
        have = {"fleet": self.have_fleet, "device": self.have_own}
        assert self.shortfall({None: self.fleet, "d1": self.own}, state(have, digest)) is None
        assert "effective digest" in str(self.shortfall({None: self.fleet, "d1": self.own}, state(have, "sha256:0")))

    def test_another_devices_target_does_not_count(self) -> None:
        told = state({"fleet": self.have_fleet, "device": None}, effective_digest(dict(self.fleet.apps)))
        assert self.shortfall({None: self.fleet, "d2": self.own}, told) is None

    @pytest.mark.parametrize(
        ("have", "why"),
        [
            (None, "has not taken the fleet target 1.3 yet"),
            (Have(Version(1, 2), "sha256:2"), "has still the fleet target 1.2, not 1.3"),
            (Have(Version(2, 1), "sha256:9"), "has the newer fleet target 2.1, not 1.3"),
            (Have(Version(1, 3), "sha256:9"), "has another content of the fleet target 1.3"),
        ],
    )
    def test_the_version_counts(self, have: Have | None, why: str) -> None:
        assert self.shortfall({None: self.fleet}, state({"fleet": have, "device": None})) == why

    def test_an_unknown_target_is_no_convergence(self) -> None:
        told = state({"fleet": None, "device": self.have_own})
        assert self.shortfall({}, told) == "has a device target 1.2 that is not known here"

    def test_steps_left_are_no_convergence(self) -> None:
        told = state({"fleet": self.have_fleet}, effective_digest(dict(self.fleet.apps)), converged=False)
        assert self.shortfall({None: self.fleet}, told) == "is still working on it"

    def test_nothing_published_and_nothing_taken_is_convergence(self) -> None:
        assert self.shortfall({}, state({"fleet": None, "device": None})) is None

    def test_an_offline_device_has_not_converged(self) -> None:
        told = state({"fleet": None, "device": None})
        device = forgotten(reported(online(), (1, 1), told, None))
        assert Yardstick({}).shortfall(device, 0.0) == "offline (not heard of)"


@pytest.mark.parametrize(
    ("own", "retained", "accepted", "expected"),
    [
        (None, None, [], (1, 1)),
        ((1, 4), None, [], (1, 5)),
        ((1, 4), (1, 4), [(1, 4), (1, 3)], (1, 5)),
        ((1, 4), (1, 6), [(1, 6)], (1, 7)),  # another cloud publishes too
        ((3, 1), (2, 9), [(2, 9)], (3, 2)),
        (None, (1, 6), [], (2, 1)),  # the database was lost
        (None, None, [(1, 6), (2, 3)], (3, 1)),  # and the broker's data too
        ((1, 4), (1, 4), [(1, 5)], (2, 1)),  # the database is an old copy
    ],
)
def test_the_next_version(
    own: tuple[int, int] | None, retained: tuple[int, int] | None, accepted: list[tuple[int, int]], expected: object
) -> None:
    found = next_version(own and Version(*own), retained and Version(*retained), [Version(*each) for each in accepted])
    assert found == expected
