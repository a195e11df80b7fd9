"""What `make faults`, `make cluster` and `make bench` are told: refused with a sentence before anything begins."""

import argparse
import math
import os
from pathlib import Path


def count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return number


def duration(text: str) -> float:
    """In seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


def writable(text: str) -> Path:
    """A file that can be written at the end of hours; nothing is made yet."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: it is a folder")
    place = path if path.exists() else path.parent
    if not ((path.exists() or place.is_dir()) and os.access(place, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path
