"""What the store keeps: the rows of the database as frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from device_agent.model.target import Json, Target, Version


@dataclass(frozen=True, slots=True)
class Floor:
    """The highest version ever accepted for a scope. `digest` is None where only a label or a number told it."""

    version: Version
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class AcceptedTarget:
    """The newest accepted target of a scope and how far it has come."""

    target: Target
    accepted_at: datetime
    awaited: frozenset[str] = frozenset()
    """Apps that this target changes or removes and that have not reached their end yet."""
    ended: str | None = None
    """The verdict of the ack that ended it (`applied`, `superseded`), or None."""


@dataclass(frozen=True, slots=True)
class AppRecord:
    """What is remembered of an app: the last content that settled, and which of it."""

    app: str
    digest: str
    """`sha256:…` over the canonical JSON of the app as it last settled."""
    specs: Mapping[str, str]
    """Service → spec hash, as last settled."""
    release: str | None = None
    previous: str | None = None
    """The release that was settled before `release`."""
    revision: str = ""
    """Under which it settled: `fleet:1.42`."""
    document: Json = field(default=None, repr=False)
    """The app itself, raw: what a release that fails is rolled back to."""
    previous_images: tuple[str, ...] = ()
    """Of the content that settled before and used others: normalised, sorted. They are not removed."""


@dataclass(frozen=True, slots=True)
class BadRelease:
    """A release that failed its gate. It is not tried again until a newer revision comes."""

    app: str
    digest: str
    revision: str
    release: str | None
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A failure that is being retried. It is forgotten when its subject is as it should be, or wants another spec."""

    app: str
    subject: str
    """A service, or `network KEY`, `volume KEY`; for an image `app` is empty and the subject is `image REFERENCE`."""
    spec: str
    """What was tried, so that another spec starts anew."""
    count: int
    code: str
    message: str
    next_at: datetime
    failed_at: datetime | None = field(default=None, compare=False)
    """When it failed last. Not stored: None after a restart of the agent."""


@dataclass(frozen=True, slots=True)
class CommandRecord:
    """A command that changes something, and what was answered: so that each runs at most once."""

    id: str
    number: int
    """Counts them, because a clock may be set back: the lowest is the oldest."""
    verb: str
    request: str
    """`Command.request`: the same id with another request is another command."""
    received_at: datetime
    reply_to: str
    """The topic that its answer goes to."""
    correlation: bytes | None = None
    answer: bytes | None = None
    """The last one, as it is published; None: it was begun, and is not answered yet."""
    issued_at: datetime | None = None
    """Of a signed one, with `expires_at`: until then it can be given again, and is remembered. Else both are None."""
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator has said of a service or an app. It is forgotten when what it was said of is there no more."""

    app: str
    service: str
    """`stop`: a service; `start`, `restart`: one container of it (`api`, `api#2`); empty: the app itself."""
    verb: str
    """`stop`, `start` or `restart` of a service; `unlock` of an app."""
    content: str
    """What it was said of. `stop`: the service's definition; `start`, `restart`: its container's run
    (`Container.run`); `unlock`: the digest of the app's new content, empty for its removal."""


@dataclass(frozen=True, slots=True)
class PulledImage:
    """What this agent has pulled under a reference. A tag that moves leaves the row of the image that it was on."""

    image: str
    """The reference, normalised."""
    image_id: str
    """Empty while the first pull of the reference is under way: what is then found under it was pulled."""
    own: bool
    """Nobody had it here before: it may be removed."""
    pulled_at: datetime
    platform: str | None = None
    """As it was asked for."""
    revisions: frozenset[str] = frozenset()
    """`fleet:1.42`, the newest of each scope for which it was pulled."""


@dataclass(frozen=True, slots=True)
class Message:
    """A row of the outbox: an ack or an event, as it will be published."""

    seq: int
    kind: str
    """`ack` or `event`."""
    body: bytes
    terminal: bool = False
    """An ack that ends a target: the last to be dropped when the outbox is full."""


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is read at the start."""

    targets: Mapping[str, AcceptedTarget] = field(default_factory=dict)
    """By scope."""
    floors: Mapping[str, Floor] = field(default_factory=dict)
    """By scope: the highest of database and sidecar."""
    apps: Mapping[str, AppRecord] = field(default_factory=dict)
    attempts: tuple[Attempt, ...] = ()
    bad: Mapping[str, BadRelease] = field(default_factory=dict)
    """By app."""
    commands: tuple[CommandRecord, ...] = ()
    """The oldest first."""
    orders: tuple[Order, ...] = ()
    pulled: tuple[PulledImage, ...] = ()
    recovered: str | None = None
    """How the store was recovered at this start, in words; None when it was sound."""
    outbox_dropped: int = 0


@dataclass(frozen=True, slots=True)
class OutboxCounts:
    rows: int
    dropped: int
