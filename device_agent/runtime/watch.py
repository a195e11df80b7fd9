"""The thread that hears the engine. Its events are hints; what is true is observed."""

import threading

import structlog

from device_agent.model.errors import EngineAway, EngineError
from device_agent.ports import Engine
from device_agent.runtime.inbox import Put, ThreadDied

AGAIN_S = 1.0

log = structlog.get_logger()


def watch(engine: Engine, stop: threading.Event, put: Put) -> None:
    """Pass events on until `stop` is set. A stream that ends, also silently, is opened again."""
    try:
        while not stop.is_set():
            try:
                for event in engine.events(stop):
                    put(event)
            except (EngineAway, EngineError) as error:
                log.debug("no engine events", why=str(error))
            stop.wait(AGAIN_S)
    except BaseException as error:  # noqa: BLE001 - an agent that hears nothing looks alive: it must end instead
        put(ThreadDied("the engine watch", repr(error)))
