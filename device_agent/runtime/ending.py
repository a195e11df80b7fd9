"""What SIGTERM begins: the step in the middle is finished, the link says farewell, the store is closed."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

STOP_S = 6.0
"""How long the step in the middle may take at SIGTERM. A container that is being stopped for its replacement is killed
then, whatever its grace period: else the agent would be gone, and neither of the two would run."""
HURRY_S = 2.0
"""How long the replacement may then take to start. With the farewell all is less than the 10 s that engines give."""
LAST_LOOK_S = 1.0
"""How long to look, before the end, at what the step in the middle has done: for as long as the agent is away the state
tells it. All that precedes the farewell takes no longer by it."""
FAREWELL_S = 1.5

log = structlog.get_logger()


@dataclass(slots=True)
class Ending:
    agent: "Agent"
    due: float | None = None
    """When what still goes on is hurried, or cut off; None: nobody has asked to stop."""
    finished: bool = False
    _hurried: bool = False
    _stirred: bool = False
    """Something was in the middle: what was seen last is not what is there."""
    _looking: bool = False
    """The last look is on its way."""

    def begin(self) -> None:
        """No new step from now on. Asked for again it changes nothing."""
        if self.due is None:
            log.info("stopping", next="the step in the middle is finished; applications keep running")
            self.due = self.agent.clock.monotonic() + STOP_S
            self._stirred = self.agent.reconciler.acting.busy
            self.agent.reconciler.stop()

    def tick(self) -> None:
        if self.due is None:
            return
        now = self.agent.clock.monotonic()
        if not self.agent.reconciler.acting.busy:
            if not self._stirred or self._has_looked(now, self.due):
                self._finish()
        elif now >= self.due and not self._hurried:
            self._hurried = True
            self.due = now + HURRY_S
            self.agent.reconciler.acting.hurry()
        elif now >= self.due:
            self._finish()

    def _has_looked(self, now: float, due: float) -> bool:
        """Whether what has been done was looked at, or there is no time left for that."""
        looks = self.agent.reconciler.looks
        if self._looking:
            return not looks.flying or now >= due
        if not looks.flying:  # one that began before would tell too little
            self._looking, self.due = True, min(due, now + LAST_LOOK_S)
            looks.wake(deep=True)
            looks.tick()
        return now >= due

    def _finish(self) -> None:
        agent = self.agent
        agent.stopping.set()
        agent.journal.delete_confirmed(now=True)
        agent.journal.flush()
        agent.link.report(agent.current.read(), agent.host.figures, last=True)
        agent.link.stop(FAREWELL_S)
        agent.store.close()
        self.finished = True
