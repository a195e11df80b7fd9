"""What a broker says, in MQTT 5's reason codes and properties and in TLS alerts, and what it means here.

Pure, without paho. Reasons and properties are paho's: a reason has `value`, and its text by `str`; a property that was
not sent is no attribute.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from device_agent.adapters.broker import Address, Broker, Pace, Wants, parse_url

UNREACHABLE, REFUSED, DUPLICATE, LOST = "unreachable", "refused", "duplicate_identity", "lost"

# MQTT 5, 2.4.
_TAKEN_OVER = 0x8E
_QUOTA = 0x97
# The broker has too much to do: whoever comes again at once makes it worse.
_BUSY = frozenset((0x89, 0x9F))
_ELSEWHERE = frozenset((0x9C, 0x9D))
# Only a change of settings, here or at the broker, will cure these.
_REFUSALS = frozenset((0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, _QUOTA, 0x9A, 0x9B, *_ELSEWHERE))
# What a broker says in a TLS alert once it has looked at our certificate: with TLS 1.3 only after the handshake.
_TLS_ALERTS = {
    "CERTIFICATE_EXPIRED": "the client certificate has expired, says the broker",
    "CERTIFICATE_REQUIRED": "the broker asks for a client certificate",
    "UNKNOWN_CA": "the broker does not know who signed the client certificate",
    "BAD_CERTIFICATE": "the broker does not accept the client certificate",
    "CERTIFICATE_REVOKED": "the client certificate was revoked, says the broker",
}


class Failed(Exception):  # noqa: N818 - a state, not a fault
    """The connection is over, or did not come about.

    `by_broker`: it was the other side that ended it. `busy`: it asks for patience. `elsewhere`: it names the broker to
    go to.
    """

    def __init__(
        self, code: str, message: str, *, by_broker: bool = False, busy: bool = False, elsewhere: Address | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.by_broker = by_broker
        self.busy = busy
        self.elsewhere = elsewhere

    def anew(self) -> "Failed":
        """The same without a traceback, which would keep a connection's objects alive."""
        return Failed(self.code, self.message, by_broker=self.by_broker, busy=self.busy, elsewhere=self.elsewhere)


def not_let_in(broker: Broker, reason: Any, properties: Any) -> Failed:
    """A CONNACK that is a refusal."""
    return _failed(broker, "refused the connection", reason, properties, otherwise=UNREACHABLE)


def sent_away(broker: Broker, reason: Any, properties: Any) -> Failed:
    """A DISCONNECT from the broker."""
    return _failed(broker, "disconnected", reason, properties, otherwise=LOST, by_broker=True)


def _failed(
    broker: Broker, what: str, reason: Any, properties: Any, *, otherwise: str, by_broker: bool = False
) -> Failed:
    code = DUPLICATE if reason.value == _TAKEN_OVER else REFUSED if reason.value in _REFUSALS else otherwise
    elsewhere = _reference(broker, properties) if reason.value in _ELSEWHERE else None
    return Failed(
        otherwise if elsewhere else code,
        f"{broker.address} {what}: {words(reason, properties)}",
        by_broker=by_broker,
        busy=reason.value in _BUSY,
        elsewhere=elsewhere,
    )


def _reference(broker: Broker, properties: Any) -> Address | None:
    """The first broker of a Server Reference (`host[:port] …`), spoken to as this one is: with TLS, or without."""
    named = str(getattr(properties, "ServerReference", "")).split()
    if not named:
        return None
    try:
        address = parse_url(f"{'mqtts' if broker.address.tls else 'mqtt'}://{named[0]}")
    except ValueError:
        return None
    return None if address == broker.address else address


def at(broker: Broker, address: Address | None) -> Broker:
    """`broker`, at another address when there is one."""
    return replace(broker, address=address) if address else broker


def remarks(granted: Any, pace: Pace, wants: Wants) -> Iterator[str]:
    """What a CONNACK's properties grant differently from what was asked, and what comes of it."""
    keepalive = getattr(granted, "ServerKeepAlive", pace.keepalive)
    if not keepalive and pace.keepalive:
        yield "the broker turns the keep-alive off: a dead link is noticed only when something is sent"
    elif keepalive != pace.keepalive:
        yield f"the broker sets the keep-alive to {keepalive} s, not {pace.keepalive} s"
    expiry = getattr(granted, "SessionExpiryInterval", wants.session_expiry_s)
    if expiry < wants.session_expiry_s:
        yield (
            f"the broker keeps the session for {expiry} s, not {wants.session_expiry_s} s: what is not retained and "
            "comes while this device is away for longer is lost"
        )
    if not getattr(granted, "RetainAvailable", 1):
        yield "the broker retains nothing: a target reaches only devices that are connected when it is published"


def words(reason: Any, properties: Any) -> str:
    """The reason, what the broker says about it, and where it points to."""
    more = (getattr(properties, "ReasonString", None), getattr(properties, "ServerReference", None))
    return ": ".join(str(part) for part in (reason, *more) if part)


def alerted(text: str) -> str:
    """What went wrong on a socket: the TLS alert in it, if there is one of those that an operator can act on."""
    return next((meaning for alert, meaning in _TLS_ALERTS.items() if alert in text), text)
