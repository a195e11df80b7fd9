"""What the worst messages cost to judge: CPU time and memory, the most expensive first.

    .venv/bin/python -m benchmarks.hostile

No part of `make bench`: nothing runs beside it, and there is no peer.
"""

import gc
import time
import tracemalloc

from rich.console import Console
from rich.table import Table

from tests.hostile import INFLATED, MIB, TRAVELS, documents
from tests.property.test_worst_messages import judged

RUNS = 3


def main() -> None:
    rows = [row for size in (TRAVELS, INFLATED) for row in map(_measured, *zip(*documents(size), strict=True))]
    table = Table("message", "answer", "CPU ms", "MiB")
    for name, answer, seconds, peak in sorted(rows, key=lambda row: -row[2]):
        table.add_row(name, answer, f"{seconds * 1000:.0f}", f"{peak / MIB:.1f}")
    Console().print(table)


def _measured(name: str, raw: bytes) -> tuple[str, str, float, int]:
    """The best of some runs, and the peak of allocations in one more."""
    best = float("inf")
    answer = ""
    for _ in range(RUNS):
        gc.collect()
        started = time.process_time()
        answer = judged(raw)
        best = min(best, time.process_time() - started)
    tracemalloc.start()
    try:
        judged(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return name, answer, best, peak


if __name__ == "__main__":
    main()
