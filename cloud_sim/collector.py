"""The thread that empties the connection's queue: it learns, remembers, and gives the broker back what it has lost.

All state is guarded by one condition, which is notified whenever something was heard, and once a second, because time
alone changes things too (a lost device becomes an offline one).
"""

import contextlib
import secrets
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import TypeVar

from cloud_sim.clock import monotonic
from cloud_sim.connection import Arrived, Broker, Connection, Denied, Down, Happened, Unreachable, Unsubscribed, Up
from cloud_sim.database import Database
from cloud_sim.hearing import Hearing
from cloud_sim.numbering import next_version
from cloud_sim.republishing import Republishing, read
from device_agent.model.command import Command
from device_agent.model.errors import Refused
from device_agent.model.target import Target, Version
from device_agent.wire.commands import REPORT, Answer, decode_answer, encode_command
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.log import LogMessage, decode_log
from device_agent.wire.target import read_target
from device_agent.wire.topics import LOG, RESPONSE, FleetTopics

SETTLE_S = 0.1
"""How long it must be quiet after the marker: some brokers send what is retained from another thread."""
SILENT_S = 3.0
"""A broker that has sent nothing of what it retains for so long, and no marker, is not waited for any longer."""
TICK_S = 1.0
ROLL_CALL_EXPIRY_S = 60
MOST_LOGS = 1000
"""Messages with log lines that wait to be looked at; the oldest go."""
BATCH = 500
"""Messages in one transaction."""

_T = TypeVar("_T")


