"""What arrives on the target topics: settled after a connection, judged, stored, and only then acknowledged.

Its parts: `documents` opens what has arrived, `judging` says what becomes of it. Here it waits, and of what waits the
best is chosen.

After every (re)connection the broker sends what it retains and what it queued. Only the highest version of each scope
is evaluated, once both scopes have answered or a settle time has passed: three queued revisions are one change. When
it is refused, the next lower one is: it would have been taken, had the device been online.

A flood is braked (`core.brake`): its first is judged at once, and the highest of what follows when it is over. What is
lower than the highest few that wait is acknowledged without being judged, so that the broker sends on.

Where no floor is known, or one without a target that is understood, nothing is judged before the first look at the
engine: the database may be lost, and then what runs tells the floor, and that there is something which an empty target
would remove.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from device_agent.core.brake import Brake
from device_agent.model.errors import Refused
from device_agent.model.target import DEVICE, FLEET, SCOPES, Version
from device_agent.ports import Received
from device_agent.runtime.documents import Documents, Opened
from device_agent.runtime.judging import Judging

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

SETTLE_S = 2.0
KEPT = 5
"""Of each scope, while it is braked: lower ones to fall back on, should the highest be refused."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A document that could be read, kept as it arrived: a few that wait are large when they are inflated."""

    message: Received
    scope: str
    version: Version
    digest: str


def _brakes() -> dict[str, Brake]:
    return {scope: Brake() for scope in SCOPES}


@dataclass(slots=True)
class Intake:
    agent: "Agent"
    documents: Documents
    judging: Judging = field(init=False)
    settle_at: float | None = None
    """When what has arrived since the connection is judged; None when it is judged at once."""
    _settling: bool = True
    _arrived: list[Received] = field(default_factory=list)
    _waiting: list[_Waiting] = field(default_factory=list)
    """Not judged yet."""
    _brakes: dict[str, Brake] = field(default_factory=_brakes)
    _answered: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.judging = Judging(self.agent, self.documents)

    def connected(self) -> None:
        self.judging.connected()
        self.settle_at = self.agent.clock.monotonic() + SETTLE_S

    def disconnected(self) -> None:
        """What was not judged was not acknowledged: the broker sends it again."""
        self._settling, self.settle_at = True, None
        self._arrived.clear()
        self._waiting.clear()
        self._brakes = _brakes()
        self._answered.clear()
        self.documents.forget()
        self.judging.disconnected()

    def received(self, message: Received) -> None:
        scope = self.agent.options.topics.scope_of(message.topic)
        if scope is None:
            log.warning("message on a topic that was not subscribed to", topic=message.topic)
            self.agent.journal.acknowledge(message.token)
            return
        self._arrived.append(message)
        self._answered.add(scope)

    def tick(self) -> None:
        if not self._knows_what_it_has:
            return
        now = self.agent.clock.monotonic()
        if self._settling:
            if self.settle_at is None or (now < self.settle_at and not self._answered >= set(SCOPES)):
                return
            self._settling, self.settle_at = False, None
        if self._arrived:
            self._open_arrived(now)
        due = {scope for scope, brake in self._brakes.items() if self._is_due(brake, now)}
        if due:
            waiting, self._waiting = self._waiting, [each for each in self._waiting if each.scope not in due]
            self._judge([each for each in waiting if each.scope in due])
            self.documents.forget()
        self.judging.tick()

    def next_due(self) -> float | None:
        """Monotonic time at which what has arrived is judged; None: it was, or something else is waited for."""
        if not self._knows_what_it_has:
            return None
        times = (self.settle_at, *(brake.due for brake in self._brakes.values()))
        return min((time for time in times if time is not None), default=None)

    @property
    def _knows_what_it_has(self) -> bool:
        floors, reconciler = self.agent.floors, self.agent.reconciler
        understood = bool(floors) and floors.keys() <= reconciler.wanted.targets.keys()
        return understood or reconciler.observed is not None

    def _is_due(self, brake: Brake, now: float) -> bool:
        if brake.due is None or now < brake.due:
            return False
        if brake.asks(now):
            self.agent.link.transport.subscribe_again()
            return False
        brake.judged(now)
        return True

    def _open_arrived(self, now: float) -> None:
        """What can be read waits to be judged: the highest few of each scope."""
        arrived, self._arrived = self._arrived, []
        scopes = Counter(self.agent.options.topics.scope_of(message.topic) or FLEET for message in arrived)
        for scope, count in scopes.items():
            self.judging.heard(scope)
            self._brakes[scope].heard(count, now)
        opened = (_waiting(each, message) for message in arrived if (each := self.documents.open(message)))
        waiting = [*self._waiting, *opened]
        # One that came five times is one, or it would leave no place for what there is to fall back on.
        distinct = {(each.scope, each.version, each.digest): each for each in reversed(waiting)}
        self._waiting = [each for highest in _by_scope(distinct.values()).values() for each in highest[:KEPT]]
        kept = {id(each) for each in self._waiting}
        for other in (each for each in waiting if id(each) not in kept):
            self.agent.journal.acknowledge(other.message.token)

    def _judge(self, waiting: list[_Waiting]) -> None:
        """The highest good version of each scope; lower ones that came with it are only acknowledged."""
        by_scope = _by_scope(waiting)
        for scope in self._order(by_scope):
            settled: Version | None = None
            for each in by_scope[scope]:
                if settled is not None and each.version < settled:
                    self.agent.journal.acknowledge(each.message.token)
                elif (opened := self.documents.open(each.message)) and self.judging.decide(opened):
                    settled = each.version

    def _order(self, by_scope: dict[str, list[_Waiting]]) -> tuple[str, str]:
        """The fleet's first, unless it is good only with the device's new one."""
        if all(by_scope.values()):
            first, *others = by_scope[FLEET]
            opened = self.documents.open(first.message)
            if opened is None:  # its key is trusted no more
                by_scope[FLEET] = others
                return FLEET, DEVICE
            try:
                self.judging.judge(opened)
            except Refused:
                return DEVICE, FLEET
        return FLEET, DEVICE


def _waiting(opened: Opened, message: Received) -> _Waiting:
    return _Waiting(message, opened.scope, opened.target.version, opened.target.digest)


def _by_scope(waiting: Iterable[_Waiting]) -> dict[str, list[_Waiting]]:
    """The highest first."""
    ranked = sorted(waiting, key=_version, reverse=True)
    return {scope: [each for each in ranked if each.scope == scope] for scope in SCOPES}


def _version(waiting: _Waiting) -> Version:
    return waiting.version
