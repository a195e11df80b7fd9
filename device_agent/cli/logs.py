"""The log: one event a line, JSON or for people. Never an environment value, a credential or a payload."""

import logging
import sys
from typing import Literal

import structlog


def configure_logs(level: str, form: Literal["json", "console"] | None) -> None:
    """`form` None: console at a terminal, else JSON."""
    console = form == "console" or (form is None and sys.stderr.isatty())
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if console:
        # The default shows the variables of every frame, and a target with its secrets is among them.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
