"""Commands that come over MQTT: judged, recorded, carried out at most once, answered.

What changes something is on disk as begun before its PUBACK and before it is carried out; its answer is on disk before
it is told. So one that comes again, from the broker or from whoever asked, is answered from the record. One that a
crash has left begun is answered with `interrupted`, and never carried out again: whoever asked looks, and decides.
What changes nothing is not recorded, and written nowhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from device_agent.core.commands import check_scope, check_time, to_forget
from device_agent.model.command import Command
from device_agent.model.errors import Refused, StoreFull
from device_agent.model.memory import CommandRecord
from device_agent.model.target import Json
from device_agent.ports import Received
from device_agent.runtime.answers import EXPIRY_S, Outgoing
from device_agent.runtime.commands import Reply, error, is_known, refusal, run, unknown
from device_agent.runtime.journal import Write
from device_agent.wire.commands import (
    EFFECTS,
    RUNNING,
    VERBS,
    correlation_id,
    encode_answer,
    read_command,
    spread_s,
)

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

MOST_EARLY = 64
"""Commands that wait for the first look. More than the broker sends without a PUBACK."""
LARGEST_ANSWER = 16 * 1024
"""What is recorded of an answer, in bytes. A larger one is told once, and not again."""
MOST_CORRELATION = 256
"""Bytes of Correlation Data: they are kept with what was carried out, and sent back."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Asked:
    """Where an answer goes, and when."""

    verb: str
    id: str | None
    reply_to: str
    correlation: bytes | None
    after_s: float


