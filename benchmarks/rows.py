"""What was measured, and how it is shown: a table for people and for documents, JSON, a picture with the peers."""

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

_DIGITS = {"s": 3, "ms": 1, "MiB": 1, "kB": 1, "% of a core": 3}
_COLUMNS = 3


@dataclass(frozen=True)
class Row:
    """One figure: all its runs, and those of its peers in the same session."""

    what: str
    unit: str
    ours: Sequence[float]
    peers: Mapping[str, Sequence[float]] = field(default_factory=dict)
    goal: str = ""
    of: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """What the figure is made up of, the most of it first."""


def show(rows: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("WHAT", "AGENT", "BESIDE", "TO REACH"):
        table.add_column(column)
    for row in rows:
        table.add_row(*_cells(row, ", "))
        for part, values in row.of.items():
            table.add_row(f"  {part}", _figure(values, row.unit))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def write_markdown(rows: Sequence[Row], file: Path) -> None:
    """The same table, as docs/performance.md has it."""
    lines = ["| | agent | beside | to reach |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(_cells(row, '; '))} |" for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write(rows: Sequence[Row], file: Path) -> None:
    file.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def draw(rows: Sequence[Row], file: Path) -> None:
    """Each figure that has peers as bars of its own: medians, and the range of the runs."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - only here, and slow to import

    shown = [row for row in rows if any(map(any, row.peers.values()))]
    lines = max(1, -(-len(shown) // _COLUMNS))
    figure = Figure(figsize=(4.2 * _COLUMNS, 2.1 * lines), layout="constrained")
    panels = figure.subplots(lines, _COLUMNS, squeeze=False)
    for panel, row in zip(panels.flat, shown, strict=False):
        bars = {"agent": row.ours, **row.peers}
        medians = [statistics.median(values) for values in bars.values()]
        ranges = [(m - min(values), max(values) - m) for m, values in zip(medians, bars.values(), strict=True)]
        colours = ["tab:blue", *["tab:gray"] * len(row.peers)]
        panel.barh(list(bars), medians, color=colours, xerr=list(zip(*ranges, strict=True)), ecolor="black", capsize=2)
        panel.invert_yaxis()
        panel.set_title(row.what, fontsize=8)
        panel.set_xlabel(row.unit, fontsize=7)
        panel.tick_params(labelsize=7)
    for panel in list(panels.flat)[len(shown) :]:
        panel.set_axis_off()
    # Not by the file's name: matplotlib would refuse one of no format that it knows, now that all is measured.
    figure.savefig(file, dpi=110, format="png")


def _cells(row: Row, between: str) -> tuple[str, str, str, str]:
    beside = between.join(f"{name} {_beside(row, values)}" for name, values in row.peers.items())
    return row.what, _figure(row.ours, row.unit), beside, row.goal


def _figure(values: Sequence[float], unit: str) -> str:
    digits = _DIGITS.get(unit, 0)
    middle = f"{statistics.median(values):.{digits}f} {unit}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _beside(row: Row, peer: Sequence[float]) -> str:
    middle = statistics.median(peer)
    ratio = f": {statistics.median(row.ours) / middle:.2f} x" if middle else ""
    return f"{_figure(peer, row.unit)}{ratio}"
