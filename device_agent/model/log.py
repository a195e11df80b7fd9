"""Lines that applications write."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogLine:
    text: str
    """Without its end; what is no UTF-8 is replaced."""
    stream: str = "stdout"
    """`stdout` or `stderr`; with a terminal all is `stdout`."""
    at: str | None = None
    """When the engine got it, as it says so: ISO 8601 with nanoseconds."""
    container: str | None = None
    """Its name, where a service has several."""