@dataclass(slots=True)
class RemoteCommands:
    agent: "Agent"
    records: dict[str, CommandRecord] = field(default_factory=dict)
    """By id, the oldest first."""
    _early: list[tuple[Received, str]] = field(default_factory=list)
    """What came before the first look: not acknowledged."""
    _begun: set[str] = field(default_factory=set)
    """Ids of what has not been answered for good yet, by this process."""

    def remember(self, records: tuple[CommandRecord, ...]) -> None:
        """At the start. What was asked a short time ago is answered (again): its answer may never have been sent."""
        recent = self.agent.clock.now() - timedelta(seconds=EXPIRY_S)
        for record in records:
            known = record
            asked = _Asked(record.verb, record.id, record.reply_to, record.correlation, 0.0)
            if record.answer is None:
                words = "the agent was ended while it ran: look at what it has done before it is sent again"
                known = replace(record, answer=self._encoded(asked, error("interrupted", words)))
            self.records[record.id] = known
            if known.answer is not None and record.received_at > recent:
                self._send(asked, known.answer)

    def received(self, message: Received, verb: str) -> None:
        """One message on a command's topic. It waits for the first look at the engine, which some commands need."""
        if len(self._early) < MOST_EARLY:
            self._early.append((message, verb))
        self.tick()

    def tick(self) -> None:
        if self.agent.reconciler.observed is not None or self.agent.reconciler.away:
            early, self._early = self._early, []
            for message, verb in early:
                self._judge(message, verb)

    def disconnected(self) -> None:
        """What waits was not acknowledged: the broker sends it again."""
        self._early.clear()

    def _judge(self, message: Received, verb: str) -> None:
        """It is answered, whatever it is, and acknowledged."""
        topics, correlation = self.agent.options.topics, message.correlation
        reply_to = message.response_topic or topics.response
        if not topics.may_answer(reply_to):
            reply_to = topics.response
        given = correlation if correlation is None or len(correlation) <= MOST_CORRELATION else None
        asked = _Asked(verb, correlation_id(correlation), reply_to, given, self._after_s(message.topic))
        try:
            command = read_command(
                message.payload,
                message.content_type,
                correlation,
                self.agent.options.limits,
                self.agent.intake.documents.trusted,
            )
            asked = replace(asked, id=command.id)
            self._check_origin(command, verb, message.topic)
            self._check_delivery(message)
            if command.id not in self.records:
                self._check(command, verb)
        except Refused as refused:
            self._refuse(message, asked, refused)
            return
        if command.id in self.records:
            self._again(message, asked, command)
        elif verb in EFFECTS:
            self._carry_out(message, asked, command)
        else:
            self._look(message, asked, command)

    def _after_s(self, topic: str) -> float:
        topics = self.agent.options.topics
        return spread_s(topics.fleet, topics.device) if topics.is_broadcast(topic) else 0.0

    def _check_origin(self, command: Command, verb: str, topic: str) -> None:
        """Raises `Refused`: `scope` or `signature`."""
        options = self.agent.options
        if command.signed is not None:
            device = None if options.topics.is_broadcast(topic) else options.identity.device
            check_scope(command.signed, verb, options.identity.fleet, device)
        elif options.trusted is not None and verb not in options.unsigned:
            words = ", ".join(sorted(options.unsigned)) or "nothing"
            raise Refused("signature", f"not signed, and keys are configured: unsigned this device takes {words}")

    def _check_delivery(self, message: Received) -> None:
        """Raises `Refused`: `response_topic`, `malformed` or `retained`."""
        topics, wished = self.agent.options.topics, message.response_topic
        if wished and not topics.may_answer(wished):
            words = f"a device answers to {topics.response} and under its fleet's reply/, not to {wished}"
            raise Refused("response_topic", words)
        if message.correlation and len(message.correlation) > MOST_CORRELATION:
            raise Refused(
                "malformed", f"{len(message.correlation)} bytes of Correlation Data: at most {MOST_CORRELATION}"
            )
        if message.retained:
            words = "a command must not be retained: it would come again and again. Clear it from its topic"
            raise Refused("retained", words)

    def _check(self, command: Command, verb: str) -> None:
        """Raises `Refused`: `expired`, `clock`, `unknown` or `forbidden`."""
        check_time(command, self.records.values(), self.agent.clock.now())
        if verb not in VERBS or not is_known(verb):
            raise unknown(verb)
        if verb not in self.agent.options.commands:
            raise Refused("forbidden", f"this device's DEVICE_AGENT_COMMANDS does not allow {verb} over MQTT")

    def _refuse(self, message: Received, asked: _Asked, refused: Refused) -> None:
        log.warning("command refused", verb=asked.verb, id=asked.id, code=refused.code, why=refused.message)
        self._send(asked, self._encoded(asked, refusal(refused)))
        self._acknowledge(message)

    def _again(self, message: Received, asked: _Asked, command: Command) -> None:
        record = self.records[command.id]
        if record.request != command.request(asked.verb):
            words = f"the id {command.id!r} was used for another command ({record.verb}): a new one needs a new id"
            self._refuse(message, asked, Refused("conflict", words))
            return
        answer = record.answer or self._encoded(asked, {"status": RUNNING, "result": None})
        self._send(asked, answer)
        self._acknowledge(message)

    def _look(self, message: Received, asked: _Asked, command: Command) -> None:
        """What changes nothing. It is not in the way of what waits for the disk: it is acknowledged at once."""
        self._acknowledge(message)
        if command.id in self._begun:
            self._send(asked, self._encoded(asked, {"status": RUNNING, "result": None}))
            return
        self._begun.add(command.id)
        log.info("command", verb=asked.verb, id=asked.id)
        run(self.agent, asked.verb, command.args, self._tell(asked), command.id)

    def _carry_out(self, message: Received, asked: _Asked, command: Command) -> None:
        last = max((record.number for record in self.records.values()), default=0)
        record = CommandRecord(
            command.id,
            last + 1,
            asked.verb,
            command.request(asked.verb),
            self.agent.clock.now(),
            asked.reply_to,
            asked.correlation,
            issued_at=command.signed.issued_at if command.signed else None,
            expires_at=command.expires_at if command.signed else None,
        )
        try:
            outdated = to_forget(self.records.values(), record, self._begun)
            self.agent.journal.commit(
                *(_drop(id_) for id_ in outdated),
                _put(record),
            )
        except Refused as refused:
            self._refuse(message, asked, refused)
            return
        except StoreFull as full:
            # Not begun, and not remembered: sent again, it is a new one.
            self._refuse(message, asked, Refused("disk_full", f"{full}: free some space and send it again"))
            return
        for id_ in outdated:
            del self.records[id_]
        self.records[command.id] = record
        self._begun.add(command.id)
        self.agent.journal.acknowledge(message.token)
        log.info("command", verb=asked.verb, id=asked.id)
        run(self.agent, asked.verb, command.args, self._record(asked), command.id)

    def _tell(self, asked: _Asked) -> Reply:
        def reply(answer: Mapping[str, Json]) -> None:
            if answer["status"] != RUNNING and asked.id is not None:
                self._begun.discard(asked.id)
            self._send(asked, self._encoded(asked, answer))

        return reply

    def _record(self, asked: _Asked) -> Reply:
        """An answer is told once it is on disk, and with it what the command has changed in the database."""

        def reply(answer: Mapping[str, Json]) -> None:
            body = self._encoded(asked, answer)
            if answer["status"] != RUNNING and asked.id in self.records:
                self._begun.discard(asked.id)
                kept = body if len(body) <= LARGEST_ANSWER else self._too_large(asked)
                record = self.records[asked.id] = replace(self.records[asked.id], answer=kept)
                self.agent.journal.write(_put(record))
            self.agent.journal.chore(lambda: self._send(asked, body))

        return reply

    def _encoded(self, asked: _Asked, answer: Mapping[str, Json]) -> bytes:
        return encode_answer(self.agent.options.identity.device, asked.verb, asked.id, self.agent.clock.now(), answer)

    def _too_large(self, asked: _Asked) -> bytes:
        return self._encoded(asked, error("too_large", "it was carried out; its answer is too large to be told"))

    def _send(self, asked: _Asked, body: bytes) -> None:
        now = self.agent.clock.monotonic()
        self.agent.link.answers.add(
            Outgoing(
                asked.reply_to,
                body,
                self._too_large(asked),
                asked.correlation,
                now + asked.after_s,
                now + EXPIRY_S,
            )
        )

    def _acknowledge(self, message: Received) -> None:
        self.agent.journal.transport.acknowledge(message.token)


def _put(record: CommandRecord) -> Write:
    return lambda tx: tx.put_command(record)


def _drop(id_: str) -> Write:
    return lambda tx: tx.drop_command(id_)
