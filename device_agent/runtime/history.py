"""`history`: what the database remembers of targets and releases. Nothing is written for it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from device_agent.model.memory import AcceptedTarget, AppRecord, Attempt, BadRelease
from device_agent.model.target import Json
from device_agent.runtime.arguments import no_more
from device_agent.wire.messages import time_text

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent


def history(agent: "Agent", args: Mapping[str, Json]) -> Json:
    no_more(args)
    names = sorted(agent.rollout.apps.keys() | agent.releases.bad.keys())
    return {
        "targets": {scope: _target(accepted) for scope, accepted in sorted(agent.rollout.targets.items())},
        "floors": {scope: list(floor.version) for scope, floor in sorted(agent.floors.items())},
        "apps": {name: _app(agent.rollout.apps.get(name), agent.releases.bad.get(name)) for name in names},
        "attempts": [_attempt(attempt) for _, attempt in sorted(agent.reconciler.retries.rows.items())],
        "orders": [
            {"app": order.app, "service": order.service or None, "verb": order.verb}
            for _, order in sorted(agent.orders.items())
        ],
    }


def _target(accepted: AcceptedTarget) -> Json:
    target = accepted.target
    return {
        "epoch": target.version.epoch,
        "revision": target.version.revision,
        "digest": target.digest,
        "release": target.release,
        "accepted_at": time_text(accepted.accepted_at),
        "ended": accepted.ended,
        "awaited": sorted(accepted.awaited),
    }


def _app(record: AppRecord | None, bad: BadRelease | None) -> Json:
    return {
        "settled": record and {"revision": record.revision, "release": record.release},
        "previous": record.previous if record else None,
        "failed": bad and {"revision": bad.revision, "release": bad.release, "code": bad.code, "message": bad.message},
    }


def _attempt(attempt: Attempt) -> Json:
    return {
        "app": attempt.app or None,
        "subject": attempt.subject,
        "code": attempt.code,
        "message": attempt.message,
        "attempt": attempt.count,
        "next_try_at": time_text(attempt.next_at),
    }
