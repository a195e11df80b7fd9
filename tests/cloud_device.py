"""A device as a cloud sees it: a plain MQTT client that answers targets as it is told to, with no agent behind it."""

import threading
from datetime import UTC, datetime
from typing import Any, Protocol, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from device_agent.core.scopes import effective_digest, lay_over
from device_agent.model.errors import Problem
from device_agent.model.memory import OutboxCounts
from device_agent.model.report import Ack, AppReport, Happening, Have, Reason, ServiceReport, State
from device_agent.model.target import DEVICE, FLEET, Target
from device_agent.wire import messages
from device_agent.wire.commands import VERBS, encode_answer, read_command
from device_agent.wire.target import read_target
from device_agent.wire.topics import Topics


class Address(Protocol):
    host: str
    port: int


AT = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


class PlainDevice:
    """`answer` is `converge`, `reject`, `retry` (fails, and goes on trying) or `silence`.

    Made anew with the same `session`, it is the same device with the same connection number.
    """

    def __init__(
        self,
        broker: Address,
        fleet: str,
        device: str,
        *,
        answer: str = "converge",
        session: int = 1,
        first_seq: int = 1,
        version: Any = paho.MQTTv5,
    ) -> None:
        self.topics = Topics("fleet/v1", fleet, device)
        self.id = device
        self.answer = answer
        self.session = session
        self.seq = first_seq - 1
        self.targets: dict[str, Target] = {}
        self.replies: dict[str, Any] = {}
        """Verb → the answer to a command; one that is not here is not answered."""
        self.asked: list[tuple[str, Any]] = []
        """(verb, args) of every command."""
        self._state_seq = 0
        self._lock = threading.RLock()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{fleet}.{device}", protocol=version)
        self.client.will_set(self.topics.session, messages.encode_will(device, session), qos=1, retain=True)
        self.client.on_connect = self._on_connect
        self.client.on_message = self._on_message
        subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.reconnect_delay_set(1, 1)
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()
        assert subscribed.wait(10), f"{device} is not connected"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """A clean stop: the farewell, and no Will."""
        farewell = messages.encode_farewell(self.id, self.session, AT)
        self.client.publish(self.topics.session, farewell, qos=1, retain=True).wait_for_publish(5)
        self.client.disconnect()
        self.client.loop_stop()
        # paho leaves the pair of sockets that wakes its thread to the garbage collector.
        self.client._reset_sockets()

    def vanish(self) -> None:
        """The connection ends without a word: the broker publishes the Will."""
        self.client.on_connect = None
        self.client._sock_close()
        self.client.disconnect()
        self.client.loop_stop()
        # paho leaves the pair of sockets that wakes its thread to the garbage collector.
        self.client._reset_sockets()

    @property
    def have(self) -> dict[str, Have | None]:
        return {
            scope: Have(target.version, target.digest) if (target := self.targets.get(scope)) else None
            for scope in (FLEET, DEVICE)
        }

    def ack(self, ack: Ack, *, seq: int | None = None) -> bytes:
        """Publish one; with `seq`, under that number instead of the next."""
        with self._lock:
            self.seq = self.seq + 1 if seq is None else self.seq
            body = messages.encode_ack(ack, messages.Head(self.id, self.session, seq or self.seq, AT))
            self.client.publish(self.topics.ack, body, qos=1)
            return body

    def event(self, name: str) -> None:
        with self._lock:
            self.seq += 1
            body = messages.encode_event(Happening(name), messages.Head(self.id, self.session, self.seq, AT))
            self.client.publish(self.topics.event, body, qos=1)

    def report(self, *, converged: bool, reason: Reason | None = None) -> None:
        """The retained state, as it follows from the targets that were taken."""
        with self._lock:
            self._state_seq += 1
            fleet, own = self.targets.get(FLEET), self.targets.get(DEVICE)
            apps = lay_over(fleet.apps if fleet else {}, own.apps if own else {})
            status = "running" if converged else "failed"
            state = State(
                have=self.have,
                effective_digest=effective_digest(apps) if self.targets else None,
                converged=converged,
                since=AT,
                apps={
                    name: AppReport(
                        release=(own or fleet).release,
                        revision=(own or fleet).version,
                        phase="settled" if converged else "updating",
                        services={service: ServiceReport(status, reason=reason) for service in app.get("services", {})},
                    )
                    for name, app in apps.items()
                    if app is not None
                },
            )
            head = messages.Head(self.id, self.session, self._state_seq, AT)
            self.client.publish(self.topics.state, messages.encode_state(state, head), qos=1, retain=True)

    def _on_connect(self, client: paho.Client, *_: object) -> None:
        client.subscribe([(topic, 1) for topic in (*self.topics.subscriptions, *self.topics.commands(VERBS))])
        birth = messages.encode_birth(self.id, self.session, AT, self.have, OutboxCounts(0, 0))
        client.publish(self.topics.session, birth, qos=1, retain=True)
        self.report(converged=True)

    def _answer(self, verb: str, message: paho.MQTTMessage) -> None:
        command = read_command(message.payload)
        self.asked.append((verb, command.args))
        if verb in self.replies:
            topic = getattr(message.properties, "ResponseTopic", self.topics.response)
            body = encode_answer(self.id, verb, command.id, AT, self.replies[verb])
            self.client.publish(topic, body, qos=1)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if not message.payload:
            return
        verb = self.topics.verb_of(message.topic)
        if verb:
            self._answer(verb, message)
            return
        with self._lock:
            target = read_target(message.payload)
            known = self.targets.get(target.scope)
            if self.answer == "silence" or (known and known.version == target.version):
                return
            told = {"scope": target.scope, "version": target.version, "digest": target.digest}
            if self.answer == "reject":
                problem = Problem("/apps/web/services/api/build", "publish an image")
                self.ack(Ack("rejected", code="unsupported", message="1 key", errors=(problem,), **told))
                return
            self.targets[target.scope] = target
            self.ack(Ack("accepted", release=target.release, **told))
            if self.answer == "retry":
                reason = Reason("no_such_image", "there is no image api:9", attempt=2)
                self.ack(Ack("failed", app="web", service="api", code=reason.code, message=reason.message, **told))
                self.report(converged=False, reason=reason)
                return
            self.ack(Ack("applied", **told))
            self.report(converged=True)
