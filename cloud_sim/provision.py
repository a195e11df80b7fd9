"""A folder with everything that a secured broker, its cloud and its devices need. Run again, it only adds.

    FOLDER/                0700
      ca.key, ca.crt       the authority: the key leaves this folder never
      broker/              /mosquitto/config: mosquitto.conf, acl.conf, passwords, ca.crt, server.crt, server.key
      cloud/               ca.crt, client.crt, client.key, signing.key, cloud.env
      devices/ID/          /etc/device-agent: ca.crt, client.crt, client.key, trusted/signing.pem, agent.env

A key is made once and kept; a certificate is made where there is none, or anew for the same key when it is renewed. So
a run that was cut short is finished by the next one, and each file is whole or not there.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from ipaddress import ip_address
from pathlib import Path

from cloud_sim import keys
from cloud_sim.authority import Authority, new_key, server_names
from cloud_sim.connection import Misconfigured
from cloud_sim.new_file import PRIVATE, PUBLIC, write_new, write_over
from device_agent.wire.topics import check_id

CLOUD = "cloud"
"""The user who publishes, in acl.conf: no device may be called so."""
PORT = 8883
"""Where Mosquitto asks for certificates, in secure.conf."""
ON_DEVICE = Path("/etc/device-agent")
"""Where a device's folder is, for its agent."""
BROKER_UID = 1883
"""Who Mosquitto is in its container."""

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*", re.ASCII)


