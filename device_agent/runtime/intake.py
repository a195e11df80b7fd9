"""What arrives on the target topics: settled after a connection, judged, stored, and only then acknowledged.

After every (re)connection the broker sends what it retains and what it queued. Only the highest version of each scope
is evaluated, once both scopes have answered or a settle time has passed: three queued revisions are one change. When
it is refused, the next lower one is: it would have been taken, had the device been online.

A flood is braked (`core.brake`): its first is judged at once, and the highest of what follows when it is over. What is
lower than the highest few that wait is acknowledged without being judged, so that the broker sends on.

Where no floor is known, or one without a target that is understood, nothing is judged before the first look at the
engine: the database may be lost, and then what runs tells the floor, and that there is something which an empty target
would remove.

What is refused for what it says is judged again when the other scope's target has changed: a device's target may extend
an app that the fleet's next one brings. So the order in which the two arrive means nothing.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from device_agent.core.brake import Brake
from device_agent.core.intake import Standing, Wanted, admit, changed_apps, decide
from device_agent.model.errors import Refused, StoreFull
from device_agent.model.memory import AcceptedTarget, Floor
from device_agent.model.report import Ack, Happening, Have
from device_agent.model.target import DEVICE, FLEET, SCOPES, Json, Target, Version
from device_agent.ports import Received, Transaction
from device_agent.runtime.rollout import transition
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.target import check_keys, glimpse, ignored_keys, open_target, read_version

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

SETTLE_S = 2.0
KEPT = 5
"""Of each scope, while it is braked: lower ones to fall back on, should the highest be refused."""
_FOR_ITS_HEADER = frozenset(("scope", "expired", "stale", "fork"))
MOST_ERRORS = 50
"""Places listed in one ack; the count in its message is of all."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Opened:
    """A document that could be read, and the message that brought it."""

    target: Target
    body: dict[str, Json]
    scope: str
    token: object


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
    settle_at: float | None = None
    """When what has arrived since the connection is judged; None when it is judged at once."""
    unstored: list[_Opened] = field(default_factory=list)
    """Accepted, but the disk is full: not acknowledged, tried again."""
    _settling: bool = True
    _arrived: list[Received] = field(default_factory=list)
    _waiting: list[_Waiting] = field(default_factory=list)
    """Not judged yet."""
    _opened: tuple[Received, _Opened] | None = None
    """The last that was opened: mostly it is the one that is judged next."""
    _brakes: dict[str, Brake] = field(default_factory=_brakes)
    _answered: set[str] = field(default_factory=set)
    _told_stale: set[tuple[str, Version]] = field(default_factory=set)
    _refused: dict[str, _Opened] = field(default_factory=dict)
    """Scope → the highest that was refused for what it says, since the last message of that scope."""

    def connected(self) -> None:
        self._told_stale.clear()
        self.settle_at = self.agent.clock.monotonic() + SETTLE_S

    def disconnected(self) -> None:
        """What was not judged was not acknowledged: the broker sends it again."""
        self._settling, self.settle_at = True, None
        self._arrived.clear()
        self._waiting.clear()
        self._opened = None
        self._brakes = _brakes()
        self._answered.clear()
        self.unstored.clear()
        self._refused.clear()

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
            self._opened = None
        if self.unstored and self.agent.journal.may_write:
            again, self.unstored = self.unstored, []
            for opened in again:
                self._decide(opened)

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
            self._refused.pop(scope, None)
            self._brakes[scope].heard(count, now)
        waiting = [*self._waiting, *(_waiting(each, message) for message in arrived if (each := self._open(message)))]
        # One that came five times is one, or it would leave no place for what there is to fall back on.
        distinct = {(each.scope, each.version, each.digest): each for each in reversed(waiting)}
        self._waiting = [each for highest in _by_scope(distinct.values()).values() for each in highest[:KEPT]]
        kept = {id(each) for each in self._waiting}
        for other in (each for each in waiting if id(each) not in kept):
            self._acknowledge(other.message.token)

    def _judge(self, waiting: list[_Waiting]) -> None:
        """The highest good version of each scope; lower ones that came with it are only acknowledged."""
        by_scope = _by_scope(waiting)
        for scope in self._order(by_scope):
            settled: Version | None = None
            for each in by_scope[scope]:
                if settled is not None and each.version < settled:
                    self._acknowledge(each.message.token)
                elif (opened := self._open(each.message)) and self._decide(opened):
                    settled = each.version

    def _order(self, by_scope: dict[str, list[_Waiting]]) -> tuple[str, str]:
        """The fleet's first, unless it is good only with the device's new one."""
        if all(by_scope.values()):
            first, *others = by_scope[FLEET]
            opened = self._open(first.message)
            if opened is None:  # its key is trusted no more
                by_scope[FLEET] = others
                return FLEET, DEVICE
            try:
                self.judge(opened)
            except Refused:
                return DEVICE, FLEET
        return FLEET, DEVICE

    def _open(self, message: Received) -> _Opened | None:
        """None: it cannot be read. That is told, and it is acknowledged."""
        if self._opened and self._opened[0] is message:
            return self._opened[1]
        self._opened = None
        scope = self.agent.options.topics.scope_of(message.topic) or FLEET
        if not message.payload:
            self.agent.journal.tell(Happening("target_cleared", {"scope": scope, "message": "nothing changes"}))
            self.agent.journal.acknowledge(message.token)
            return None
        body: Json = None
        try:
            body = self.body_of(message.payload, message.content_type)
            target = self.target_of(body, message.payload, message.content_type)
        except Refused as refused:
            seen = glimpse(body)
            ack = Ack("rejected", scope, seen.version, seen.digest, seen.release)
            self._refuse(ack, refused, scope, message.token)
            return None
        opened = _Opened(target, body, scope, message.token)
        self._opened = message, opened
        return opened

    def _decide(self, opened: _Opened) -> bool:
        """False when it is refused and a lower version may still be good."""
        try:
            wanted = self.judge(opened)
        except Refused as refused:
            stale = refused.code == "stale"
            key = (opened.scope, opened.target.version)
            if stale and key in self._told_stale:
                self._acknowledge(opened.token)
                return True
            if stale:
                self._told_stale.add(key)
            elif refused.code not in _FOR_ITS_HEADER:
                if self._decide_together(opened):
                    return True
                self._refused.setdefault(opened.scope, replace(opened, token=None))
            self._refuse(transition(opened.target, "rejected"), refused, opened.scope, opened.token)
            return stale
        if wanted is None:
            self._acknowledge(opened.token)
            return True
        self._try_to_accept(wanted, opened)
        return True

    def _decide_together(self, opened: _Opened) -> bool:
        """Two targets that are good only with each other: each was refused beside what there is of the other scope."""
        other = self._refused.get(_other(opened.scope))
        if other is None:
            return False
        standing, now = self.standing(), self.agent.clock.now()
        try:
            fresh = all(admit(each.target, each.scope, standing, now) for each in (opened, other))
            wanted = self.wanted_after(standing, opened.target, other.target) if fresh else None
        except Refused:
            return False
        if wanted is None:
            return False
        self._refused.clear()
        self._try_to_accept(wanted, other, opened)
        return True

    def _try_to_accept(self, wanted: Wanted, *opened: _Opened) -> None:
        try:
            self._accept(wanted, *opened)
        except StoreFull as full:
            self.agent.journal.full(full)
            self.unstored.extend(opened)

    def _judge_again(self, scope: str) -> None:
        """What was refused of a scope, now that the other one has another target. Refused again: not told again."""
        opened = self._refused.get(scope)
        if opened is None:
            return
        try:
            wanted = self.judge(opened)
        except Refused:
            return
        del self._refused[scope]
        if wanted is not None:
            self._try_to_accept(wanted, opened)

    def apply(self, payload: bytes) -> tuple[str, Target]:
        """A target that did not come through the broker: `accepted` or `duplicate`. Raises `Refused`, `StoreFull`."""
        opened = self._from_file(payload)
        wanted = self.judge(opened)
        if wanted is None:
            return "duplicate", opened.target
        self._accept(wanted, opened)
        return "accepted", opened.target

    def would_want(self, payload: bytes) -> Wanted:
        """What this device would want if it accepted a target. Raises `Refused`."""
        return self.judge(self._from_file(payload)) or self.agent.reconciler.wanted

    def _from_file(self, payload: bytes) -> _Opened:
        """Its scope is its own word: there is no topic that says otherwise."""
        body = self.body_of(payload, None)
        target = self.target_of(body, payload, None)
        return _Opened(target, body, target.scope, None)

    # What a document says, and what it leads to, depends on nothing else: many agents in one process may share it.

    def body_of(self, payload: bytes, content_type: str | None) -> Json:
        """The body of a target. Raises `Refused`."""
        return open_target(payload, content_type, self.agent.options.limits, self.trusted())

    def trusted(self) -> TrustedKeys | None:
        """Read anew each time: a key that was added or removed counts from now on. Raises `Refused`."""
        trusted = self.agent.options.trusted
        try:
            return trusted() if trusted else None
        except ValueError as error:
            log.error("trusted keys cannot be used", why=str(error))  # noqa: TRY400 - the sentence says it all
            raise Refused("signature", f"no signature can be checked: {error}") from error

    def target_of(self, body: Json, payload: bytes, content_type: str | None) -> Target:
        """The target that a body is, its keys unchecked. Raises `Refused`."""
        return read_version(body, raw=payload, content_type=content_type)

    def wanted_after(self, standing: Standing, *arriving: Target) -> Wanted:
        """What is wanted once these admitted targets are accepted. Raises `Refused`."""
        return decide(standing, *arriving)

    def judge(self, opened: _Opened) -> Wanted | None:
        """What would be wanted; None for a repetition. Raises `Refused`."""
        standing = self.standing()
        if not admit(opened.target, opened.scope, standing, self.agent.clock.now()):
            return None
        check_keys(opened.body)
        return self.wanted_after(standing, opened.target)

    def standing(self) -> Standing:
        agent = self.agent
        observed = agent.reconciler.observed
        return Standing(
            identity=agent.options.identity,
            naming=agent.options.naming,
            policy=agent.options.policy,
            targets=agent.rollout.targets,
            floors=agent.floors,
            has_apps=bool(agent.reconciler.wanted.apps or (observed and observed.containers)),
        )

    def _accept(self, wanted: Wanted, *arriving: _Opened) -> None:
        """One transaction: the targets, their floors, and what is told of them. Then the world may know."""
        agent = self.agent
        forgiven = frozenset[str]().union(*(agent.releases.forgiven(each.scope, wanted) for each in arriving))
        writes: list[Callable[[Transaction], None]] = [_forgive(app) for app in sorted(forgiven)]
        accepted = [self._accepted(each.target, wanted, forgiven, alone=len(arriving) == 1) for each in arriving]
        for each, new in zip(arriving, accepted, strict=True):
            writes.append(_put(new))
            unfinished = agent.rollout.unfinished(each.scope)
            if unfinished:
                writes.append(agent.journal.queue_ack(transition(unfinished.target, "superseded")))
            warnings = (*wanted.warnings, *ignored_keys(each.body))[:MOST_ERRORS]
            writes.append(agent.journal.queue_ack(transition(each.target, "accepted", warnings=warnings)))
        agent.journal.commit(*writes)
        for new in accepted:
            target = new.target
            log.info(
                "accepted",
                scope=target.scope,
                version=str(target.version),
                release=target.release,
                awaited=sorted(new.awaited),
            )
            agent.rollout.accept(new)
            agent.floors[target.scope] = Floor(target.version, target.digest)
        for app in forgiven:
            del agent.releases.bad[app]
        agent.want(wanted)
        agent.state_changed()
        for each in arriving:
            self._acknowledge(each.token)
        if len(arriving) == 1:
            self._judge_again(_other(arriving[0].scope))

    def _accepted(self, target: Target, wanted: Wanted, forgiven: frozenset[str], *, alone: bool) -> AcceptedTarget:
        """With the apps that must have reached their end before the target has. Of two together each has its own."""
        agent = self.agent
        observed = agent.reconciler.observed
        awaited = changed_apps(agent.reconciler.wanted, wanted)
        if not alone:
            owners = {app: wanted.apps[app].scope if app in wanted.apps else FLEET for app in awaited}
            awaited = frozenset(app for app in awaited if owners[app] == target.scope)
        if observed and not agent.reconciler.wanted.targets:
            awaited |= {c.app for c in observed.containers if c.revision.startswith(target.scope)}
        unfinished = agent.rollout.unfinished(target.scope)
        if unfinished:
            awaited |= unfinished.awaited
        return AcceptedTarget(target, agent.clock.now(), awaited | (forgiven & wanted.apps.keys()))

    def _refuse(self, ack: Ack, refused: Refused, scope: str, token: object) -> None:
        current = self.agent.rollout.targets.get(scope)
        have = Have(current.target.version, current.target.digest) if current else None
        self.agent.journal.tell_ack(
            Ack(
                "rejected",
                scope,
                ack.version,
                ack.digest,
                ack.release,
                code=refused.code,
                message=refused.message,
                errors=refused.problems[:MOST_ERRORS],
                current=have,
            )
        )
        if refused.code == "fork" and ack.version:
            version = {"epoch": ack.version.epoch, "revision": ack.version.revision}
            fields = {"scope": scope, **version, "digest": ack.digest, "message": refused.message}
            self.agent.journal.tell(Happening("target_fork", fields))
        self._acknowledge(token)

    def _acknowledge(self, token: object) -> None:
        if token is not None:
            self.agent.journal.acknowledge(token)


def _waiting(opened: _Opened, message: Received) -> _Waiting:
    return _Waiting(message, opened.scope, opened.target.version, opened.target.digest)


def _by_scope(waiting: Iterable[_Waiting]) -> dict[str, list[_Waiting]]:
    """The highest first."""
    ranked = sorted(waiting, key=_version, reverse=True)
    return {scope: [each for each in ranked if each.scope == scope] for scope in SCOPES}


def _other(scope: str) -> str:
    return DEVICE if scope == FLEET else FLEET


def _put(accepted: AcceptedTarget) -> Callable[[Transaction], None]:
    return lambda tx: tx.put_target(accepted)


def _forgive(app: str) -> Callable[[Transaction], None]:
    return lambda tx: tx.drop_bad(app)


def _version(waiting: _Waiting) -> Version:
    return waiting.version
