"""What becomes of a published target: each device's way to it, told by its acks and proven by its state."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from cloud_sim.cloud import Cloud, Published
from cloud_sim.database import Entry
from cloud_sim.roster import OFFLINE, Device
from device_agent.model.target import Json


class Outcome(StrEnum):
    """Of one device or of the whole. `nobody`: no device that it is for is online."""

    CONVERGED = "converged"
    FAILED = "failed"
    PENDING = "pending"
    OFFLINE = "offline"
    NOBODY = "nobody"


_ENDED_BADLY = ("rejected", "rolled_back", "superseded")


@dataclass(frozen=True, slots=True)
class Row:
    """How far one device has come. `since` is when its last ack was heard."""

    device: str
    presence: str
    outcome: Outcome
    verdict: str | None = None
    app: str | None = None
    reason: str | None = None
    since: str | None = None


class Following:
    """Follow one published target. `update` after everything that is heard."""

    def __init__(self, cloud: Cloud, published: Published) -> None:
        self.published = published
        self.rows: tuple[Row, ...] = ()
        self._cloud = cloud
        self._after = published.entry
        self._last: dict[str, Entry] = {}
        self._ended: dict[str, Entry] = {}

    def update(self) -> tuple[Entry, ...]:
        """The acks that are new."""
        heard = tuple(
            entry for entry in self._cloud.acks(self.published.device, after=self._after) if self._concerns(entry)
        )
        for entry in heard:
            self._after = entry.id
            self._last[entry.device] = entry
            if "app" not in entry.body and entry.body.get("verdict") in _ENDED_BADLY:
                self._ended[entry.device] = entry
        known = {device.id: device for device in self._cloud.devices()}
        names = sorted(known) if self.published.device is None else [self.published.device]
        shortfalls = self._cloud.shortfalls(names)
        self.rows = tuple(self._row(known.get(name, Device(name)), shortfalls[name]) for name in names)
        return heard

    @property
    def outcome(self) -> Outcome:
        """Of all that are online; a device that failed is waited with until the others have ended too."""
        outcomes = {row.outcome for row in self.rows if row.outcome is not Outcome.OFFLINE}
        if not outcomes:
            return Outcome.NOBODY
        for outcome in (Outcome.PENDING, Outcome.FAILED):
            if outcome in outcomes:
                return outcome
        return Outcome.CONVERGED

    def _concerns(self, entry: Entry) -> bool:
        body, published = entry.body, self.published
        if body.get("verdict") == "rejected" and "revision" not in body:
            # Nothing was believed of it (too large, no JSON, not signed): that it came after this one was published,
            # and on its topic, is all there is to go by.
            return body.get("scope") == published.scope
        return (body.get("scope"), body.get("epoch"), body.get("revision")) == (published.scope, *published.version)

    def _row(self, device: Device, shortfall: str | None) -> Row:
        row = Row(device.id, self._cloud.presence(device), Outcome.PENDING, reason=shortfall)
        if entry := self._last.get(device.id):
            row = replace(row, verdict=entry.body.get("verdict"), app=entry.body.get("app"), since=entry.at)
        if entry := self._ended.get(device.id):
            return replace(row, outcome=Outcome.FAILED, verdict=entry.body["verdict"], app=None, reason=why(entry.body))
        if shortfall is None:
            return replace(row, outcome=Outcome.CONVERGED)
        if row.presence == OFFLINE:
            return replace(row, outcome=Outcome.OFFLINE, reason="takes it when it connects")
        said = why(entry.body) if (entry := self._last.get(device.id)) else ""
        return replace(row, reason=said or shortfall)


def why(ack: Mapping[str, Json]) -> str:
    """An ack's reason in one line: code, message, the first places that are wrong."""
    verdict = ack.get("verdict")
    parts = [str(ack[key]) for key in ("code", "cause", "message") if ack.get(key)]
    parts += [f"{error.get('pointer')}: {error.get('message')}" for error in ack.get("errors") or ()]
    if verdict == "superseded" and not parts:
        parts = ["by a newer target"]
    if ack.get("code") == "stale" and (have := ack.get("have")):
        parts.append(f"it has {have.get('epoch')}.{have.get('revision')}: publish again, which will go above that")
    if ack.get("attempt"):
        parts.append(
            f"attempt {ack['attempt']}" + (f", next at {ack['next_try_at']}" if ack.get("next_try_at") else "")
        )
    return "; ".join(parts)
