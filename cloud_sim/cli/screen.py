"""What is shown: tables for people, plain lines for pipes, one JSON object a line for programs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cloud_sim.cloud import Cloud, Published
from cloud_sim.database import Entry
from cloud_sim.diff import Change
from cloud_sim.following import Following, Outcome, Row, why
from cloud_sim.roster import LOST, OFFLINE, ONLINE, Device
from device_agent.model.report import Have
from device_agent.model.target import Json

_STYLES = {
    Outcome.CONVERGED: "green",
    Outcome.FAILED: "red",
    Outcome.PENDING: "yellow",
    Outcome.OFFLINE: "dim",
    Outcome.NOBODY: "yellow",
}
_ORDER = (Outcome.FAILED, Outcome.PENDING, Outcome.CONVERGED, Outcome.OFFLINE)
_KINDS_SHOWN = 4
"""Of what devices run, and of what is in their way: the most frequent."""
_WIDE = 80
_FOR_THE_WIDE = {"release", "services", "agent", "app", "since"}
"""Columns that give way to the reason where a terminal is narrower than that."""
_ROOM_FOR_THE_REST = 8
"""Lines of the terminal that a table leaves to its own frame and to what stands around it."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the program with 1: how it ends is the command's to say."""
        raise BrokenPipeError


class Screen:
    """Standard output, in one of its three forms."""

    def __init__(self, *, as_json: bool) -> None:
        self.console = _Console(highlight=False)
        self.as_json = as_json
        self.live = self.console.is_terminal and not as_json

    def say(self, text: str, style: str = "") -> None:
        """A line for people; not said to programs."""
        if not self.as_json:
            self.console.print(Text(text, style=style), soft_wrap=True)

    def tell(self, kind: str, **body: Json) -> None:
        """A line for programs."""
        if self.as_json:
            print(json.dumps({"type": kind, **body}, ensure_ascii=False), flush=True)

    def changes(self, changes: Sequence[Change], against: str) -> None:
        if not changes:
            self.say(f"no changes to {against}", "dim")
        for change in changes:
            self.say(str(change), "green" if change.old is None else "red" if change.new is None else "yellow")

    def published(self, published: Published) -> None:
        whose = f"device {published.device}" if published.device else "the fleet"
        self.say(f"published to {whose}: {published.version}, release {published.release}", "bold")
        self.tell_published(published)

    def tell_published(self, published: Published) -> None:
        self.tell(
            "published",
            scope=published.scope,
            device=published.device,
            epoch=published.epoch,
            revision=published.revision,
            digest=published.digest,
            release=published.release,
            changes=[{"path": list(c.path), "old": c.old, "new": c.new} for c in published.changes],
        )

    def ack(self, entry: Entry) -> None:
        """One ack: a line, unless a live table shows it."""
        self.tell("ack", device=entry.device, ack=dict(entry.body))
        if not self.live:
            body = entry.body
            where = "/".join(str(body[key]) for key in ("app", "service") if body.get(key))
            told = [clock(entry.at), entry.device, where, str(body.get("verdict")), why(body)]
            self.say("  ".join(part for part in told if part))

    def row(self, row: Row) -> None:
        """A device that has come to its end."""
        self.tell("device", device=row.device, outcome=row.outcome.value, reason=row.reason)
        if not self.live:
            self.say(f"{row.device}  {row.outcome}" + (f": {row.reason}" if row.reason else ""))

    def following(self, following: Following, left_s: float | None = None) -> RenderableType:
        """The live table: those that need looking at first, as many as there is room for.

        `left_s`: how long it will be waited for; None when that has ended.
        """
        urgent = sorted(following.rows, key=lambda row: (_ORDER.index(row.outcome), row.device))
        room = max(3, self.console.height - _ROOM_FOR_THE_REST)
        table = self._table("device", "", "verdict", "app", "reason", "since")
        for row in urgent[:room]:
            verdict = row.outcome if row.outcome is Outcome.CONVERGED else row.verdict or ""
            _add(
                table,
                {
                    "device": escape(row.device),
                    "": presence(row.presence),
                    "verdict": Text(verdict, style=_STYLES[row.outcome]),
                    "app": Text(row.app or ""),
                    "reason": _one_line(row.reason or ""),
                    "since": Text(clock(row.since) if row.since else "", style="dim"),
                },
            )
        hidden = f"… and {len(urgent) - room} more; " if len(urgent) > room else ""
        if left_s is None:
            return Group(table, Text(f"… and {len(urgent) - room} more", style="dim")) if hidden else table
        return Group(table, Text(f"{hidden}{summary(following)}; {left_s:.0f} s left", style="dim"))

    def fleet(self, cloud: Cloud, devices: Sequence[Device], shortfalls: Mapping[str, str | None]) -> RenderableType:
        """All devices; of more than there is room for a summary, and then those that are not as published."""
        room = max(3, self.console.height - _ROOM_FOR_THE_REST)
        if len(devices) <= room:
            return self._devices(cloud, devices, shortfalls)
        wrong = [device for device in devices if shortfalls[device.id]]
        # Those that are here before those that are not: about them something can be done.
        wrong.sort(key=lambda device: (cloud.presence(device) == OFFLINE, device.worst is None, device.id))
        counts = fleet_summary([cloud.presence(device) for device in devices], devices, shortfalls)
        parts: list[RenderableType] = [_one_line(line, "bold") for line in counts]
        room = max(3, room - len(counts))
        if wrong:
            parts.append(self._devices(cloud, wrong[:room], shortfalls))
        if len(wrong) > room:
            parts.append(Text(f"… and {len(wrong) - room:,} more that are not as published", style="dim"))
        return Group(*parts)

    def _devices(self, cloud: Cloud, devices: Sequence[Device], shortfalls: Mapping[str, str | None]) -> Table:
        table = self._table("device", "", "release", "converged", "services", "reason", "agent")
        for device in devices:
            good, every = device.services
            missing = shortfalls[device.id]
            reason = device.worst or (missing if missing and not missing.startswith("offline") else "") or ""
            health = "dim" if not every else "green" if good == every else "red"
            _add(
                table,
                {
                    "device": escape(device.id),
                    "": presence(cloud.presence(device)),
                    "release": escape(", ".join(device.releases) or "-"),
                    "converged": Text("no", style="yellow") if missing else Text("yes", style="green"),
                    "services": Text(f"{good}/{every}", style=health),
                    "reason": _one_line(reason),
                    "agent": Text(device.agent or "", style="dim"),
                },
            )
        return table

    def _table(self, *columns: str) -> Table:
        """Of rows that are one line each: room is counted in rows. The reason gives way first."""
        table = Table(box=None, header_style="dim", pad_edge=False)
        for column in columns:
            if self.console.width >= _WIDE or column not in _FOR_THE_WIDE:
                table.add_column(column, no_wrap=column != "reason", overflow="ellipsis")
        return table

    def device(self, cloud: Cloud, device: Device, shortfall: str | None) -> None:
        """One device as a plain line, or as an object with all there is to know."""
        good, every = device.services
        now = cloud.presence(device)
        self.tell(
            "device",
            device=device.id,
            presence=now,
            converged=shortfall is None,
            shortfall=shortfall,
            releases=list(device.releases),
            services={"ok": good, "all": every},
            reason=device.worst,
            have={scope: _have(have) for scope, have in device.told.items()},
            agent=device.agent,
            session=device.session or None,
            heard_at=device.heard_at,
            gaps=[list(gap) for gap in cloud.gaps(device.id)],
        )
        word = "converged" if shortfall is None else "not converged"
        told = [
            device.id,
            now,
            ",".join(device.releases) or "-",
            word,
            f"{good}/{every}",
            device.worst or shortfall or "",
        ]
        self.say("  ".join(told).rstrip())


