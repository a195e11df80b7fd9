"""The outside world, behind five narrow ports. Adapters let nothing foreign out and translate their library's errors.

Threads: the owner loop calls `Store` and the non-blocking half of `Transport`; `Engine` is called from worker threads
(its methods block and are safe to call from several at once); `Clock` from anywhere; `Host` from the owner loop.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Protocol

from device_agent.model.host import Disk, HostFigures
from device_agent.model.log import LogLine
from device_agent.model.memory import (
    AcceptedTarget,
    AppRecord,
    Attempt,
    BadRelease,
    CommandRecord,
    Floor,
    Memory,
    Message,
    Order,
    OutboxCounts,
    PulledImage,
)
from device_agent.model.observed import EngineEvent, Observed
from device_agent.model.steps import Connect, Create, CreateNetwork, CreateVolume, Fill
from device_agent.model.target import Target


class Clock(Protocol):
    def now(self) -> datetime:
        """The wall clock, in UTC, aware. It may jump."""

    def monotonic(self) -> float:
        """Seconds that never go back."""


class Host(Protocol):
    def figures(self) -> HostFigures:
        """The machine's figures now. Cheap, never raises: what cannot be had is None."""

    def disk(self) -> Disk | None:
        """The data volume's. From any thread."""


@dataclass(frozen=True, slots=True)
class PullProgress:
    """Bytes of the layers under way. `total` grows while the registry tells the sizes."""

    image: str
    done: int
    total: int


class Engine(Protocol):
    """The container engine. Every method may raise `EngineAway` or `EngineError`; each call has a time limit.

    What is gone already counts as removed, stopped or disconnected; what runs already counts as started.
    """

    def observe(self, stale: frozenset[str] | None = frozenset()) -> Observed:
        """List what there is. Containers not seen before and those in `stale` are inspected; None: all of them."""

    def events(self, stop: Event) -> Iterator[EngineEvent]:
        """What happens to containers, networks, volumes and images from now on (own objects carry `app`).

        Ends when `stop` is set (within about a second) or when the stream ends, also silently. The first item is of
        kind `stream`, action `open`: whatever was observed before it may be outdated.
        """

    def pull(self, image: str, platform: str | None, progress: Callable[[PullProgress], None], cancel: Event) -> str:
        """Pull, for a platform or for the engine's own, and check that the image is there: returns its id.

        Raises `Cancelled` soon after `cancel` is set.
        """

    def missing_bytes(self, image: str, platform: str | None) -> int | None:
        """What a pull would fetch, as it travels: what of it is not here yet. None where the registry does not tell."""

    def create_network(self, network: CreateNetwork) -> None: ...
    def check_network(self, network_id: str, users: frozenset[str]) -> None:
        """Raises `EngineError` (`network_in_use`, outside) when a container is on it whose id is not among `users`."""

    def remove_network(self, network_id: str) -> None: ...
    def create_volume(self, volume: CreateVolume) -> None: ...
    def fill(self, fill: Fill) -> None:
        """Make a volume and put files into it, over those that are there.

        What is cut off in the middle may leave a container that was never started, of the volume's service and no spec.
        """

    def create(self, container: Create) -> None:
        """Its volume of files has been filled before."""

    def connect(self, connect: Connect) -> None: ...
    def disconnect(self, container_id: str, network: str) -> None: ...
    def start(self, container: str) -> None:
        """`container` is a name or an id."""

    def stop(self, container_id: str, grace_s: float) -> None: ...
    def remove(self, container_id: str) -> None:
        """With its anonymous volumes, never with a named one. Kills it when it runs."""

    def rename(self, container_id: str, name: str) -> None: ...
    def remove_image(self, image: str) -> None:
        """By reference. What a container uses stays: `EngineError` (`image_in_use`, outside)."""

    def remove_volume(self, name: str) -> None:
        """With everything in it. What any container, running or not, has mounted is not removed: `volume_in_use`."""

    def has_file(self, container_id: str, path: str) -> bool:
        """Whether there is something at an absolute path in a container; False also for a container that is gone."""

    def tail(self, container_id: str, lines: int) -> str:
        """The last log lines, both streams, at most 2 KiB; empty where the log driver cannot be read."""

    def logs(
        self, container_id: str, *, lines: int, since: datetime | None, follow: bool, stop: Event
    ) -> Iterator[tuple[LogLine, ...]]:
        """The last `lines` of the log, oldest first, in batches as they come; with `follow` also what comes later.

        Ends when the log does, when the container ends, or within about a second after `stop` is set.
        """


