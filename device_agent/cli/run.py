"""`device-agent run`: reads the settings, lets the engine begin to answer, and then loads the rest of the agent."""

import gc
import queue
import signal
import sys

import structlog

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.cli.logs import configure_logs
from device_agent.cli.options import agent_options, registry_auth
from device_agent.cli.settings import BadSetting, load
from device_agent.runtime.inbox import Event, StopRequested

log = structlog.get_logger()


def run() -> int:
    """The exit code: 0 after SIGTERM, 1 when something failed, 2 for bad settings."""
    inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
    # First of all: in a container, process 1 does not even get a signal that it has no handler for.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: inbox.put(StopRequested()))
    try:
        settings = load()
        options = agent_options(settings)
        auth = registry_auth(settings)
    except BadSetting as bad:
        print(f"device-agent: {bad}", file=sys.stderr)
        return 2
    configure_logs(settings.log_level, settings.log_format)
    if settings.mqtt_username and not settings.broker().address.tls:
        log.warning("the password travels unencrypted: use mqtts://", url=settings.mqtt_url)
    engine = DockerEngine(settings.engine_url, str(options.identity), auth=auth)
    engine.begin()
    from device_agent.cli.serve import serve  # noqa: PLC0415 - half of the agent, loaded while the engine answers

    gc.freeze()
    gc.enable()
    return serve(settings, options, engine, inbox)
