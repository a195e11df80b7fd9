"""One step, one engine call. Short hiccups are retried here, around the single call; all else by the next pass."""

import threading
from collections.abc import Callable

from device_agent.core.backoff import CAP_S, FIRST_S
from device_agent.model.errors import EngineError, Kind
from device_agent.model.steps import (
    Action,
    CheckNetwork,
    Connect,
    Create,
    CreateNetwork,
    CreateVolume,
    Disconnect,
    Fill,
    Pull,
    Remove,
    RemoveImage,
    RemoveNetwork,
    RemoveVolume,
    Rename,
    Start,
    Stop,
)
from device_agent.ports import Engine
from device_agent.runtime.workers import CALL, STOP

_HICCUPS = 3


def lane(action: Action) -> str:
    """Stopping takes as long as the application likes."""
    return STOP if isinstance(action, Stop) else CALL


def execute(action: Action, engine: Engine, stopping: threading.Event) -> None:
    """Carry out a step. Raises `EngineError`, `EngineAway`. `stopping` cuts waits short."""
    import tenacity  # noqa: PLC0415 - a pass that finds nothing to do does not load it

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_hiccup),
        stop=tenacity.stop_after_attempt(_HICCUPS) | tenacity.stop_when_event_set(stopping),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=1),
        sleep=tenacity.sleep_using_event(stopping),
        reraise=True,
    )
    retrying(_call(action, engine))


def _is_hiccup(error: BaseException) -> bool:
    return isinstance(error, EngineError) and error.kind is Kind.TEMPORARY and error.code != "timeout"


def _call(action: Action, engine: Engine) -> Callable[[], None]:  # noqa: C901, PLR0912 - a table
    match action:
        case CreateNetwork():
            return lambda: engine.create_network(action)
        case CheckNetwork():
            return lambda: engine.check_network(action.id, action.users)
        case RemoveNetwork():
            return lambda: engine.remove_network(action.id)
        case CreateVolume():
            return lambda: engine.create_volume(action)
        case Fill():
            return lambda: engine.fill(action)
        case RemoveVolume():
            return lambda: engine.remove_volume(action.name)
        case Create():
            return lambda: engine.create(action)
        case Start():
            return lambda: engine.start(action.container)
        case Stop():
            return lambda: engine.stop(action.id, action.grace_s)
        case Remove():
            return lambda: engine.remove(action.id)
        case Rename():
            return lambda: engine.rename(action.id, action.name)
        case RemoveImage():
            return lambda: engine.remove_image(action.image)
        case Connect():
            return lambda: engine.connect(action)
        case Disconnect():
            return lambda: engine.disconnect(action.id, action.network)
        case Pull():
            raise AssertionError("pulls are shared between apps and not a step of a run")


def delay_s(count: int, kind: Kind) -> float:
    """Seconds until the next try after `count` failures. What only another target can mend is tried more slowly.

    Full jitter: a uniformly random time up to the exponential one, so that a fleet does not retry in step.
    """
    import tenacity  # noqa: PLC0415 - as above

    first_s = 5 * FIRST_S if kind is Kind.TARGET else FIRST_S
    wait = tenacity.wait_random_exponential(multiplier=first_s, max=CAP_S)
    state = tenacity.RetryCallState(retry_object=tenacity.Retrying(), fn=None, args=(), kwargs={})
    state.attempt_number = count
    return wait(state)
