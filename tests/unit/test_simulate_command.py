"""`cloud-sim simulate` without a broker: how it ends, with a fleet to which only the counts happen."""

import pytest
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.clock import monotonic
from cloud_sim.simulation.figures import Figures
from cloud_sim.simulation.fleet import Outcome


class Counts:
    """What the command asks of a fleet."""

    size, converged, resident_mib = 3, 2, 1.0

    def __init__(self, connected: int) -> None:
        self.connected = connected
        self.started_at = monotonic()
        self.figures = Figures()
        self.figures.connections = 3

    def start(self) -> None:
        pass

    def run(self, over: object) -> None:
        assert callable(over)

    def stop(self) -> None:
        self.connected = 0

    def close(self) -> None:
        pass

    def outcome(self) -> Outcome:
        return Outcome.PENDING

    def troubles(self) -> list[str]:
        return ["3 devices: Connection refused"] if not self.connected else []


@pytest.mark.parametrize(("connected", "code", "last"), [(0, 1, "Connection refused"), (1, 0, "say farewell")])
def test_a_fleet_that_has_lost_its_broker_has_not_ended_well(
    monkeypatch: pytest.MonkeyPatch, connected: int, code: int, last: str
) -> None:
    monkeypatch.setattr("cloud_sim.connection.Broker.probe", lambda _: None)
    monkeypatch.setattr("cloud_sim.cli.simulate.Fleet", lambda *_, **__: Counts(connected))
    ended = CliRunner().invoke(app, ["simulate", "--fleet", "plant7", "-n", "3", "--for", "1s"])
    assert ended.exit_code == code, ended.output
    assert last in ended.stderr.splitlines()[-1]
    assert ("the broker was lost: at the end no device was connected" in ended.stderr) == (code == 1)
