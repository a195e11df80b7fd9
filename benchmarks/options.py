"""What `make bench` is asked for. What cannot be done is refused here, before anything is started."""

import argparse
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path


def parse(arguments: Sequence[str] | None, *, about: str, parts: Collection[str]) -> argparse.Namespace:
    """From `arguments`, by default this process's. Ends the process with 2 where it cannot be meant."""
    parser = argparse.ArgumentParser(prog="make bench", description=about)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all of them by default")
    parser.add_argument("--runs", type=_count, default=5)
    parser.add_argument("--idle", type=_seconds, default=60.0, help="seconds at rest")
    parser.add_argument("--devices", type=_count, default=5000, help="of the simulated fleet")
    parser.add_argument("--json", type=_file, help="also write the figures to this file")
    parser.add_argument("--markdown", type=_file, help="also write the table, in Markdown, to this file")
    parser.add_argument("--png", type=_file, help="also draw them")
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.parts) - set(parts))
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}: {', '.join(parts)}")
    return options


def _count(text: str) -> int:
    count = int(text) if text.isdecimal() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return count


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} are no seconds: write 60 or 0.5")
    return seconds


def _file(text: str) -> Path:
    """One that can be written when everything has been measured."""
    file = Path(text)
    if file.exists():
        fits = not file.is_dir() and os.access(file, os.W_OK)
    else:
        fits = file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK)
    if not fits:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: name a file in a folder that is there")
    return file
