"""How one client's connections follow each other: how long it waits for the next, and when it asks for a new session.

Pure but for chance, and without paho: `cloud-sim simulate` decides by it too.
"""

import random

from device_agent.adapters.broker import Pace
from device_agent.adapters.mqtt_reasons import DUPLICATE, LOST, REFUSED, Failed
from device_agent.ports import Disconnected

# So many connections in a row that came about, and were neither let in nor refused: the broker may be unable to give
# back the session, as a RabbitMQ cluster is when a node is lost that has the session's queue. A new one it can give.
# The next one asks for that; only every third, because to a broker that has too much to do it is even more.
_UNANSWERED = 2
_DOUBLINGS = 10
"""Past every longest wait."""


class Patience:
    """Told of each connection in turn: `tried`, `let_in` where it came to that, and `ended`."""

    __slots__ = ("_brief", "_client_id", "_failures", "_pace", "_refusals", "_unanswered")

    def __init__(self, client_id: str, pace: Pace) -> None:
        self._client_id = client_id
        self._pace = pace
        self._failures = self._refusals = self._brief = self._unanswered = 0

    @property
    def asks_anew(self) -> bool:
        """Whether the next connection is to ask for a new session."""
        return self._unanswered % (_UNANSWERED + 1) == _UNANSWERED

    def tried(self) -> None:
        """The broker was reached, and is asked."""
        self._unanswered += 1

    def let_in(self) -> None:
        """The subscriptions were granted."""
        self._unanswered = 0

    def ended(self, ended: Failed, stood_s: float | None) -> Disconnected:
        """What to tell, and when to try again. `stood_s`: how long the subscriptions stood; None: never.

        After a connection that lasted the wait is spread, because a broker's end ends those of all devices at once.
        After one that did not, or did not come about: full jitter, twice as long each time.
        """
        pace = self._pace
        stood = stood_s is not None and stood_s >= pace.stood
        if stood:
            self._failures = self._brief = self._refusals = 0
        elif stood_s is not None and ended.by_broker and not ended.elsewhere:
            self._brief += 1
        else:
            self._brief = 0
        if ended.busy or ended.elsewhere or ended.code in (REFUSED, DUPLICATE):
            self._unanswered = 0
        code, message = ended.code, ended.message
        if self.asks_anew:
            message += " (a new session is asked for)"
        if self._brief >= pace.suspicious and code == LOST:
            code = DUPLICATE
            message = (
                f"{self._brief} connections in a row were closed soon: is {self._client_id} used by another client?"
            )
        if ended.busy:
            retry_s = random.uniform(pace.longest / 2, pace.longest)
        elif code == DUPLICATE:
            retry_s = random.uniform(pace.duplicate, 3 * pace.duplicate)
        elif code == REFUSED:
            longest = min(pace.refused_longest, pace.refused * 2 ** min(self._refusals, _DOUBLINGS))
            retry_s = random.uniform(longest / 2, longest)
            self._refusals += 1
        else:
            self._failures = min(self._failures + 1, _DOUBLINGS)
            # One that is sent to another broker is expected there.
            longest = pace.spread if stood and not ended.elsewhere else pace.first * 2**self._failures
            retry_s = random.uniform(pace.first, max(pace.first, min(pace.longest, longest)))
        return Disconnected(code, message, retry_s)
