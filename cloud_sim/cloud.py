"""A cloud for one fleet: publishes targets, collects what devices say, proves that they have converged.

What is published is in the database before it is on the wire, so whatever a broker loses is published again.
"""

import gzip
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from cloud_sim.asking import COMPRESSED_FROM_BYTES, Asked, Question
from cloud_sim.clock import monotonic, now
from cloud_sim.collector import Collector
from cloud_sim.connection import Broker, Misconfigured
from cloud_sim.database import Database, Entry
from cloud_sim.diff import Change, diff
from cloud_sim.keys import halves
from cloud_sim.roster import OFFLINE, Device, Yardstick
from device_agent.model.canonical import digest
from device_agent.model.errors import Refused
from device_agent.model.target import DEVICE, FLEET, Json, Target, Version
from device_agent.wire import dsse, payload
from device_agent.wire.commands import LOGS, RUNNING, Answer
from device_agent.wire.target import SCHEMA, open_target, read_target
from device_agent.wire.topics import DEFAULT_ROOT, FleetTopics

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBACK_S = 10.0

_T = TypeVar("_T")


class NotConverged(TimeoutError):  # noqa: N818 - what the caller learns
    """Time is over. `why` names each device that is not as published, and what is in its way."""

    def __init__(self, why: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{device}: {said}" for device, said in why.items()) or "no device is online")
        self.why = why


@dataclass(frozen=True, slots=True)
class Published:
    """A target on its topic, acknowledged by the broker."""

    device: str | None
    """None: the fleet's."""
    version: Version
    digest: str
    release: str | None
    changes: tuple[Change, ...]
    """Against the scope's last target."""
    entry: int
    """The newest ack or event from before: whatever answers this target comes after it."""

    @property
    def scope(self) -> str:
        return DEVICE if self.device else FLEET

    @property
    def epoch(self) -> int:
        return self.version.epoch

    @property
    def revision(self) -> int:
        return self.version.revision

    def __str__(self) -> str:
        return f"{self.scope} target {self.version}"


class Cloud:
    """Use it as a context manager: within, it is connected, and knows what the broker retains.

    Every method may be called from any thread.
    """

    def __init__(
        self,
        url: str,
        fleet: str,
        *,
        database: Path | str,
        root: str = DEFAULT_ROOT,
        username: str | None = None,
        password_file: Path | None = None,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        mqtt_version: Literal["5", "3.1.1"] = "5",
        keys: Sequence["Ed25519PrivateKey"] = (),
        connect_timeout_s: float = 5.0,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`database` is a file, or `:memory:`. `tell` gets a sentence when something happens that nobody asked for.

        `connect_timeout_s` is how long the broker may be silent: it counts anew with each message that it retains.

        With `keys` targets and commands are signed by all of them, and of what the broker retains only what is signed
        by one of them counts: a broker could else slip in apps that the next target would be signed with.

        Raises `Misconfigured`.
        """
        broker = Broker.of(
            url,
            version=mqtt_version,
            username=username,
            password_file=password_file,
            ca_file=ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
        try:
            self._topics = FleetTopics(root, fleet)
        except ValueError as error:
            raise Misconfigured(str(error)) from error
        self.fleet = fleet
        self._connect_timeout_s = connect_timeout_s
        self._database = Database(database, f"{broker.address}/{root}/{fleet}")
        # It is a level of the topics that answers come to: no dot, which RabbitMQ takes for a slash.
        client_id = f"cloud-sim-{fleet}-{secrets.token_hex(4)}"
        self._keys = tuple(keys)
        trusted = halves(keys, threshold=1) if keys else None
        self._collector = Collector(broker, self._topics, client_id, self._database, tell, trusted)

    def __enter__(self) -> Self:
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Connect and learn what the broker retains. Raises `Unreachable` or `Denied`."""
        self._collector.open()
        self._collector.await_learned(self._connect_timeout_s)

    def close(self) -> None:
        self._collector.close()
        self._database.close()

    def publish(
        self,
        apps: Mapping[str, Json],
        *,
        device: str | None = None,
        release: str | None = None,
        expires_at: str | None = None,
        allow_empty: bool = False,
        more: Mapping[str, Json] | None = None,
    ) -> Published:
        """Publish `apps` as the target of the fleet, or of one device, under the next version. `more` are further keys.

        Returns when the broker has acknowledged it. Raises `Refused` for what is no target, `Denied` when the broker
        does not take it, and `Unreachable` when it did not answer: then it is published when the broker is back.
        """
        try:
            topic = self._topics.device_target(device) if device else self._topics.target
        except ValueError as error:
            raise Misconfigured(str(error)) from error
        self._collector.await_learned(self._connect_timeout_s)
        with self._collector.changed, self._database.transaction():
            last = self.last(device)
            version = self.next_version(device)
            body = self._body(apps, device, version, release, expires_at, allow_empty=allow_empty, more=more or {})
            changes = diff(last.apps if last else {}, apps)
            published = Published(device, version, digest(body), release, changes, self._database.last_entry())
            raw = self._signed(body)
            if len(raw) > COMPRESSED_FROM_BYTES:
                raw = gzip.compress(raw)
            # What cannot be read back as a target is refused here, before anything remembers it.
            read_target(raw)
            self._database.own(device, raw)
        self._collector.connection.publish(topic, raw, wait_s=PUBACK_S)
        return published

    def draft(
        self,
        apps: Mapping[str, Json],
        *,
        device: str | None = None,
        release: str | None = None,
        expires_at: str | None = None,
        allow_empty: bool = False,
        more: Mapping[str, Json] | None = None,
    ) -> Json:
        """What `publish` would publish now: the target, or its envelope. Raises `Refused` for what is no target."""
        version = self.next_version(device)
        body = self._body(apps, device, version, release, expires_at, allow_empty=allow_empty, more=more or {})
        raw = self._signed(body)
        read_target(raw)
        return payload.read(raw)

    def _body(
        self,
        apps: Mapping[str, Json],
        device: str | None,
        version: Version,
        release: str | None,
        expires_at: str | None,
        *,
        allow_empty: bool,
        more: Mapping[str, Json],
    ) -> dict[str, Json]:
        return {
            "schema": SCHEMA,
            "scope": {"fleet": self.fleet, "device": device},
            "epoch": version.epoch,
            "revision": version.revision,
            "release": release,
            "issued_at": now().isoformat(timespec="seconds").replace("+00:00", "Z"),
            "expires_at": expires_at,
            "apps": dict(apps),
            **({"allow_empty": True} if allow_empty else {}),
            **more,
        }

    def ask(
        self, verb: str, args: Mapping[str, Json] | None = None, *, device: str | None = None, expires_s: float = 60.0
    ) -> Asked:
        """Send a command to a device, or to the whole fleet. Its answers are collected until it is closed.

        `expires_s`: not carried out later. Of a log that is followed the lines come too, see `Asked.wait`.
        Raises `Misconfigured` for what can be no device and for what would be signed for too long, `Denied`,
        `Unreachable`.
        """
        args = args or {}
        listen = None
        try:
            topic = self._topics.of(device).command(verb) if device else self._topics.broadcast(verb)
            if device and verb == LOGS and args.get("follow_s"):
                listen = self._topics.of(device).log(str(args.get("app")), str(args.get("service")))
        except ValueError as error:
            raise Misconfigured(str(error)) from error
        self._collector.await_learned(self._connect_timeout_s)
        question = Question(verb, args, self.fleet, device, expires_s)
        return Asked.send(self._collector, topic, question, self._keys, listen=listen)

    def command(
        self, verb: str, args: Mapping[str, Json] | None = None, *, device: str, timeout: float = 10.0
    ) -> Answer:
        """Send a command to a device, and wait for its answer. Raises `TimeoutError` when there is none in time."""
        with self.ask(verb, args, device=device, expires_s=timeout) as asked:
            answer = asked.wait([device], timeout).get(device)
        if answer is None or answer.status == RUNNING:
            raise TimeoutError(f"{device} has not answered {verb} in {timeout:g} s")
        return answer

    def _signed(self, body: Mapping[str, Json]) -> bytes:
        raw = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        return dsse.seal(raw, self._keys) if self._keys else raw

    def again(self, target: Target) -> Published:
        """The newest target as if it had been published just now: to follow what becomes of it."""
        with self._collector.changed:
            return Published(target.device, target.version, target.digest, target.release, (), 0)

    def last(self, device: str | None = None) -> Target | None:
        """The newest target of the fleet, or of a device: the database's or, when it is newer, the broker's."""
        return self._collector.targets().get(device)

    def diff(self, apps: Mapping[str, Json], *, device: str | None = None) -> tuple[Change, ...]:
        """What publishing these apps would change."""
        last = self.last(device)
        return diff(last.apps if last else {}, apps)

    def next_version(self, device: str | None = None) -> Version:
        """What the next target of the fleet, or of a device, would be numbered."""
        return self._collector.next_version(device)

    def owns(self, device: str | None = None) -> bool:
        """Whether the newest target is one of this cloud, and no device has a newer one."""
        return self._collector.owns(device)

    def is_signed(self, target: Target) -> bool:
        """Whether it is in an envelope at all."""
        return dsse.is_envelope(payload.read(target.raw, target.content_type))

    def signs(self, target: Target) -> bool:
        """Whether publishing it now would sign it no better: every key of this cloud has signed it."""
        if not self._keys:
            return True
        try:
            open_target(target.raw, target.content_type, trusted=halves(self._keys, threshold=len(self._keys)))
        except Refused:
            return False
        return True

    def devices(self) -> tuple[Device, ...]:
        """All that have ever been heard of, by name."""
        with self._collector.changed:
            return self._collector.hearing.devices()

    def presence(self, device: Device) -> str:
        """`online`, `lost?` or `offline`."""
        return device.presence(monotonic())

    def acks(self, device: str | None = None, *, after: int = 0) -> tuple[Entry, ...]:
        """Acks in the order in which they were heard, each once; only those after the entry `after`."""
        return self._database.journal(after=after, device=device, kind="ack")

    def events(self, device: str | None = None, *, after: int = 0) -> tuple[Entry, ...]:
        """Events, likewise."""
        return self._database.journal(after=after, device=device, kind="event")

    def gaps(self, device: str) -> tuple[tuple[int, int], ...]:
        """Numbers of acks and events of a device that have not arrived: (first, last) of each gap."""
        return self._database.gaps(device)

    def shortfalls(self, devices: Sequence[str] | None = None) -> dict[str, str | None]:
        """Of `devices`, by default all: why each is not as published, in words; None for those that have converged."""
        with self._collector.changed:
            known = {device.id: device for device in self.devices()}
            yardstick = Yardstick(self._collector.targets())
        at = monotonic()
        chosen = known if devices is None else devices
        return {name: yardstick.shortfall(known.get(name, Device(name)), at) for name in chosen}

    def wait_converged(self, timeout: float, devices: Sequence[str] | None = None) -> None:
        """Until all `devices`, by default all that are online and at least one, have converged.

        Raises `NotConverged`, a `TimeoutError`.
        """

        def missing() -> dict[str, str]:
            chosen = devices
            if chosen is None:
                chosen = [device.id for device in self.devices() if self.presence(device) != OFFLINE]
            found = self.shortfalls(chosen) or {"nobody": "no device is online"}
            return {name: why for name, why in found.items() if why is not None}

        if not self.wait_for(lambda: not missing(), timeout):
            raise NotConverged(missing())

    def wait_for_ack(self, device: str, *, timeout: float, after: int = 0, **expected: Any) -> Entry:
        """The first ack of a device after the entry `after` whose keys have these values; None: the key is absent.

        `cloud.wait_for_ack("d1", verdict="applied", app=None, revision=3, timeout=30)`. Raises `TimeoutError` with
        what came instead.
        """

        def fits(entry: Entry) -> bool:
            return all(entry.body.get(key) == value for key, value in expected.items())

        found = self.wait_for(lambda: next(filter(fits, self.acks(device, after=after)), None), timeout)
        if found is None:
            heard = [dict(entry.body) for entry in self.acks(device, after=after)]
            raise TimeoutError(f"no ack of {device} with {expected} in {timeout:g} s; it sent {heard}")
        return found

    def wait_for(self, check: Callable[[], _T], timeout: float) -> _T:
        """Until `check` says something true of what this cloud knows, or time is over: its last answer."""
        return self._collector.wait_for(check, timeout)

    def wait_for_news(self, tick: int, timeout: float) -> int:
        """Until something was heard since `tick`, this method's last answer (0 at first), or time is over."""
        self._collector.wait_for(lambda: self._collector.ticks != tick, timeout)
        return self._collector.ticks

    @property
    def down(self) -> str | None:
        """Why there is no connection; None when there is one."""
        return self._collector.down.reason if self._collector.down else None
