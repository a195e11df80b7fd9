"""The same commands when no agent runs: an agent that answers once and does nothing else.

What only reads is answered from a copy of the data, as the next start would find it: that start alone may mend what it
finds, or migrate it.
"""

import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from device_agent.adapters.clock import SystemClock
from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.host import PsutilHost
from device_agent.adapters.store import StoreLocked, open_store
from device_agent.adapters.store_rehearsal import rehearsed
from device_agent.cli import next_start
from device_agent.cli.finding import Health
from device_agent.cli.logs import configure_logs
from device_agent.cli.options import agent_options
from device_agent.cli.settings import Settings
from device_agent.model.errors import EngineAway, EngineError, StoreBroken, StoreFull
from device_agent.ports import TransportEvent, Will
from device_agent.runtime.agent import Agent
from device_agent.runtime.commands import answer, error
from device_agent.runtime.inbox import Event, Looked

_BY_ENGINE = {"logs": "docker logs CONTAINER", "purge": "docker volume rm VOLUME", "prune": "docker image prune"}
"""What only a running agent can do: what people can do instead."""
_READING = frozenset(("status", "plan", "explain", "history", "backup"))


class _NoNetwork:
    """The port `Transport`, never connected."""

    def start(
        self,
        *,
        subscriptions: tuple[str, ...],
        optional: tuple[str, ...] = (),
        will: Callable[[int], Will],
        sessions: Callable[[], int],
        deliver: Callable[[TransportEvent], None],
    ) -> None: ...

    def publish(
        self,
        topic: str,  # noqa: ARG002
        payload: bytes,  # noqa: ARG002
        *,
        qos: int,  # noqa: ARG002
        retain: bool,  # noqa: ARG002
        expiry_s: int | None = None,  # noqa: ARG002
        correlation: bytes | None = None,  # noqa: ARG002
    ) -> int | None:
        return None

    def acknowledge(self, token: object) -> None: ...

    def subscribe_again(self) -> None: ...

    def stop(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None: ...


class _NoWorkers:
    """The port `Workers`: nothing is carried out."""

    def submit(self, lane: str, job: Callable[[], None]) -> None: ...


def answer_offline(settings: Settings, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
    """An answer that was read from a copy has a `note` beside its result.

    Raises `StoreLocked` when an agent does run, but does not listen where the settings say.
    """
    if verb in _BY_ENGINE:
        return error("no_agent", f"no agent runs: ask the engine itself, {_BY_ENGINE[verb]}")
    configure_logs("warning", "console")
    if verb in _READING:
        return _from_copy(settings, verb, args)
    with _agent(settings, settings.data_dir) as agent:
        result = answer(agent, verb, args)
        agent.journal.flush()
    if verb == "apply" and result["status"] == "ok":
        result["result"]["note"] = "no agent runs: it is carried out when one starts"
    return result


def _from_copy(settings: Settings, verb: str, args: Mapping[str, Any]) -> dict[str, Any]:
    folder, socket = settings.data_dir, settings.control_socket
    try:
        with rehearsed(folder, SystemClock()) as rehearsal, _agent(settings, rehearsal.copy) as agent:
            found = next_start.told(folder, rehearsal)
            if found.status is not Health.OK:
                agent.journal.status = found.seen
            result = answer(agent, verb, args)
    except (StoreLocked, StoreFull, StoreBroken, OSError) as why:
        found = next_start.untried(folder, why)
        return error(_code(why), f"no agent answers at {socket}, and {found.seen}: {found.mend}")
    mend = found.mend or "start the agent (device-agent run)"
    return {**result, "note": f"no agent answers at {socket}: this is what the next start finds. {found.seen}; {mend}"}


def _code(why: Exception) -> str:
    match why:
        case StoreLocked():
            return "data_in_use"
        case StoreFull():
            return "disk_full"
        case _:
            return "data_unreadable"


@contextmanager
def _agent(settings: Settings, directory: Path) -> Iterator[Agent]:
    """On the data in `directory`."""
    options = agent_options(settings)
    clock = SystemClock()
    store = open_store(directory, clock)
    engine = DockerEngine(settings.engine_url, str(options.identity))
    inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
    try:
        agent = Agent(
            options,
            store=store,
            engine=engine,
            transport=_NoNetwork(),
            workers=_NoWorkers(),
            clock=clock,
            host=PsutilHost(settings.data_dir),
            inbox=inbox,
            beat=lambda: None,
        )
        agent.remember(store.load())
        try:
            agent.reconciler.looked(Looked(1, engine.observe(None)))
        except (EngineAway, EngineError) as error:
            agent.reconciler.looked(Looked(1, None, str(error)))
        yield agent
    finally:
        store.close()
