"""The MQTT connection: made anew for ever, MQTT 5 or 3.1.1. `mqtt_link` is one connection, this is their succession.

`mqtt_patience` decides how long it waits between two.
One thread, `mqtt`, connects, reads, writes, sees the connection end, waits, and connects again. Nothing that goes
wrong in a connection ends it, an exception out of the client library or of `deliver` included. `publish`,
`acknowledge` and `stop` come from other threads; `deliver`, `will` and `sessions` are called from `mqtt` (and
`deliver` now and then from within `publish`).

What becomes of a fault: `unreachable` (no network, no broker, TLS, unreadable files, a busy broker, one that names
another), `refused` (credentials, client id, subscriptions, quotas: tried again slowly), `duplicate_identity` (another
client took the id over: a long wait, no fight), `lost` (whatever else ends a connection). Every failed try is
delivered, with when it is tried again: a reader who wants changes only compares `code` and `message`.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from device_agent.adapters.broker import Address, Broker, Pace, Wants, parse_url
from device_agent.adapters.mqtt_patience import Patience
from device_agent.adapters.mqtt_reasons import LOST, Failed, at
from device_agent.ports import Connected, TransportEvent, Will

if TYPE_CHECKING:
    from device_agent.adapters.mqtt_link import Link

__all__ = ["Broker", "MqttTransport", "Pace", "Wants", "parse_url"]

# What a join may take after the deadline: closing a socket, not waiting for a broker.
_LAST_MOMENT_S = 0.5


class MqttTransport:
    """The port `Transport`. `client_id` is `{fleet}.{device}`."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        wants: Wants | None = None,
        pace: Pace | None = None,
        died: Callable[[str], None] | None = None,
    ) -> None:
        """`died` is told why the thread has ended, should it ever: a device without it would look alive and be deaf."""
        self._broker = broker
        self._died = died
        self._client_id = client_id
        self._wants = wants or Wants()
        self._pace = pace or Pace()
        self._stopping = threading.Event()
        self._live: Link | None = None
        """The connection whose subscriptions are granted."""
        self._current: Link | None = None
        self._thread: threading.Thread | None = None
        # One byte wakes the thread out of its wait for the network.
        self._woken, self._waker = socket.socketpair()
        for end in (self._woken, self._waker):
            end.setblocking(False)  # noqa: FBT003 - socket's signature
        # Only the thread `mqtt` uses these.
        self._links = 0
        self._session: int | None = None
        self._patience = Patience(client_id, self._pace)
        self._elsewhere: Address | None = None
        """Where the broker has sent this client: for one connection, whatever becomes of it."""

    def start(
        self,
        *,
        subscriptions: tuple[str, ...],
        optional: tuple[str, ...] = (),
        will: Callable[[int], Will],
        sessions: Callable[[], int],
        deliver: Callable[[TransportEvent], None],
    ) -> None:
        """See the port. `will` and `sessions` may raise: that try has failed then."""
        self._subscriptions = subscriptions
        self._optional = optional
        self._will = will
        self._sessions = sessions
        self._deliver = deliver
        self._thread = threading.Thread(target=self._run, name="mqtt", daemon=True)
        self._thread.start()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
    ) -> int | None:
        """See the port. The handle of a QoS 0 message is never `Published`.

        Raises `Refused` (`too_large`) for what this broker would answer by closing the connection.
        """
        link = self._live
        if link is None or self._stopping.is_set():
            return None
        return link.sending.publish(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s, correlation=correlation)

    def acknowledge(self, token: object) -> None:
        """See the port."""
        link = self._live
        if link is not None:
            link.receiving.acknowledge(token)

    def subscribe_again(self) -> None:
        """See the port."""
        link = self._live
        if link is not None:
            link.subscribing.again()

    def stop(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """See the port. When the farewell is not acknowledged in time, the Will is left to tell."""
        deadline = time.monotonic() + timeout_s
        self._stopping.set()
        link = self._live
        if link is not None:
            link.leave(farewell, timeout_s)
        self._wake()
        if self._thread is not None:
            self._thread.join(max(_LAST_MOMENT_S, deadline - time.monotonic()))

    def _wake(self) -> None:
        # Full: it is being woken already. Closed: it has ended.
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                ended, stood_s = self._once()
                if not self._stopping.is_set():
                    told = self._patience.ended(ended, stood_s)
                    # Whoever cannot be told cannot be told that either.
                    with contextlib.suppress(Exception):
                        self._deliver(told)
                    self._stopping.wait(told.retry_s)
        except BaseException as error:
            if self._died is not None:
                self._died(repr(error))
            raise
        finally:
            self._woken.close()
            self._waker.close()

    def _once(self) -> tuple[Failed, float | None]:
        """One connection, from beginning to end: why it ended, and how long its subscriptions stood (None: never)."""
        # It brings paho along, which the thread loads by itself: nobody who only looks and plans waits for it.
        from device_agent.adapters.mqtt_link import Link  # noqa: PLC0415

        link: Link | None = None
        try:
            if self._session is None:
                self._session = self._sessions()
            self._links += 1
            broker, self._elsewhere = at(self._broker, self._elsewhere), None
            link = Link(
                self._links,
                self._session,
                broker,
                self._client_id,
                wants=self._wants,
                pace=self._pace,
                subscriptions=self._subscriptions,
                optional=self._optional,
                deliver=self._pass_on,
                wake=self._wake,
                fresh=self._patience.asks_anew,
            )
            link.connect(self._will(self._session))
            # From here on a broker may hold this session's Will: the next connection needs another number.
            self._session = None
            self._patience.tried()
            self._current = link
            link.serve(self._woken, self._stopping)
        except Failed as failed:
            ended = failed.anew()
            self._elsewhere = ended.elsewhere
        except Exception as error:  # noqa: BLE001 - whatever it is, the next connection may do better
            ended = Failed(LOST, f"internal error: {type(error).__name__}: {error}")
        finally:
            self._live = self._current = None
            if link is not None:
                link.close()
        return ended, link.stood_s() if link is not None else None

    def _pass_on(self, event: TransportEvent) -> None:
        if isinstance(event, Connected):
            self._patience.let_in()
            # Before it is delivered: the receiver may publish at once.
            self._live = self._current
        self._deliver(event)
