"""The device's end of the MQTT connection: birth and Will, the retained state, and the outbox.

Owned by the loop. At most `WINDOW` messages wait for their PUBACK; a row of the outbox is deleted only after its own.
"""

import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf

import structlog

from device_agent.core.host import left_bucket
from device_agent.model.errors import Refused, StoreFull
from device_agent.model.host import HostFigures
from device_agent.model.memory import OutboxCounts
from device_agent.model.report import Have, State, shortened
from device_agent.ports import Clock, Connected, Disconnected, Published, PullProgress, Store, Transport, Will
from device_agent.runtime.answers import Answers, Outgoing
from device_agent.runtime.inbox import Put
from device_agent.wire.commands import VERBS
from device_agent.wire.messages import (
    Head,
    encode_birth,
    encode_farewell,
    encode_progress,
    encode_state,
    encode_will,
    host_body,
)
from device_agent.wire.topics import Topics

WINDOW = 8
STATE_EVERY_S = 2.0
HOST_EVERY_S = 300.0
"""How often the state is sent for the host's figures alone, at most."""
FEW_ROWS = 16
"""So many rows that the broker has are deleted with what is written next: a transaction for them alone would be a
quarter of what an update writes. Power lost meanwhile: they are sent once more."""
DELETE_AFTER_S = 5.0
"""More are deleted together once it is quiet."""
PROGRESS_EVERY_S = 1.0
ACK_EXPIRY_S = 7 * 86400
REPLAY_PER_S = 32.0
REPLAY_BURST = 64.0
"""How fast the outbox is sent: a fleet that comes back after days must not drown its broker and its cloud."""
LOG_EXPIRY_S = 60
PROGRESS_EXPIRY_S = 60
_SESSIONS = 64
"""Session numbers reserved at once: one disk write for so many connections."""

log = structlog.get_logger()


