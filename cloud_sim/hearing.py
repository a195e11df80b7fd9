"""What comes up from devices: decoded, put on the roster, and kept."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from cloud_sim.clock import monotonic, now
from cloud_sim.connection import Arrived
from cloud_sim.database import Database
from cloud_sim.roster import Device, acked, born, died, forgotten, reported
from device_agent.model.errors import Refused
from device_agent.model.target import DEVICE, FLEET, Version
from device_agent.wire.commands import OK, Answer
from device_agent.wire.messages import SCHEMA, Head
from device_agent.wire.topics import ACK, EVENT, SESSION, STATE
from device_agent.wire.uplink import decode_ack, decode_event, decode_session, decode_state


class Hearing:
    """The devices, as far as they have made themselves heard."""

    def __init__(self, database: Database, tell: Callable[[str], None]) -> None:
        """Devices of an earlier day are known from the database, and offline until they are heard again."""
        self._database = database
        self._tell = tell
        self._devices: dict[str, Device] = {}
        for device, (at, body) in database.heard(STATE).items():
            try:
                message = decode_state(body)
            except Refused:
                # Written by another version: the device tells it again.
                continue
            known = reported(Device(device), (0, 0), message.state, message.agent)
            self._devices[device] = forgotten(_at(known, at))

    def devices(self) -> tuple[Device, ...]:
        return tuple(self._devices[name] for name in sorted(self._devices))

    def accepted(self, device: str | None) -> Iterator[Version]:
        """The versions that devices say they have of a scope: the fleet's (None), or that device's own."""
        for known in self._devices.values():
            have = known.told.get(FLEET if device is None else DEVICE)
            if have and device in (None, known.id):
                yield have.version

    def online(self) -> int:
        """How many are."""
        return sum(known.born for known in self._devices.values())

    def behind(self, device: str | None, version: Version) -> list[tuple[str, int]]:
        """Who has neither taken nor answered the target of that version: of the fleet (None), or that device.

        Devices that are online, each with its session.
        """
        scope, asked = (FLEET, self._devices.values()) if device is None else (DEVICE, self._one(device))
        return [(known.id, known.session) for known in asked if known.is_behind(scope, version)]

    def _one(self, device: str) -> Iterable[Device]:
        return (self._devices[device],) if device in self._devices else ()

    def silent(self) -> set[str]:
        """Known devices whose session has not been heard of on this connection."""
        return {name for name, known in self._devices.items() if not known.session}

    def forget(self) -> None:
        """A new connection: who is online is heard anew."""
        self._devices = {name: forgotten(device) for name, device in self._devices.items()}

    def hear(self, device: str, kind: str, message: Arrived) -> None:
        """One message. What cannot be read is told, and otherwise ignored: no device can stop a cloud."""
        if not message.payload:
            return
        at = now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        known = self._devices.get(device, Device(device))
        try:
            self._devices[device] = _at(self._heard(known, kind, message, at), at)
        except Refused as refused:
            self._tell(f"{device} sent a {kind} that cannot be read: {refused.message}")

    def answered(self, answer: Answer) -> None:
        """A device has answered `report`: it is online, and says what it has. What it said by itself counts more."""
        known = self._devices.get(answer.device, Device(answer.device))
        if known.session or answer.status != OK or not isinstance(answer.result, dict):
            return
        body = json.dumps({"schema": SCHEMA, "seq": 0, **answer.result}).encode()
        at = now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        try:
            state = decode_state(body)
            _same(state.head.device, known.id)
        except Refused as refused:
            self._tell(f"{known.id} sent a report that cannot be read: {refused.message}")
            return
        self._database.hear(known.id, STATE, at, body)
        here = born(known, state.head.session, state.state.have, state.agent)
        self._devices[known.id] = _at(reported(here, (here.session, 0), state.state, state.agent), at)

    def _heard(self, known: Device, kind: str, message: Arrived, at: str) -> Device:
        body = message.payload
        if kind == SESSION:
            session = decode_session(body)
            _same(session.device, known.id)
            if session.online:
                return born(known, session.session, session.have or {}, session.agent)
            return died(known, session.session, session.reason or "", monotonic(), retained=message.retained)
        if kind == STATE:
            state = decode_state(body)
            _same(state.head.device, known.id)
            self._database.hear(known.id, STATE, at, body)
            return reported(known, (state.head.session, state.head.seq), state.state, state.agent)
        if kind == ACK:
            told = decode_ack(body)
            self._enter(known, kind, told.head, at, body)
            if told.ack.version is not None:
                return acked(known, told.head.session, told.ack.scope, told.ack.version)
        elif kind == EVENT:
            self._enter(known, kind, decode_event(body).head, at, body)
        return known

    def _enter(self, known: Device, kind: str, head: Head, at: str, body: bytes) -> None:
        _same(head.device, known.id)
        self._database.enter(known.id, head.seq, kind, at, body)


def _at(device: Device, at: str) -> Device:
    return replace(device, heard_at=at)


def _same(named: str, topic: str) -> None:
    if named != topic:
        raise Refused("malformed", f"it names the device {named}")
