"""Waiting for something to become true. The only place where tests sleep."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_STEP_S = 0.02


def eventually(check: Callable[[], T], timeout: float, what: str) -> T:
    """The first truthy value of `check`, asked every 20 ms. AssertionError, with the last value, after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {timeout} s; last: {value!r}")
        time.sleep(_STEP_S)
