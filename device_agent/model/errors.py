"""Errors, named by what the caller does next.

`Refused` says no to input and is answered to whoever sent it. `EngineError` is a failed engine call, sorted once at
the engine's edge: its `kind` says how it is retried. `EngineAway` concludes nothing: the engine is waited for.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Problem:
    """One place in a document: a JSON pointer (RFC 6901) and a sentence about it."""

    pointer: str
    message: str


MOST_PROBLEMS = 1000
"""Of one document. A hostile one can have more wrong places than anybody will read, and each costs time and memory."""


class Refused(Exception):  # noqa: N818 - the word of the protocol
    """Input that is refused whole. `code` is one of the protocol's words, `problems` the places that are wrong.

    They are all of them, up to `MOST_PROBLEMS`.
    """

    def __init__(self, code: str, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.problems = problems


class Kind(StrEnum):
    """Whose fault a failed engine call is. Every kind is retried; a target's fault more slowly."""

    TEMPORARY = "temporary"
    OUTSIDE = "outside"
    TARGET = "target"


class EngineError(Exception):
    """A failed engine call: `code` is stable and documented, `message` a sentence an operator can act on.

    `wait_s`: for how long whoever refused it wants to be left alone.
    """

    def __init__(self, code: str, message: str, kind: Kind, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.kind = kind
        self.wait_s = wait_s


class EngineAway(Exception):  # noqa: N818 - a state of the world, not a fault of a call
    """The engine does not answer (socket gone, daemon restarting or hanging). Nothing may be concluded from it."""


class Cancelled(Exception):  # noqa: N818
    """A call was given up because what it was for is no longer wanted."""


class StoreBroken(Exception):  # noqa: N818
    """The store failed in a way that must end the process (a failed fsync): the next start recovers."""


class StoreFull(Exception):  # noqa: N818
    """No space for a commit. Nothing was written; what is stored is intact; it is tried again later."""