class Transaction(Protocol):
    """All or nothing, on disk when the `with` block has been left. Rows replace rows of the same key."""

    def put_target(self, accepted: AcceptedTarget) -> None:
        """Store it for its scope; raises the scope's floor to its version and digest."""

    def put_app(self, record: AppRecord) -> None: ...
    def drop_app(self, app: str) -> None: ...
    def put_bad(self, bad: BadRelease) -> None: ...
    def drop_bad(self, app: str) -> None: ...
    def put_attempt(self, attempt: Attempt) -> None: ...
    def drop_attempt(self, app: str, subject: str) -> None: ...
    def put_command(self, record: CommandRecord) -> None: ...
    def drop_command(self, id_: str) -> None: ...
    def put_order(self, order: Order) -> None: ...
    def drop_order(self, app: str, service: str) -> None: ...
    def put_pulled(self, pulled: PulledImage) -> None: ...
    def drop_pulled(self, image: str, image_id: str) -> None: ...
    def queue(self, kind: str, body: Callable[[int], bytes], *, terminal: bool = False) -> None:
        """Add an ack or event to the outbox; `body` is called with its number (`seq`). Bounds are kept here."""

    def unqueue(self, seq: int, *, dropped: bool = False) -> None:
        """Delete a row that the broker has acknowledged, or never takes: then it is counted as `dropped`."""


class Store(Protocol):
    """The database on the volume. One connection, one owner. Raises `StoreFull`, `StoreBroken`."""

    def load(self) -> Memory: ...
    def transaction(self) -> AbstractContextManager[Transaction]: ...
    def raise_floor(self, scope: str, floor: Floor) -> None:
        """From labels at recovery. Never lowers it."""

    def remember_good(self, targets: tuple[Target, ...]) -> None:
        """Write the sidecar: the accepted targets that have been applied, and the floors."""

    def outbox(self, after: int, limit: int) -> tuple[Message, ...]:
        """Rows with a number above `after`, in order."""

    def outbox_counts(self) -> OutboxCounts: ...
    def last_session(self) -> int:
        """The highest session number that was reserved."""

    def reserve_sessions(self, count: int, above: int = 0) -> int:
        """The first of `count` session numbers, all higher than any before, and than `above`.

        A full disk takes them as well; `StoreFull` only where even the file for that is missing.
        """

    def backup(self, file: Path) -> None:
        """A consistent copy of the database, on disk when this returns."""

    def restore(self, file: Path) -> Memory:
        """Replace the contents by a backup's, after checking it. Floors stay at the highest known.

        The outbox and the commands stay: they have happened here. Raises `Refused` (code `invalid`) when the file is no
        sound backup; then nothing has changed.
        """

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Will:
    topic: str
    payload: bytes
    delay_s: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The subscriptions are granted. `session` is the number whose Will the broker holds."""

    session: int
    maximum_packet_size: int
    receive_maximum: int
    refused: tuple[str, ...] = ()
    """Optional subscriptions that the broker did not grant."""
    remarks: tuple[str, ...] = ()
    """Sentences about what the broker grants differently from what was asked."""


@dataclass(frozen=True, slots=True)
class Disconnected:
    """`code` is `lost`, `refused`, `duplicate_identity` or `unreachable`; `retry_s` is when it is tried again."""

    code: str
    message: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class Received:
    """A message, not yet acknowledged: `acknowledge(token)` sends its PUBACK."""

    topic: str
    payload: bytes
    token: object
    retained: bool = False
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """The broker has answered a QoS 1 message: it has it, or (MQTT 5) `refused` says why it did not take it."""

    handle: int
    refused: str | None = None


TransportEvent = Connected | Disconnected | Received | Published


class Transport(Protocol):
    """The MQTT connection: made anew for ever, with jittered back-off, by its own thread. Only `stop` blocks.

    Nothing is remembered across connections: what was not `Published` is the caller's to send again after `Connected`.
    """

    def start(
        self,
        *,
        subscriptions: tuple[str, ...],
        optional: tuple[str, ...] = (),
        will: Callable[[int], Will],
        sessions: Callable[[], int],
        deliver: Callable[[TransportEvent], None],
    ) -> None:
        """Connect and stay connected. Without one of `subscriptions` there is no connection; `optional` may be refused.

        `sessions` gives the next session number, once for each connection; `deliver` is called from the network thread,
        must not block and must not raise.
        """

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
        """A handle for `Published` (QoS 1). None, and nothing was queued: no connection, or no room at the broker now.

        Raises `Refused` (`too_large`) for what this broker never takes.
        """

    def acknowledge(self, token: object) -> None:
        """Send the PUBACK, when the connection that brought the message still stands."""

    def subscribe_again(self) -> None:
        """Ask the broker once more for what it retains on `subscriptions`. It arrives as `Received`, if at all."""

    def stop(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """Publish the farewell (retained, QoS 1), wait for its PUBACK, disconnect cleanly."""
