"""`device-agent run`, in which one callback raises, once: the `RAISE`th call of it, `on_message 2`."""

import itertools
import os
import sys
from collections.abc import Callable
from typing import Any

from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.mqtt import MqttTransport
from device_agent.adapters.mqtt_link import Link
from device_agent.adapters.mqtt_receiving import Receiving
from device_agent.adapters.mqtt_sending import Sending
from device_agent.adapters.mqtt_subscribing import Subscribing
from device_agent.cli.run import run

OF_PAHO: dict[str, tuple[type, str]] = {
    "on_connect": (Link, "_on_connect"),
    "on_subscribe": (Subscribing, "on_subscribe"),
    "on_message": (Receiving, "on_message"),
    "on_publish": (Sending, "on_publish"),
    "on_disconnect": (Link, "_on_disconnect"),
    "on_log": (Link, "_on_log"),
}
"""What answers it."""
OF_THE_TRANSPORT = ("deliver", "sessions", "will")
CALLBACKS = (*OF_PAHO, *OF_THE_TRANSPORT, "events")


class InjectedError(Exception):
    """What nobody has thought of."""


def _raising(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = itertools.count(1)

    def call(*arguments: Any, **more: Any) -> Any:
        if next(calls) == at:
            raise InjectedError("injected")
        return function(*arguments, **more)

    return call


def main() -> int:
    name, _, at = os.environ["RAISE"].partition(" ")
    if name in OF_PAHO:
        part, method = OF_PAHO[name]
        setattr(part, method, _raising(getattr(part, method), int(at)))
    elif name in OF_THE_TRANSPORT:
        start = MqttTransport.start

        def started(transport: MqttTransport, **more: Any) -> None:
            start(transport, **{**more, name: _raising(more[name], int(at))})

        MqttTransport.start = started  # type: ignore[method-assign,assignment]
    else:
        DockerEngine.events = _raising(DockerEngine.events, int(at))  # type: ignore[method-assign]
    return run()


if __name__ == "__main__":
    sys.exit(main())
