"""Whether a command is for this device and of this time, and for how long it is remembered.

Whoever holds a signed command, the broker included, can give it again until it expires. So one that was carried out is
remembered until then. "Then" is told by commands that were signed later, not by the device's clock: one that is set
back lets nothing in again.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from device_agent.model.command import Command, Signed
from device_agent.model.errors import Problem, Refused
from device_agent.model.memory import CommandRecord

SKEW = timedelta(minutes=5)
"""By so much the clocks of those who sign, and the device's, may differ."""
MOST_RECORDS = 256
OLDEST = timedelta(days=1)
"""Records are dropped, when a new one comes, beyond so many and after so long. Brokers keep commands for minutes."""


def check_scope(signed: Signed, verb: str, fleet: str, device: str | None) -> None:
    """`verb` and, but for a broadcast, `device` are the topic's. Raises `Refused` (`scope`)."""
    for pointer, says, arrived in (
        ("/verb", signed.verb, verb),
        ("/scope/fleet", signed.fleet, fleet),
        ("/scope/device", signed.device, device),
    ):
        if says != arrived:
            words = f"was signed for {says or 'every device'}, and came for {arrived or 'every device'}"
            raise Refused("scope", f"it {words}", (Problem(pointer, words),))


def check_time(command: Command, records: Iterable[CommandRecord], now: datetime) -> None:
    """Raises `Refused`: `expired`, or `clock` for what is signed and of the future."""
    if command.signed is None:
        known, whose = now, "this device's clock"
    else:
        if command.signed.issued_at > now + SKEW:
            words = f"it was issued at {command.signed.issued_at.isoformat()}, and here it is {now.isoformat()}"
            raise Refused("clock", f"{words}: one of the two clocks is wrong, perhaps this device's")
        least = _least_time(records)
        known, whose = (least, "a later command") if least and least > now else (now, "this device's clock")
    if command.expires_at is not None and command.expires_at <= known:
        late = (known - command.expires_at).total_seconds()
        raise Refused("expired", f"it expired {late:.0f} s ago, by {whose}")


def to_forget(records: Collection[CommandRecord], arriving: CommandRecord, unanswered: Collection[str]) -> list[str]:
    """Ids of the records that make room for a new one, the oldest first. Raises `Refused` (`busy`): too few may go."""
    least = _least_time((*records, arriving))
    done = [
        record
        for record in records
        if record.id not in unanswered and (record.expires_at is None or (least and record.expires_at <= least))
    ]
    surplus = len(records) + 1 - MOST_RECORDS
    if surplus > len(done):
        words = "send it again later, and let commands expire sooner"
        raise Refused("busy", f"{MOST_RECORDS} commands are remembered that have not expired or not ended: {words}")
    oldest = arriving.received_at - OLDEST
    return [record.id for at, record in enumerate(done) if at < surplus or record.received_at < oldest]


def _least_time(records: Iterable[CommandRecord]) -> datetime | None:
    """It is at least so late: those who signed the commands that were taken said so. None: nobody did.

    The newest of them is never forgotten, because it expires after it was issued: so this never goes back.
    """
    issued = [record.issued_at for record in records if record.issued_at is not None]
    return max(issued) - SKEW if issued else None
