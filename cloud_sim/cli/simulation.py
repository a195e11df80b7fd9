"""How a simulated fleet is shown: a screen that is kept up to date, or a line now and then; and the report."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cloud_sim.cli.screen import Screen
from cloud_sim.clock import monotonic
from cloud_sim.simulation.figures import RECEIVED, Times, resident_mib
from cloud_sim.simulation.fleet import Fleet
from cloud_sim.simulation.processes import Processes
from device_agent.model.target import Json

SHOW_S, LINE_S = 0.5, 5.0
"""How often the screen is drawn, or a line is written."""
FAILURES_SHOWN = 8
_FIRST = (RECEIVED, "accepted", "applied")
"""What is told before all other answers."""


class View:
    """Within it, as a context manager, the live screen is there."""

    def __init__(self, fleet: Fleet | Processes, *, as_json: bool, broker_pid: int | None = None) -> None:
        self._fleet = fleet
        self._screen = Screen(as_json=as_json)
        self._broker_pid = broker_pid
        self._due = self._line_due = 0.0
        self._live = Live(console=self._screen.console, auto_refresh=False, transient=True)

    def __enter__(self) -> Self:
        if self._screen.live:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._live.stop()

    def due(self) -> bool:
        """Whether it is time to look at the fleet again."""
        now = monotonic()
        if now < self._due:
            return False
        self._due = now + SHOW_S
        return True

    def show(self) -> None:
        if self._screen.live:
            self._live.update(self._table(), refresh=True)
        elif not self._screen.as_json and monotonic() >= self._line_due:
            self._line_due = monotonic() + LINE_S
            self._screen.say(self._summary())

    def report(self) -> None:
        """The last word."""
        if self._screen.as_json:
            self._screen.tell("simulation", **self._body())
        else:
            self._screen.console.print(self._table())

    def _summary(self) -> str:
        fleet = self._fleet
        seconds = monotonic() - fleet.started_at
        return (
            f"{seconds:.0f} s: {fleet.connected:,} of {fleet.size:,} devices connected, {fleet.converged:,} converged"
        )

    def _table(self) -> RenderableType:
        figures, devices = self._fleet.figures, self._fleet.size
        answers = Table(box=None, header_style="dim", pad_edge=False)
        for column in ("target", "", "devices", "first", "median", "last"):
            answers.add_column(column, justify="left" if column in ("target", "") else "right")
        for (scope, version), answer in figures.answers.items():
            name = f"{scope} {version}"
            for what, times in _in_order(answer.times()):
                answers.add_row(name, what, f"{times.count:,}", *map(_time, (times.first, times.median, times.last)))
                name = ""
        memory = [f"simulator {self._fleet.resident_mib:.0f} MiB"]
        if self._broker_pid is not None and (broker := resident_mib(self._broker_pid)) is not None:
            memory.append(f"broker {broker:.0f} MiB")
        each = f"a device {figures.messages_out / devices:.1f} and {figures.bytes_out / devices:,.0f}"
        lines = [
            f"sent: {figures.messages_out:,} messages, {figures.bytes_out:,} bytes; {each}",
            f"received: {figures.messages_in:,} messages, {figures.bytes_in:,} bytes",
            "memory: " + ", ".join(memory),
            f"connections: {figures.connections:,} made, {figures.dropped:,} lost or not made",
            *(f"  {why}" for why in self._fleet.troubles()),
        ]
        failures = [f"{what}: {count:,}" for what, count in figures.failures.most_common(FAILURES_SHOWN)]
        if failures:
            lines.append("told of failures: " + ", ".join(failures))
        return Group(Text(self._summary(), style="bold"), answers, *(Text(line, style="dim") for line in lines))

    def _body(self) -> dict[str, Json]:
        fleet, figures = self._fleet, self._fleet.figures
        return {
            "devices": fleet.size,
            "connected": fleet.connected,
            "converged": fleet.converged,
            "seconds": round(monotonic() - fleet.started_at, 3),
            "targets": [
                {
                    "scope": scope,
                    "epoch": version.epoch,
                    "revision": version.revision,
                    "answers": {
                        what: {
                            "devices": times.count,
                            "first_s": round(times.first, 4),
                            "median_s": round(times.median, 4),
                            "last_s": round(times.last, 4),
                        }
                        for what, times in _in_order(answer.times())
                    },
                }
                for (scope, version), answer in figures.answers.items()
            ],
            "sent": {"messages": figures.messages_out, "bytes": figures.bytes_out},
            "received": {"messages": figures.messages_in, "bytes": figures.bytes_in},
            "connections": {"made": figures.connections, "dropped": figures.dropped},
            "memory_mib": {"simulator": fleet.resident_mib, "broker": resident_mib(self._broker_pid)}
            if self._broker_pid
            else {"simulator": fleet.resident_mib},
            "failures": dict(figures.failures),
        }


def _in_order(times: dict[str, Times]) -> Iterator[tuple[str, Times]]:
    for what in (*_FIRST, *sorted(times.keys() - set(_FIRST))):
        if what in times:
            yield what, times[what]


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s"