def _add(table: Table, cells: Mapping[str, RenderableType]) -> None:
    table.add_row(*(cells[str(column.header)] for column in table.columns))


def _one_line(text: str, style: str = "") -> Text:
    return Text(" ".join(text.split()), style=style, no_wrap=True, overflow="ellipsis")


def presence(word: str) -> Text:
    return Text(word, style={ONLINE: "green", LOST: "yellow"}.get(word, "dim"))


def clock(at: str) -> str:
    """The local time of day."""
    return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S")


def summary(following: Following) -> str:
    """`3 of 4 online devices converged, 1 failed; 2 offline`."""
    counts = {outcome: sum(row.outcome is outcome for row in following.rows) for outcome in Outcome}
    online = len(following.rows) - counts[Outcome.OFFLINE]
    if not online:
        return f"no device is online, {counts[Outcome.OFFLINE]} offline"
    devices = "device" if online == 1 else "devices"
    told = f"{counts[Outcome.CONVERGED]} of {online} online {devices} converged"
    if counts[Outcome.FAILED]:
        told += f", {counts[Outcome.FAILED]} failed"
    return told + (f"; {counts[Outcome.OFFLINE]} offline" if counts[Outcome.OFFLINE] else "")


def fleet_summary(
    presences: Sequence[str], devices: Sequence[Device], shortfalls: Mapping[str, str | None]
) -> list[str]:
    """Lines of counts: who is there and as published, what runs, and what is most often in the way."""
    here = Counter(presences)
    told = ", ".join(f"{here[word]:,} {word}" for word in (ONLINE, LOST, OFFLINE) if here[word])
    converged = sum(shortfalls[device.id] is None for device in devices)
    releases = Counter(", ".join(device.releases) or "none" for device in devices)
    reasons = Counter(
        device.busy or why for device in devices if (why := shortfalls[device.id]) and not why.startswith("offline")
    )
    lines = [f"{len(devices):,} devices: {told}; {converged:,} converged"]
    lines.append("releases: " + _most_common(releases))
    if reasons:
        lines.append("not yet: " + _most_common(reasons))
    return lines


def _most_common(counts: Counter[str]) -> str:
    shown = ", ".join(f"{count:,} {what}" for what, count in counts.most_common(_KINDS_SHOWN))
    others = len(counts) - _KINDS_SHOWN
    return shown + (f", and {others:,} others" if others > 0 else "")


def _have(have: Have | None) -> Json:
    return {"epoch": have.version.epoch, "revision": have.version.revision, "digest": have.digest} if have else None
