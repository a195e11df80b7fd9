"""A target that is refused: what is told of it. Once that is on disk, the message that brought it is acknowledged."""

from typing import TYPE_CHECKING

from device_agent.model.errors import Refused
from device_agent.model.report import MOST_PLACES, Ack, Happening, Have

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent


def refuse(agent: "Agent", ack: Ack, refused: Refused, scope: str, token: object) -> None:
    """`ack`: what is known of the target; `scope`: that of the topic it came on, its own word may be another."""
    current = agent.rollout.targets.get(scope)
    have = Have(current.target.version, current.target.digest) if current else None
    agent.journal.tell_ack(
        Ack(
            "rejected",
            scope,
            ack.version,
            ack.digest,
            ack.release,
            code=refused.code,
            message=refused.message,
            errors=refused.problems[:MOST_PLACES],
            current=have,
        )
    )
    if refused.code == "fork" and ack.version:
        version = {"epoch": ack.version.epoch, "revision": ack.version.revision}
        fields = {"scope": scope, **version, "digest": ack.digest, "message": refused.message}
        agent.journal.tell(Happening("target_fork", fields))
    agent.journal.acknowledge(token)
