"""Which broker, and how it is spoken to: the URL, the files of secrets and certificates, TLS, limits and patience.

Only the standard library, so that reading the settings does not load an MQTT client. Files are read anew for each
connection: rotated passwords and certificates need no restart.
"""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

_PORTS = {"mqtt": 1883, "mqtts": 8883}
_HOST_LENGTH = 253

Protocol = Literal["5", "3.1.1"]


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Broker:
    """What is needed to connect. Raises ValueError for settings that cannot be meant."""

    address: Address
    version: Protocol = "5"
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    """None: the system's authorities."""
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if self.password_file is not None and self.username is None:
            raise ValueError("an MQTT password file is given, but no MQTT user name")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("an MQTT client certificate needs both its certificate file and its key file")
        if not self.address.tls and (self.ca_file or self.cert_file):
            raise ValueError(f"{self.address} does not use TLS, but TLS files are given: say mqtts://")

    def password(self) -> str | None:
        """From its file, without the line's end. Raises OSError, or ValueError when it is not UTF-8."""
        if self.password_file is None:
            return None
        return self.password_file.read_text(encoding="utf-8").rstrip("\r\n")

    def tls_context(self) -> ssl.SSLContext | None:
        """A new one: TLS 1.2 or later, the broker's certificate and host name checked. None without TLS.

        Raises OSError (`ssl.SSLError` is one) naming the file that cannot be used.
        """
        if not self.address.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise OSError(f"CA file {self.ca_file}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is not None:
            try:
                # The empty password: a key that wants one is an error, not a question on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except OSError as error:
                raise OSError(f"client certificate {self.cert_file} and key {self.key_file}: {error}") from error
        return context

    def probe(self, timeout_s: float) -> str | None:
        """Why nothing can be said to the broker; None: TCP, TLS and the files are good.

        There is no CONNECT: under this client's id it would end the connection of an agent that runs.
        """
        address = self.address
        try:
            self.password()
            context = self.tls_context()
            with socket.create_connection((address.host, address.port), timeout_s) as plain:
                if context:
                    context.wrap_socket(plain, server_hostname=address.host).close()
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the transport is, in seconds."""

    keepalive: int = 60
    """As the broker is told. A dead link, or a broker that hangs, is noticed after 1.5 times this."""
    connect: float = 10
    """For TCP and TLS each, and again for CONNACK and SUBACK together."""
    first: float = 1
    longest: float = 60
    refused: float = 60
    """By a broker that says no: doubled each time, up to `refused_longest`. Half of it and more is waited."""
    refused_longest: float = 300
    duplicate: float = 60
    """At least; up to three times this."""
    stood: float = 30
    """A connection that lasted this long was a good one: the back-off starts anew after it."""
    spread: float = 15
    """After a good one at most: a broker's end ends all, and all come at once if they do not wait differently. Half of
    the Will's delay, so that nobody is called lost for it."""
    suspicious: int = 4
    """So many good ones in a row that did not last mean a second client with this id. Before MQTT 5, and in Mosquitto
    before 2.1, brokers do not say so."""


@dataclass(frozen=True, slots=True)
class Wants:
    """What a connection announces."""

    payload_limit: int = 1024 * 1024
    receive_maximum: int = 10
    session_expiry_s: int = 3600

    @property
    def maximum_packet_size(self) -> int:
        """Twice the limit and some: what is somewhat too large arrives and can be answered."""
        return 2 * self.payload_limit + 64 * 1024


def parse_url(url: str) -> Address:
    """`mqtt://host[:port]` or `mqtts://host[:port]`. Raises ValueError with a sentence about what is wrong."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"the MQTT URL is not one: {error}") from error
    if parts.scheme not in _PORTS:
        raise ValueError("the MQTT URL must start with mqtt:// (no TLS) or mqtts:// (TLS)")
    if "@" in parts.netloc:
        raise ValueError("the MQTT URL must not hold a user or password: there are settings and a file for them")
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("the MQTT URL ends after the port: no path, query or fragment")
    host = parts.hostname or ""
    if not _is_host(host):
        raise ValueError("the MQTT URL has no valid host name or address")
    if port == 0:
        raise ValueError("the MQTT URL's port must be from 1 to 65535")
    return Address(host, port or _PORTS[parts.scheme], tls=parts.scheme == "mqtts")


def _is_host(host: str) -> bool:
    # What the resolver cannot encode, it refuses with a UnicodeError in the middle of connecting.
    try:
        encoded = host.encode("idna")
    except UnicodeError:
        return False
    return 0 < len(encoded) <= _HOST_LENGTH and not any(mark.isspace() for mark in host) and host.isprintable()
