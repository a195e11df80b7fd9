"""How far each accepted target has come, told as acks: every transition once.

Everything here returns acks and events; the owner loop writes them in the transaction of what they tell.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from device_agent.core.images import images_of
from device_agent.core.matching import is_moved, match_services
from device_agent.core.wanted import WantedApp
from device_agent.model.memory import AcceptedTarget, AppRecord, BadRelease
from device_agent.model.observed import Observed
from device_agent.model.report import Ack, AppReport, Happening, Reason
from device_agent.model.target import SCOPES, Json, Target, printed_revision

_NOT_FAILURES = frozenset(
    (
        *("dependency", "images", "stopped", "target_unknown", "rolled_back", "release_failed"),
        *("hold", "window", "lock"),
    )
)


@dataclass(slots=True)
class Rollout:
    targets: dict[str, AcceptedTarget]
    """By scope."""
    apps: dict[str, AppRecord]
    """By app: what last settled."""
    _begun: set[tuple[str, str]] = field(default_factory=set)
    """(scope, app) whose `applying` has been told."""
    _told: dict[str, frozenset[tuple[str, str]]] = field(default_factory=dict)
    """App → the (service, code) of failures that have been told."""

    def __post_init__(self) -> None:
        # After a restart: what is awaited had been begun, or is about to be within this second.
        self._begun |= {(scope, app) for scope, accepted in self.targets.items() for app in accepted.awaited}

    def accept(self, accepted: AcceptedTarget) -> None:
        scope = accepted.target.scope
        self.targets[scope] = accepted
        self._begun -= {(scope, app) for app in accepted.awaited}
        for app in accepted.awaited:
            self._told.pop(app, None)

    def unfinished(self, scope: str) -> AcceptedTarget | None:
        """The target of a scope that has not ended: the next one takes over what is still awaited of it."""
        accepted = self.targets.get(scope)
        return accepted if accepted and accepted.ended is None else None

    def begun(self, app: str) -> list[Ack]:
        """There is something to do for an app."""
        acks = []
        for scope in self._awaiting(app):
            if (scope, app) not in self._begun:
                self._begun.add((scope, app))
                acks.append(transition(self.targets[scope].target, "applying", app=app))
        return acks

    def failing(self, app: str, report: AppReport) -> list[Ack]:
        """An app that has something wrong: told for each change of cause."""
        reasons: dict[str, Reason] = {
            name: service.reason
            for name, service in report.services.items()
            if service.reason and service.reason.code not in _NOT_FAILURES and not _passing(service.reason)
        }
        if report.reason and report.reason.code not in _NOT_FAILURES:
            reasons[""] = report.reason
        known = self._told.get(app, frozenset())
        now = frozenset((service, reason.code) for service, reason in reasons.items())
        self._told[app] = known | now
        return [
            transition(
                self.targets[scope].target,
                "failed",
                app=app,
                service=service or None,
                code=reason.code,
                message=reason.message,
                attempt=reason.attempt,
                next_try_at=reason.next_try_at,
            )
            for scope in self._awaiting(app)
            for service, reason in sorted(reasons.items())
            if (service, reason.code) not in known
        ]

    def arrived(self, app: str) -> tuple[list[Ack], list[AcceptedTarget]]:
        """An app is as it should be, or gone as it should be. Returns acks, and the targets whose row changed."""
        self._told.pop(app, None)
        acks, changed = [], []
        for scope in self._awaiting(app):
            accepted = replace(self.targets[scope], awaited=self.targets[scope].awaited - {app})
            if (scope, app) in self._begun:
                acks.append(transition(accepted.target, "applied", app=app))
            self.targets[scope] = accepted
            changed.append(accepted)
        return acks, changed

    def failed(self, app: str, bad: BadRelease) -> list[Ack]:
        """Its release failed its gate."""
        self._told.pop(app, None)
        return [
            transition(self.targets[scope].target, "failed", app=app, code=bad.code, message=bad.message)
            for scope in self._awaiting(app)
        ]

    def held(self, app: str, cause: str, message: str | None = None, until: datetime | None = None) -> list[Ack]:
        """It is left as it is. Not its end. Told once for each cause."""
        told = self._told.get(app, frozenset())
        self._told[app] = told | {("", cause)}
        scopes = self._awaiting(app) if ("", cause) not in told else ()
        details = {"app": app, "cause": cause, "message": message, "next_try_at": until}
        return [transition(self.targets[scope].target, "held", **details) for scope in scopes]

    def rolled_back(self, app: str, bad: BadRelease, good: AppRecord) -> tuple[list[Ack], list[AcceptedTarget]]:
        """What it was rolled back to runs."""
        acks, changed = [], []
        for scope in self._awaiting(app):
            accepted = replace(self.targets[scope], awaited=self.targets[scope].awaited - {app})
            ends = {"from_": _named(bad.revision, bad.release), "to": _named(good.revision, good.release)}
            acks.append(
                transition(accepted.target, "rolled_back", app=app, cause=bad.code, message=bad.message, **ends)
            )
            self.targets[scope] = accepted
            changed.append(accepted)
        return acks, changed

    def ended(self, bad: Collection[str] = ()) -> tuple[list[Ack], list[AcceptedTarget]]:
        """Targets of which nothing is awaited any more. `bad`: the revisions of which an app was rolled back."""
        acks, changed = [], []
        for scope, accepted in self.targets.items():
            if accepted.ended is None and not accepted.awaited:
                rolled_back = printed_revision(scope, accepted.target.version) in bad
                verdict = "rolled_back" if rolled_back else "applied"
                self.targets[scope] = replace(accepted, ended=verdict)
                changed.append(self.targets[scope])
                acks.append(transition(accepted.target, verdict))
        return acks, changed

    def reopen(self, app: str, scope: str) -> AcceptedTarget | None:
        """What a target asks of an app is tried once more. Returns the target whose row changed."""
        self._told.pop(app, None)
        accepted = self.targets.get(scope)
        if accepted is None or app in accepted.awaited:
            return None
        self._begun.discard((scope, app))
        self.targets[scope] = replace(accepted, awaited=accepted.awaited | {app}, ended=None)
        return self.targets[scope]

    @property
    def applied(self) -> tuple[Target, ...]:
        return tuple(accepted.target for accepted in self.targets.values() if accepted.ended == "applied")

    def settled(self, wanted: WantedApp, specs: Mapping[str, str]) -> AppRecord | None:
        """Remember the content with which an app settled; None when that is what is remembered."""
        before = self.apps.get(wanted.name)
        release = wanted.release
        if before and before.digest == wanted.digest and before.specs == specs and before.release == release:
            return None
        previous = before.release if before and before.release != release else before.previous if before else None
        record = AppRecord(
            wanted.name,
            wanted.digest,
            dict(specs),
            release,
            previous,
            wanted.revision,
            wanted.document,
            _previous_images(before, wanted),
        )
        self.apps[wanted.name] = record
        return record

    def is_repair(self, app: str, digest: str) -> bool:
        """Whether the app had settled with this content: then what is to be done now is drift."""
        return app in self.apps and self.apps[app].digest == digest

    def _awaiting(self, app: str) -> Iterable[str]:
        return [scope for scope in SCOPES if scope in self.targets and app in self.targets[scope].awaited]


def _previous_images(before: AppRecord | None, wanted: WantedApp) -> tuple[str, ...]:
    """What a release that changes no image leaves as it is: the images to go back to are those of the one before."""
    if before is None:
        return ()
    images = images_of(before.document)
    return before.previous_images if images == images_of(wanted.document) else tuple(sorted(images))


def _passing(reason: Reason) -> bool:
    """What has ended and was not tried yet is about to be started again."""
    return reason.code == "exited" and reason.attempt is None


def _named(revision: str, release: str | None) -> dict[str, Json]:
    """`{epoch, revision, release}`, as the protocol names a release."""
    epoch, _, number = revision.partition(":")[2].partition(".")
    return {"epoch": int(epoch or 0), "revision": int(number or 0), "release": release}


def repair(wanted: WantedApp, service: str, cause: str, observed: Observed) -> Happening:
    """Of what had settled: its image is another one, or it has drifted."""
    match = match_services(wanted, observed).get(service)
    moved = match is not None and is_moved(wanted.services[service], match)
    return Happening("image_changed" if moved else "drift", {"app": wanted.name, "service": service, "message": cause})


def recreated(app: str, volume: str) -> Happening:
    message = f"{volume} was removed: it is made anew, empty"
    return Happening("volume_recreated", {"app": app, "volume": volume, "message": message})


def transition(target: Target, verdict: str, **details: object) -> Ack:
    return Ack(
        verdict=verdict,
        scope=target.scope,
        version=target.version,
        digest=target.digest,
        release=target.release,
        **details,  # type: ignore[arg-type]
    )
