"""What may be said to `make faults` and `make cluster`, each refused with a sentence before anything begins."""

import argparse
import math
import os
from collections.abc import Sequence
from pathlib import Path

from tests.faults.fault import Fault


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
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, not a file")
    place = path if path.exists() else path.parent
    if not ((path.exists() or place.is_dir()) and os.access(place, os.W_OK)):
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written")
    return path


def matching(words: Sequence[str], faults: Sequence[Fault]) -> list[Fault]:
    """Those with one of the words in the name or as the group, in any case; without words, all.

    Raises ValueError for words that no fault has.
    """
    found = {word: [each for each in faults if _has(each, word.strip().lower())] for word in words}
    if strange := [word for word in found if not found[word]]:
        raise ValueError(f"no fault has {', '.join(map(repr, strange))} in its name or as its group")
    return [each for each in faults if not words or any(each in having for having in found.values())]


def _has(fault: Fault, word: str) -> bool:
    return bool(word) and (word in fault.name.lower() or word == fault.group.lower())
