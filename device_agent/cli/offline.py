"""The same commands when no agent runs: an agent that answers once and does nothing else."""

import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from device_agent.adapters.clock import SystemClock
from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.host import PsutilHost
from device_agent.adapters.store import open_store
from device_agent.cli.logs import configure_logs
from device_agent.cli.options import agent_options
from device_agent.cli.settings import Settings
from device_agent.model.errors import EngineAway, EngineError
from device_agent.ports import TransportEvent, Will
from device_agent.runtime.agent import Agent
from device_agent.runtime.commands import answer
from device_agent.runtime.inbox import Event, Looked

_BY_ENGINE = {"logs": "docker logs CONTAINER", "purge": "docker volume rm VOLUME", "prune": "docker image prune"}
"""What only a running agent can do: what people can do instead."""


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
    """Raises `StoreLocked` when an agent does run, but does not listen where the settings say."""
    if verb in _BY_ENGINE:
        message = f"no agent runs: ask the engine itself, {_BY_ENGINE[verb]}"
        return {"status": "error", "error": {"code": "no_agent", "message": message, "errors": []}}
    configure_logs("warning", "console")
    with _agent(settings) as agent:
        result = answer(agent, verb, args)
        agent.journal.flush()
    if verb == "apply" and result["status"] == "ok":
        result["result"]["note"] = "no agent runs: it is carried out when one starts"
    return result


@contextmanager
def _agent(settings: Settings) -> Iterator[Agent]:
    options = agent_options(settings)
    clock = SystemClock()
    store = open_store(settings.data_dir, clock)
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