@dataclass(slots=True)
class Provision:
    """One run. `made` are the files that it has written."""

    folder: Path
    fleet: str
    now: datetime
    days: int = 365
    renew: bool = False
    made: list[Path] = field(default_factory=list)

    def run(self, names: Sequence[str], devices: Sequence[str]) -> None:
        """The broker's host names and addresses (needed the first time), and ids of devices to add.

        With `renew` every certificate is made anew: of the broker, the cloud, and all devices that are there.
        Raises `Misconfigured`.
        """
        self._check(names, devices)
        self._folder(self.folder, 0o700)
        try:
            authority = self._authority()
            url = self._broker(authority, tuple(names))
            self._cloud(authority, url)
            known = sorted(path.name for path in self.folder.glob("devices/*")) if self.renew else []
            for device in dict.fromkeys((*devices, *known)):
                self._device(authority, device, url)
        except ValueError as error:
            raise Misconfigured(f"a file in {self.folder} cannot be used: {error}") from error

    def _check(self, names: Sequence[str], devices: Sequence[str]) -> None:
        for name in names:
            if not _is_host(name):
                raise Misconfigured(f"{name!r} is neither a host name nor an IP address")
        try:
            check_id(self.fleet, "fleet")
            for device in devices:
                check_id(device, "device id")
        except ValueError as error:
            raise Misconfigured(str(error)) from error
        if CLOUD in devices:
            raise Misconfigured(f"no device may be called {CLOUD!r}: whoever has that name may publish targets")

    def _authority(self) -> Authority:
        key = self._key(self.folder / "ca.key")
        file = self.folder / "ca.crt"
        if not file.exists():
            self._new(file, Authority.new(key, f"{self.fleet} authority", self.now).pem, PUBLIC)
        return Authority.of(key, file.read_bytes())

    def _broker(self, authority: Authority, names: tuple[str, ...]) -> str:
        """Its URL."""
        folder = self._folder(self.folder / "broker", 0o755)
        certificate = folder / "server.crt"
        known = server_names(certificate.read_bytes()) if certificate.exists() else ()
        names = names or known
        if not names:
            raise Misconfigured("which broker? Say --broker NAME, as devices will call it; several names are possible")
        shipped = resources.files("cloud_sim") / "mosquitto"
        self._missing(folder / "mosquitto.conf", (shipped / "secure.conf").read_bytes(), PUBLIC)
        self._missing(folder / "acl.conf", (shipped / "acl.conf").read_bytes(), PUBLIC)
        self._missing(folder / "passwords", b"", PRIVATE)
        self._missing(folder / "ca.crt", authority.pem, PUBLIC)
        key = self._key(folder / "server.key")
        if self.renew or set(names) != set(known):
            self._over(certificate, authority.for_server(key, names, self.now, self.days))
        if os.geteuid() == 0:
            for secret in ("passwords", "server.key"):
                os.chown(folder / secret, BROKER_UID, BROKER_UID)
        return f"mqtts://[{names[0]}]:{PORT}" if ":" in names[0] else f"mqtts://{names[0]}:{PORT}"

    def _cloud(self, authority: Authority, url: str) -> None:
        folder = self._folder(self.folder / "cloud", 0o700)
        self._identity(authority, folder, CLOUD)
        signing = folder / "signing.key"
        if not signing.exists():
            self.made += [signing, keys.generate(signing)]
        self._missing(signing.with_suffix(keys.PUBLIC_SUFFIX), keys.show(signing).pem.encode(), PUBLIC)
        here = folder.resolve()
        settings = {
            "CLOUD_SIM_FLEET": self.fleet,
            "CLOUD_SIM_MQTT_URL": url,
            "CLOUD_SIM_MQTT_CA_FILE": here / "ca.crt",
            "CLOUD_SIM_MQTT_CERT_FILE": here / "client.crt",
            "CLOUD_SIM_MQTT_KEY_FILE": here / "client.key",
            "CLOUD_SIM_SIGNING_KEY": here / "signing.key",
        }
        self._missing(folder / "cloud.env", _environment(settings), PUBLIC)

    def _device(self, authority: Authority, device: str, url: str) -> None:
        folder = self._folder(self.folder / "devices" / device, 0o700)
        self._identity(authority, folder, device)
        trusted = self._folder(folder / "trusted", 0o755)
        public = keys.show(self.folder / "cloud" / "signing.key").pem.encode()
        self._missing(trusted / "signing.pem", public, PUBLIC)
        settings = {
            "DEVICE_AGENT_FLEET": self.fleet,
            "DEVICE_AGENT_DEVICE_ID": device,
            "DEVICE_AGENT_MQTT_URL": url,
            "DEVICE_AGENT_MQTT_CA_FILE": ON_DEVICE / "ca.crt",
            "DEVICE_AGENT_MQTT_CERT_FILE": ON_DEVICE / "client.crt",
            "DEVICE_AGENT_MQTT_KEY_FILE": ON_DEVICE / "client.key",
            "DEVICE_AGENT_TRUSTED_KEYS": ON_DEVICE / "trusted",
        }
        self._missing(folder / "agent.env", _environment(settings), PUBLIC)

    def _identity(self, authority: Authority, folder: Path, name: str) -> None:
        self._missing(folder / "ca.crt", authority.pem, PUBLIC)
        key = self._key(folder / "client.key")
        certificate = folder / "client.crt"
        if self.renew or not certificate.exists():
            self._over(certificate, authority.for_client(key, name, self.now, self.days))

    def _key(self, file: Path) -> bytes:
        self._missing(file, None, PRIVATE)
        return file.read_bytes()

    def _missing(self, file: Path, content: bytes | None, mode: int) -> None:
        """Write it unless it is there. None: a new key."""
        if not file.exists():
            self._new(file, new_key() if content is None else content, mode)

    def _new(self, file: Path, content: bytes, mode: int) -> None:
        write_new(file, content, mode)
        self.made.append(file)

    def _over(self, file: Path, content: bytes) -> None:
        write_over(file, content, PUBLIC)
        self.made.append(file)

    def _folder(self, path: Path, mode: int) -> Path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                path.mkdir(mode=mode)
        except OSError as error:
            raise Misconfigured(f"cannot make the folder {path}: {error.strerror}") from error
        return path


def _is_host(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return _HOST.fullmatch(name) is not None
    return True


def _environment(settings: dict[str, object]) -> bytes:
    """For `docker run --env-file` and for a shell alike: so nothing is quoted."""
    return "".join(f"{name}={value}\n" for name, value in settings.items()).encode()
