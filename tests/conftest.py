"""Bare `pytest` knows the image names as `make test` does: the settings that scripts/images wrote to .dev/env.

What is set in the environment already is left as it is. And SIGTERM ends a run as Ctrl-C does: with all that is to be
cleaned up, not with containers and engines left behind. And Ctrl-C ends what tests start, where a run in the background
was told to ignore it, too.

How much hypothesis tries: enough to find again what it has found, in seconds. `HYPOTHESIS_PROFILE=hard`: more.
"""

import os
import signal
from pathlib import Path

from hypothesis import HealthCheck, settings

_SETTINGS = Path(__file__).parent.parent / ".dev" / "env"

if _SETTINGS.exists():
    for _line in _SETTINGS.read_text(encoding="utf-8").splitlines():
        _name, _equals, _value = _line.partition("=")
        if _equals:
            os.environ.setdefault(_name, _value)

signal.signal(signal.SIGTERM, signal.default_int_handler)
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile(
    "ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("hard", max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