@dataclass(slots=True)
class Link:
    transport: Transport
    store: Store
    topics: Topics
    clock: Clock
    put: Put
    will_delay_s: int
    session: int | None = None
    """Of the connection that stands; None while there is none."""
    _window: int = WINDOW
    _free_sessions: deque[int] = field(default_factory=deque)
    _last_session: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: dict[int, int | Outgoing | None] = field(default_factory=dict)
    """Handle → outbox row, answer, or None for a state or birth."""
    _sent: int = 0
    """The last outbox row sent on this connection."""
    _confirmed: dict[int, bool] = field(default_factory=dict)
    """Rows to be deleted: False for those that the broker has, True for those that it will never take."""
    _confirmed_at: float = 0.0
    _state: State | None = None
    """As last sent on this connection."""
    _state_seq: int = 0
    _state_at: float = 0.0
    _host: HostFigures | None = None
    """As sent with the state."""
    _progress_at: dict[str, float] = field(default_factory=dict)
    answers: Answers = field(init=False)
    _receive_maximum: int = 65_535
    _allowance: float = REPLAY_BURST
    """So many rows of the outbox may be sent now; it grows with time."""
    _allowed_at: float = 0.0
    _held_back: bool = False
    """Rows wait for the allowance."""
    _trouble: tuple[str, str] | None = None
    """The reason told last why there is no connection."""

    def __post_init__(self) -> None:
        self.answers = Answers(self.transport, self.clock)

    def start(self) -> None:
        self._reserve()
        self.transport.start(
            subscriptions=self.topics.subscriptions,
            optional=self.topics.commands(VERBS),
            will=self._will,
            sessions=self._next_session,
            deliver=self.put,
        )

    def _will(self, session: int) -> Will:
        return Will(self.topics.session, encode_will(self.topics.device, session), self.will_delay_s)

    def _next_session(self) -> int:
        """Called from the network thread: a number that is on disk as used, while the disk takes any."""
        with self._lock:
            self._last_session = self._free_sessions.popleft() if self._free_sessions else self._last_session + 1
            return self._last_session

    def _reserve(self) -> None:
        """Numbers for the next connections, above all that any process of this device has taken.

        One whose store could write none, not even the place for a full disk, took those after the last reserved one, or
        after the time of day in seconds: the first that another process reserves leave room for both.
        """
        with self._lock:
            if len(self._free_sessions) >= _SESSIONS // 2:
                return
            given = self._last_session
        seconds, reserved = int(self.clock.now().timestamp()), self.store.last_session()
        try:
            first = self.store.reserve_sessions(_SESSIONS, given or max(seconds, reserved + _SESSIONS))
        except StoreFull as full:
            log.warning("session numbers are not on disk", why=str(full))
            with self._lock:
                self._last_session = self._last_session or max(seconds, reserved)
            return
        with self._lock:
            self._free_sessions.extend(range(max(first, self._last_session + 1), first + _SESSIONS))

    def connected(self, event: Connected, have: dict[str, Have | None]) -> None:
        log.info("connected", session=event.session)
        for remark in event.remarks:
            log.warning("the broker does not grant what was asked", what=remark)
        if event.refused:
            log.warning("the broker lets no such commands through", topics=list(event.refused))
        self.session = event.session
        self._trouble = None
        # Room is left for a birth and a state.
        self._window = max(1, min(WINDOW, event.receive_maximum - 2))
        self._receive_maximum = event.receive_maximum
        self._forget_connection()
        self._reserve()
        birth = encode_birth(self.topics.device, event.session, self.clock.now(), have, self.outbox())
        self._publish(self.topics.session, birth, None, retain=True)

    def disconnected(self, event: Disconnected) -> None:
        # A broker that is away for a week is told once, not at every try.
        news = (event.code, event.message) != self._trouble
        self._trouble = (event.code, event.message)
        level = log.warning if news else log.debug
        level("disconnected", code=event.code, why=event.message, retry_s=round(event.retry_s, 1))
        self.session = None
        self._forget_connection()
        self._reserve()

    def _forget_connection(self) -> None:
        self.answers.again(sent for sent in self._waiting.values() if isinstance(sent, Outgoing))
        self._waiting.clear()
        self._sent = 0
        self._state = None
        self._state_seq = 0

    def published(self, event: Published) -> None:
        row = self._waiting.pop(event.handle, None)
        if event.refused:
            # A row stays in the outbox and is sent again on the next connection.
            what = row.topic if isinstance(row, Outgoing) else row
            log.warning("the broker refused a message", why=event.refused, what=what)
        elif isinstance(row, int):
            self._confirm(row)

    def _confirm(self, row: int, *, dropped: bool = False) -> None:
        self._confirmed[row] = dropped
        self._confirmed_at = self.clock.monotonic()

    def confirmed(self, *, writing: bool) -> dict[int, bool]:
        """Rows to delete now, and whether each was dropped: with what is written anyway, or many once it is quiet."""
        due = self.confirmed_due()
        if not writing and (due is None or self.clock.monotonic() < due):
            return {}
        rows, self._confirmed = self._confirmed, {}
        return rows

    def confirmed_due(self) -> float | None:
        """None: they can wait. What is given up is counted in the store, and so does not wait long."""
        rows = self._confirmed
        return self._confirmed_at + DELETE_AFTER_S if len(rows) > FEW_ROWS or any(rows.values()) else None

    def outbox(self) -> OutboxCounts:
        """What is still to be sent."""
        counts = self.store.outbox_counts()
        confirmed = self._confirmed
        return OutboxCounts(counts.rows - len(confirmed), counts.dropped + sum(confirmed.values()))

    def answers_due(self) -> float | None:
        """When the next answer can go; None while there is none, or no room for one."""
        if self.session is None or len(self._waiting) >= self._window:
            return None
        return self.answers.due()

    def pump(self) -> None:
        """Send the answers that are due, and what the outbox has, in order, as far as the window allows."""
        if self.session is None:
            return
        self._waiting |= self.answers.send(self._window - len(self._waiting))
        free = self._window - len(self._waiting)
        if free <= 0:
            return
        self._grow_allowance()
        kept = set(self._confirmed)
        for message in self.store.outbox(self._sent, free + len(kept)):
            if message.seq in kept:
                continue
            self._held_back = self._allowance < 1
            if self._held_back:
                return
            topic = self.topics.up(message.kind)
            if not self._publish(topic, message.body, message.seq, expiry_s=ACK_EXPIRY_S):
                return
            self._sent = message.seq
            self._allowance -= 1
            if len(self._waiting) >= self._window:
                return

    def _grow_allowance(self) -> None:
        now = self.clock.monotonic()
        self._allowance = min(REPLAY_BURST, self._allowance + (now - self._allowed_at) * REPLAY_PER_S)
        self._allowed_at = now
        self._held_back = False

    def pump_due(self) -> float | None:
        """When the outbox may go on."""
        if self.session is None or not self._held_back:
            return None
        return self._allowed_at + (1 - self._allowance) / REPLAY_PER_S

    def state_due(self) -> float:
        return inf if self._full else self._state_at + STATE_EVERY_S

    @property
    def _full(self) -> bool:
        """The broker takes no more before it has answered (its Receive Maximum)."""
        return len(self._waiting) >= self._receive_maximum

    def host_is_news(self, host: HostFigures | None) -> bool:
        """Whether the host's figures alone are worth a message now. Else they go with the next change of the state."""
        if host is None or self._state is None or self.clock.monotonic() < self._state_at + HOST_EVERY_S:
            return False
        return self._host is None or left_bucket(self._host, host)

    def report(self, state: State, host: HostFigures | None = None, *, last: bool = False) -> bool:
        """Publish the state when it differs from what was sent. False: it is to be tried again at `state_due`.

        The `last` one before the farewell does not wait its turn: nobody would send it then.
        """
        if self.session is None:
            return True
        same = replace(state, outbox_rows=0, outbox_dropped=0)
        if same == self._state and not self.host_is_news(host):
            return True
        now = self.clock.monotonic()
        if self._full or (self._state is not None and not last and now < self.state_due()):
            return False
        counts = self.outbox()
        full = replace(state, outbox_rows=counts.rows, outbox_dropped=counts.dropped)
        head = Head(self.topics.device, self.session, self._state_seq + 1, self.clock.now())
        figures = host_body(host) if host else None
        # One that the broker takes: the whole state or, where that is too large, what fits of it.
        for told in (full, *shortened(full)):
            body = encode_state(told, head, host=figures)
            try:
                handle = self.transport.publish(self.topics.state, body, qos=1, retain=True)
            except Refused as refused:
                log.warning("state too large for the broker", bytes=len(body), why=refused.message)
                continue
            if handle is None:
                return True
            self._waiting[handle] = None
            break
        self._state, self._state_at, self._host = same, now, host
        self._state_seq += 1
        return True

    def progress(self, pull: PullProgress) -> None:
        now = self.clock.monotonic()
        if self.session is not None and now - self._progress_at.get(pull.image, -PROGRESS_EVERY_S) >= PROGRESS_EVERY_S:
            self._progress_at[pull.image] = now
            body = encode_progress(pull.image, pull.done, pull.total, self.topics.device, self.clock.now())
            self._publish_loosely(self.topics.progress, body, PROGRESS_EXPIRY_S)

    def log(self, topic: str, body: bytes) -> None:
        """Lines of a log: lost where they cannot be sent now."""
        if self.session is not None:
            self._publish_loosely(topic, body, LOG_EXPIRY_S)

    def _publish_loosely(self, topic: str, payload: bytes, expiry_s: int) -> None:
        """Once at most: what the broker does not take is nothing that is missed."""
        with suppress(Refused):
            self.transport.publish(topic, payload, qos=0, retain=False, expiry_s=expiry_s)

    def _publish(
        self, topic: str, payload: bytes, row: int | None, *, retain: bool = False, expiry_s: int | None = None
    ) -> bool:
        try:
            handle = self.transport.publish(topic, payload, qos=1, retain=retain, expiry_s=expiry_s)
        except Refused as refused:
            # Larger than the broker takes. It would never go out: an ack or event is given up, and counted.
            log.warning("message too large for the broker", topic=topic, bytes=len(payload), why=refused.message)
            if row is not None:
                self._confirm(row, dropped=True)
            return True
        if handle is None:
            return False
        self._waiting[handle] = row
        return True

    def stop(self, timeout_s: float) -> None:
        farewell = None
        if self.session is not None:
            farewell = (self.topics.session, encode_farewell(self.topics.device, self.session, self.clock.now()))
        self.transport.stop(farewell, timeout_s)
        self.session = None