class Collector:
    """Started by `open`. Its methods may be called from any thread."""

    def __init__(
        self,
        broker: Broker,
        topics: FleetTopics,
        client_id: str,
        database: Database,
        tell: Callable[[str], None],
        trusted: TrustedKeys | None = None,
    ) -> None:
        """`trusted`: what the broker retains counts only when it is signed by these keys."""
        self.changed = threading.Condition(threading.RLock())
        self.hearing = Hearing(database, tell)
        self.down: Down | None = None
        self.ticks = 0
        self._topics = topics
        self._database = database
        self._tell = tell
        self._trusted = trusted
        self.reply_to = topics.reply(client_id)
        """Where devices answer commands. What this cloud sends there itself is its marker."""
        self.answers: dict[str, dict[str, Answer]] = {}
        """By the ids of commands that are under way, and by device: the newest answer."""
        self.logs: deque[LogMessage] = deque(maxlen=MOST_LOGS)
        """What devices have sent of logs that are listened to, in the order in which it came."""
        subscriptions = (*topics.targets, *topics.subscriptions())
        if broker.version != "5":
            subscriptions += topics.subscriptions(RESPONSE)
        self.connection = Connection(broker, client_id, subscriptions=subscriptions, marker=self.reply_to)
        self._republishing = Republishing(self.connection, topics, database, self.hearing, tell)
        self._retained: dict[str | None, Target] = {}
        self._learned = False
        self._sent_at: float | None = None
        """When the broker last let us in, was asked for more, or sent what it retains. None: there is no connection."""
        self._cut_short = 0
        """Connections that ended before they had sent everything."""
        self._marked = False
        self._by_name: set[str] = set()
        """Devices whose topics are subscribed to one by one."""
        self._roll_call = f"cloud-sim-{secrets.token_hex(6)}"
        """The id of the commands that ask who is there."""
        self._called = False
        """Whether they were sent on this connection."""
        self._failure: Exception | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cloud-collector", daemon=True)

    def listen(self, topic: str) -> None:
        """Hear what devices send there, from now on."""
        self.connection.subscribe(topic)

    def open(self) -> None:
        self.connection.open()
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self.connection.close()
        if self._thread.is_alive():
            self._thread.join(2 * TICK_S)

    def await_learned(self, timeout: float) -> None:
        """Until connected, and all that the broker retains is known. Raises `Denied` or `Unreachable`.

        `timeout`: seconds from now, and anew from each retained message, as long as one connection brings them.
        """
        began, cut_short = monotonic(), self._cut_short

        def over() -> bool:
            # A connection that breaks again and again before it has sent everything would be waited for without end.
            sending = self._sent_at is not None and self._cut_short == cut_short
            since = max(began, self._sent_at or began) if sending else began
            return self._learned or self._denied is not None or monotonic() > since + timeout

        broker = self.connection.broker
        with self.changed:
            while not self.wait_for(over, TICK_S):
                pass
            if self._learned:
                return
            if self._denied is not None:
                raise Denied(self._denied)
            if self._cut_short != cut_short:
                raise Unreachable(f"the connection to the broker {broker} was lost while it sent what it retains")
            if self._sent_at is not None:
                raise Unreachable(f"the broker {broker} is still sending what it retains")
        why = broker.probe() or "it accepts connections, and does not answer"
        raise Unreachable(f"cannot reach the broker {broker}: {why}")

    @property
    def _denied(self) -> str | None:
        """Why the broker does not let us in."""
        return self.down.reason if self.down is not None and self.down.denied else None

    def wait_for(self, check: Callable[[], _T], timeout: float) -> _T:
        """Until `check` says something true, or time is over: its last answer."""

        def checked() -> _T:
            if self._failure:
                raise RuntimeError("cloud-sim's collector has stopped") from self._failure
            return check()

        with self.changed:
            return self.changed.wait_for(checked, timeout)

    def targets(self) -> dict[str | None, Target]:
        """The newest targets, by device, the fleet's under None: the database's or, when not older, the broker's.

        Of two equal versions the broker's, because that is what the devices get.
        """
        with self.changed:
            newest = self._owned()
            for device, retained in self._retained.items():
                if device not in newest or retained.version >= newest[device].version:
                    newest[device] = retained
            return newest

    def next_version(self, device: str | None) -> Version:
        with self.changed:
            own, retained = self._owned().get(device), self._retained.get(device)
            accepted = self.hearing.accepted(device)
            return next_version(own.version if own else None, retained.version if retained else None, accepted)

    def owns(self, device: str | None) -> bool:
        """Whether the scope's newest target is in the database, and no device has a newer one."""
        with self.changed:
            own = self._owned().get(device)
            return own is not None and self.next_version(device) == (own.version.epoch, own.version.revision + 1)

    def _owned(self) -> dict[str | None, Target]:
        return {device: read(body) for device, body in self._database.owned().items()}

    def _run(self) -> None:
        try:
            while not self._closing.is_set():
                self._collect(self._take())
        except Exception as error:  # noqa: BLE001 - told to every caller that waits, who would wait for ever otherwise
            with self.changed:
                self._failure = error
                self.changed.notify_all()

    def _take(self) -> list[Happened]:
        """What has happened: at least one thing, or nothing for as long as nothing may mean something."""
        queue = self.connection.happened
        batch: list[Happened] = []
        try:
            batch.append(queue.get(timeout=TICK_S if self._learned else SETTLE_S))
            while len(batch) < BATCH:
                batch.append(queue.get_nowait())
        except Empty:
            pass
        return batch

    def _collect(self, batch: list[Happened]) -> None:
        with self.changed:
            with self._database.transaction():
                for happened in batch:
                    self._heard(happened)
            if self._sent_at is not None and any(map(_from_before, batch)):
                # Not before the database has it: that may take longer than anything here.
                self._sent_at = monotonic()
            quiet = not batch and self._marked
            late = self._sent_at is not None and monotonic() > self._sent_at + SILENT_S
            asks = quiet and (self._ask_by_name() or self._call_the_roll()) and not late
            if self._sent_at is not None and not self._learned and not asks and (quiet or late):
                self._learned = True
                if not quiet:
                    self._tell(
                        f"the broker {self.connection.broker} has sent nothing more for {SILENT_S:g} s, and has not "
                        "said that this is all it retains: devices and what they told may be missing"
                    )
                self._call_the_roll()
                self._republishing.give_back(self._retained)
            if self._learned:
                self._republishing.remind(self._retained)
            self.ticks += 1
            self.changed.notify_all()

    def _ask_by_name(self) -> bool:
        """For what is retained of known devices, and no wildcard has brought (RabbitMQ's never do). False: of none."""
        silent = self.hearing.silent() - self._by_name
        if silent:
            self._by_name |= silent
            for topics in map(self._topics.of, sorted(silent)):
                for topic in (topics.session, topics.state, topics.device_target):
                    self.connection.subscribe(topic)
            self._mark()
        return bool(silent)

    def _call_the_roll(self) -> bool:
        """Ask the devices themselves that are still silent: another node of a cluster retains what they said.

        False: none, or they were asked before.
        """
        silent = [] if self._called else sorted(self.hearing.silent())
        self._called = True
        command = encode_command(Command(self._roll_call, {}))
        with contextlib.suppress(Denied, Unreachable):
            for topics in map(self._topics.of, silent):
                self.connection.publish(
                    topics.command(REPORT),
                    command,
                    retain=False,
                    expiry_s=ROLL_CALL_EXPIRY_S,
                    reply_to=self.reply_to,
                )
        if silent:
            self._mark()
        return bool(silent)

    def _mark(self) -> None:
        """What is retained has come when this has."""
        self._marked = False
        if self._sent_at is not None:
            self._sent_at = monotonic()
        with contextlib.suppress(Denied, Unreachable):
            self.connection.publish(self.reply_to, b"", retain=False)

    def _heard(self, happened: Happened) -> None:
        match happened:
            case Up():
                self.down, self._sent_at, self._learned, self._marked = None, monotonic(), False, False
                self._called, self._retained = False, {}
                self.hearing.forget()
            case Down():
                if self._learned and not self._closing.is_set():
                    self._tell(happened.reason)
                if self._sent_at is not None and not self._learned:
                    self._cut_short += 1
                self.down, self._sent_at, self._learned = happened, None, False
            case Unsubscribed():
                self._tell(happened.reason)
            case Arrived(topic=self.reply_to, payload=b""):
                self._marked = True
            case Arrived():
                self._arrived(happened)

    def _arrived(self, message: Arrived) -> None:
        up = self._topics.parse_up(message.topic)
        if message.topic == self.reply_to or (up and up[1] == RESPONSE):
            self._answered(message)
        elif up and up[1] == LOG:
            self._told_of_a_log(message)
        elif up:
            self.hearing.hear(*up, message)
        else:
            self._target_seen(self._topics.device_of(message.topic), message)

    def _answered(self, message: Arrived) -> None:
        """An answer of a device. One that nobody waits for is another cloud's, or too late."""
        try:
            answer = decode_answer(message.payload)
        except Refused as refused:
            self._tell(f"what came on {message.topic} is no answer: {refused.message}")
            return
        waiting = self.answers.get(answer.id or "")
        if answer.id == self._roll_call:
            self.hearing.answered(answer)
        elif waiting is not None:
            waiting[answer.device] = answer
        elif answer.id is None and self.answers:
            # MQTT 3.1.1 has no Correlation Data: a device that cannot read a command cannot say which one it was.
            self._tell(f"{answer.device} could not read a command ({answer.code}): {answer.message}")

    def _told_of_a_log(self, message: Arrived) -> None:
        try:
            log = decode_log(message.payload)
        except Refused as refused:
            self._tell(f"what came on {message.topic} are no log lines: {refused.message}")
            return
        if log.id in self.answers:
            self.logs.append(log)

    def _target_seen(self, device: str | None, message: Arrived) -> None:
        if not message.payload:
            self._retained.pop(device, None)
            return
        try:
            # What this cloud published itself needs no proof, whatever keys it was signed with then.
            ours = message.payload == self._database.owned().get(device)
            target = read_target(message.payload, message.content_type, trusted=None if ours else self._trusted)
        except Refused as refused:
            self._foreign(device, message.topic, refused.message)
            return
        if (target.fleet, target.device) == (self._topics.fleet, device):
            self._retained[device] = target
        else:
            self._foreign(device, message.topic, f"it is for {target.fleet}/{target.device}")

    def _foreign(self, device: str | None, topic: str, why: str) -> None:
        """Somebody's message that no device accepts: as if there were none, so that ours is published again."""
        self._retained.pop(device, None)
        self._tell(f"what the broker retains on {topic} is no target for it: {why}")


def _from_before(happened: Happened) -> bool:
    """Retained: what devices say just now does not make what they said before complete."""
    return isinstance(happened, Arrived) and happened.retained
