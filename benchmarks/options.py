"""What `make bench` is asked for. What cannot be done is refused here, before anything is started."""

import argparse
from collections.abc import Collection, Sequence

from tests.arguments import count, duration, writable


def parse(arguments: Sequence[str] | None, *, about: str, parts: Collection[str]) -> argparse.Namespace:
    """From `arguments`, by default this process's. Ends the process with 2 where it cannot be meant."""
    parser = argparse.ArgumentParser(prog="make bench", description=about)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all of them by default")
    parser.add_argument("--runs", type=count, default=5)
    parser.add_argument("--idle", type=duration, default=60.0, help="seconds at rest")
    parser.add_argument("--devices", type=count, default=5000, help="of the simulated fleet")
    parser.add_argument("--json", type=writable, help="also write the figures to this file")
    parser.add_argument("--markdown", type=writable, help="also write the table, in Markdown, to this file")
    parser.add_argument("--png", type=writable, help="also draw them")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(parts))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: {', '.join(parts)}")
    return options
