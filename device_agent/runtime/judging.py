"""What becomes of a target that could be read: it is accepted, refused, or a repetition.

What is refused for what it says is judged again when the other scope's target has changed: a device's target may extend
an app that the fleet's next one brings. So the order in which the two arrive means nothing.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from device_agent.core.intake import Standing, Wanted, admit
from device_agent.model.errors import Refused, StoreFull
from device_agent.model.target import DEVICE, FLEET, Target, Version
from device_agent.runtime.acceptance import accept
from device_agent.runtime.documents import Documents, Opened
from device_agent.runtime.refusal import refuse
from device_agent.runtime.rollout import transition
from device_agent.wire.target import check_keys

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

_FOR_ITS_HEADER = frozenset(("scope", "expired", "stale", "fork"))


@dataclass(slots=True)
class Judging:
    agent: "Agent"
    documents: Documents
    unstored: list[Opened] = field(default_factory=list)
    """Accepted, but the disk is full: not acknowledged, tried again."""
    _told_stale: set[tuple[str, Version]] = field(default_factory=set)
    _refused: dict[str, Opened] = field(default_factory=dict)
    """Scope → the highest that was refused for what it says, since the last message of that scope."""

    def connected(self) -> None:
        self._told_stale.clear()

    def disconnected(self) -> None:
        """What was not acknowledged comes again."""
        self.unstored.clear()
        self._refused.clear()

    def heard(self, scope: str) -> None:
        """Something has arrived for a scope: what was refused of it before is past."""
        self._refused.pop(scope, None)

    def tick(self) -> None:
        """Try again what the disk had no room for."""
        if self.unstored and self.agent.journal.may_write:
            again, self.unstored = self.unstored, []
            for opened in again:
                self.decide(opened)

    def decide(self, opened: Opened) -> bool:
        """False when it is refused and a lower version may still be good."""
        try:
            wanted = self.judge(opened)
        except Refused as refused:
            stale = refused.code == "stale"
            key = (opened.scope, opened.target.version)
            if stale and key in self._told_stale:
                self.agent.journal.acknowledge(opened.token)
                return True
            if stale:
                self._told_stale.add(key)
            elif refused.code not in _FOR_ITS_HEADER:
                if self._decide_together(opened):
                    return True
                self._refused.setdefault(opened.scope, replace(opened, token=None))
            refuse(self.agent, transition(opened.target, "rejected"), refused, opened.scope, opened.token)
            return stale
        if wanted is None:
            self.agent.journal.acknowledge(opened.token)
            return True
        self._try_to_accept(wanted, opened)
        return True

    def _decide_together(self, opened: Opened) -> bool:
        """Two targets that are good only with each other: each was refused beside what there is of the other scope."""
        other = self._refused.get(_other(opened.scope))
        if other is None:
            return False
        standing, now = self._standing(), self.agent.clock.now()
        try:
            fresh = all(admit(each.target, each.scope, standing, now) for each in (opened, other))
            wanted = self.documents.wanted_after(standing, opened.target, other.target) if fresh else None
        except Refused:
            return False
        if wanted is None:
            return False
        self._refused.clear()
        self._try_to_accept(wanted, other, opened)
        return True

    def _try_to_accept(self, wanted: Wanted, *opened: Opened) -> None:
        try:
            self._accept(wanted, *opened)
        except StoreFull as full:
            self.agent.journal.full(full)
            self.unstored.extend(opened)

    def _accept(self, wanted: Wanted, *opened: Opened) -> None:
        accept(self.agent, wanted, *opened)
        if len(opened) == 1:
            self._judge_again(_other(opened[0].scope))

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
        opened = self.documents.from_file(payload)
        wanted = self.judge(opened)
        if wanted is None:
            return "duplicate", opened.target
        self._accept(wanted, opened)
        return "accepted", opened.target

    def would_want(self, payload: bytes) -> Wanted:
        """What this device would want if it accepted a target. Raises `Refused`."""
        return self.judge(self.documents.from_file(payload)) or self.agent.reconciler.wanted

    def judge(self, opened: Opened) -> Wanted | None:
        """What would be wanted; None for a repetition. Raises `Refused`."""
        standing = self._standing()
        if not admit(opened.target, opened.scope, standing, self.agent.clock.now()):
            return None
        check_keys(opened.body)
        return self.documents.wanted_after(standing, opened.target)

    def _standing(self) -> Standing:
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


def _other(scope: str) -> str:
    return DEVICE if scope == FLEET else FLEET
