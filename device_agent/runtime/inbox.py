"""What wakes the owner loop. Everything that happens outside it arrives as one of these, on one queue."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_agent.model.errors import EngineAway, EngineError
from device_agent.model.memory import PulledImage
from device_agent.model.observed import EngineEvent, Observed
from device_agent.model.steps import Step
from device_agent.model.target import Json
from device_agent.ports import PullProgress, TransportEvent


@dataclass(frozen=True, slots=True)
class Looked:
    """An observation ended. `number` is the look's; `observed` is None when the engine was away (`why`)."""

    number: int
    observed: Observed | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class StepEnded:
    """`error` is None when it succeeded; `away` when the engine was away, which counts for nothing."""

    app: str
    step: Step
    error: EngineError | None = None
    away: bool = False


@dataclass(frozen=True, slots=True)
class PullEnded:
    """`image_id` is what the reference shows now, when it has ended well."""

    image: str
    image_id: str = ""
    error: EngineError | None = None
    away: bool = False
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class ImageRemoved:
    """The removal of an image has ended; `error` says why it is still here."""

    row: PulledImage
    error: str = ""


@dataclass(frozen=True, slots=True)
class TailRead:
    container_id: str
    text: str


@dataclass(frozen=True, slots=True)
class LocksRead:
    """By container: why it is not to be stopped, None where it may be.

    `before_stopping`: a run waits for it, and goes on only when all may be stopped.
    """

    app: str
    locks: Mapping[str, str | None]
    before_stopping: bool


@dataclass(frozen=True, slots=True)
class SizesRead:
    """What registries say of images that would be fetched: bytes, None where they do not. `then` goes on with it."""

    sizes: Mapping[str, int | None]
    then: Callable[[Mapping[str, int | None]], None]


@dataclass(frozen=True, slots=True)
class LogArrived:
    """There are lines for a lease that had none."""

    lease: int


@dataclass(frozen=True, slots=True)
class LogEnded:
    """One container's log was read to its end. `error`: (code, message)."""

    lease: int
    error: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class VolumesPurged:
    """`error` is why not all of them are gone; `reply` is to be told."""

    app: str
    gone: tuple[str, ...]
    reply: Callable[[Mapping[str, Json]], None]
    error: EngineError | EngineAway | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody local asks something. `reply` is called once, from the loop, with the answer."""

    verb: str
    args: Mapping[str, Json]
    reply: Callable[[Mapping[str, Json]], None]


@dataclass(frozen=True, slots=True)
class StopRequested:
    """SIGTERM: no new step; what is in the middle is finished or undone."""


@dataclass(frozen=True, slots=True)
class ThreadDied:
    """A thread that must not end has ended: the process cannot be trusted any more."""

    name: str
    error: str


Event = (
    TransportEvent
    | EngineEvent
    | Looked
    | StepEnded
    | PullEnded
    | PullProgress
    | ImageRemoved
    | TailRead
    | LocksRead
    | SizesRead
    | VolumesPurged
    | LogArrived
    | LogEnded
    | Request
    | StopRequested
    | ThreadDied
)
Put = Callable[[Event], None]
