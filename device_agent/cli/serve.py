"""Puts the parts together, runs the agent, and takes it apart at SIGTERM."""

import faulthandler
import os
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from device_agent import __version__
from device_agent.adapters.broker import Pace, Wants
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.control_socket import ControlSocket
from device_agent.adapters.host import PsutilHost
from device_agent.adapters.mqtt import MqttTransport
from device_agent.adapters.store import StoreLocked, open_store
from device_agent.cli.settings import Settings
from device_agent.model.errors import StoreBroken, StoreFull
from device_agent.ports import Clock, Engine, Store
from device_agent.runtime.agent import Agent, Died
from device_agent.runtime.inbox import Event, Request, ThreadDied
from device_agent.runtime.logs import MOST, MOST_CONTAINERS
from device_agent.runtime.options import Options
from device_agent.runtime.watch import watch
from device_agent.runtime.watchdog import Watchdog
from device_agent.runtime.workers import CALL, LOG, PULL, STOP, ThreadWorkers

LANES = {CALL: 8, STOP: 32, PULL: 3, LOG: MOST * MOST_CONTAINERS}
"""Engine calls at once. Stops wait for applications and cost nothing meanwhile; pulls share one line."""
LOCKED_S = 3.0
"""How long another process may have the data folder before it is called another agent."""
HEARTBEAT = "heartbeat"
"""Beside the control socket, on tmpfs: its age is the agent's health."""

_HANGS = (
    b"device-agent: the loop stands still: ending; the engine's restart policy starts the agent again. It was at:\n"
)

log = structlog.get_logger()


def serve(settings: Settings, options: Options, engine: Engine, inbox: "queue.SimpleQueue[Event]") -> int:
    """The exit code: 0 after a stop was requested in `inbox`, 1 when something failed."""
    clock = SystemClock()
    try:
        store = _open_patiently(settings.data_dir, clock)
    except StoreLocked:
        print(f"device-agent: another agent runs on {settings.data_dir}", file=sys.stderr)
        return 1
    except (StoreBroken, StoreFull, OSError) as error:
        print(f"device-agent: {settings.data_dir}: {error}", file=sys.stderr)
        return 1
    control = ControlSocket(settings.control_socket, lambda *question: inbox.put(Request(*question)))
    heartbeat = settings.control_socket.parent / HEARTBEAT
    watchdog = Watchdog(_hung)

    def beat() -> None:
        watchdog.beat()
        _touch(heartbeat)

    agent = Agent(
        options,
        store=store,
        engine=engine,
        transport=_transport(settings, lambda error: inbox.put(ThreadDied("the MQTT connection", error))),
        workers=ThreadWorkers(LANES, lambda name, error: inbox.put(ThreadDied(name, repr(error)))),
        clock=clock,
        host=PsutilHost(settings.data_dir),
        inbox=inbox,
        beat=beat,
    )
    log.info("starting", version=__version__, device=str(options.identity), sqlite=sqlite3.sqlite_version)
    try:
        control.start()
        watchdog.start()
        threading.Thread(target=watch, args=(engine, agent.stopping, inbox.put), name="watch", daemon=True).start()
        agent.run()
    except (Died, StoreBroken, OSError) as error:
        log.critical("ending", why=str(error), next="the engine's restart policy starts the agent again")
        _exit_now(1)
    finally:
        control.close()
    log.info("stopped")
    return 0


def _open_patiently(data_dir: Path, clock: Clock) -> Store:
    """A command that found no agent has the database for a moment itself: that is no second agent."""
    try:
        return open_store(data_dir, clock)
    except StoreLocked:
        import tenacity  # noqa: PLC0415 - seldom needed at a start

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(StoreLocked),
            stop=tenacity.stop_after_delay(LOCKED_S),
            wait=tenacity.wait_fixed(0.1),
            reraise=True,
        )
        return retrying(open_store, data_dir, clock)


def _transport(settings: Settings, died: Callable[[str], None]) -> MqttTransport:
    return MqttTransport(
        settings.broker(),
        f"{settings.fleet}.{settings.device_id}",
        wants=Wants(settings.target_max_bytes, session_expiry_s=settings.mqtt_session_expiry),
        pace=Pace(keepalive=settings.mqtt_keepalive),
        died=died,
    )


def _touch(heartbeat: Path) -> None:
    heartbeat.parent.mkdir(parents=True, exist_ok=True)
    heartbeat.touch()


def _hung() -> None:
    """End without asking for memory: the loop may have been left waiting for want of it."""
    os.write(2, _HANGS)
    faulthandler.dump_traceback()
    os._exit(1)


def _exit_now(code: int) -> None:
    """Threads that hang in an engine call must not keep a broken agent alive."""
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
