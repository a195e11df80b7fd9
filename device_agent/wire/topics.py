"""Every topic of the protocol, built and taken apart.

A fixed level splits what goes down to devices from what comes up from them, so that one ACL line each is enough and
no device can write a target. A device subscribes to exact topics only; wildcards are for a cloud.
"""

import re
from dataclasses import dataclass

from device_agent.model.target import DEVICE, FLEET

DEFAULT_ROOT = "fleet/v1"

ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
VERB = re.compile(r"[a-z][a-z0-9_-]{0,62}")

SESSION, STATE, ACK, EVENT, PROGRESS, RESPONSE, LOG = "session", "state", "ack", "event", "progress", "response", "log"
KINDS = (SESSION, STATE, ACK, EVENT, PROGRESS, RESPONSE, LOG)

# MQTT allows 65,535 bytes; brokers allow less (AWS IoT: 256 bytes and 7 levels without its reserved ones).
_ROOT_BYTES = 128
MOST_REPLY = 256
"""Characters of an answer's topic, after what it must begin with: it is kept with the command."""


def check_id(value: str, what: str) -> str:
    """`value`, when it can be a fleet or device id; else ValueError naming `what`."""
    if not ID.fullmatch(value):
        raise ValueError(f"{what} {value!r} is not an id: 1 to 63 of a-z, 0-9 and '-', the first a letter or a digit")
    return value


def check_root(root: str) -> str:
    """`root`, when topics can be built on it; else ValueError saying what is wrong with it."""
    if not root or any(not level for level in root.split("/")):
        raise ValueError(f"topic root {root!r} has an empty level: no '/' at either end and no '//'")
    if root.startswith("$"):
        raise ValueError(f"topic root {root!r} starts with '$', which is the broker's own")
    if "+" in root or "#" in root:
        raise ValueError(f"topic root {root!r} has a wildcard ('+' or '#')")
    if not root.isprintable():
        raise ValueError(f"topic root {root!r} has a character that cannot be printed")
    if len(root.encode("utf-8", "surrogatepass")) > _ROOT_BYTES:
        raise ValueError(f"topic root is longer than {_ROOT_BYTES} bytes")
    return root


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one device. Raises ValueError for ids and roots that MQTT or the protocol does not allow."""

    root: str
    fleet: str
    device: str

    def __post_init__(self) -> None:
        check_root(self.root)
        check_id(self.fleet, "fleet")
        check_id(self.device, "device id")

    @property
    def fleet_target(self) -> str:
        return f"{self.root}/{self.fleet}/down/target"

    @property
    def device_target(self) -> str:
        return f"{self.root}/{self.fleet}/down/device/{self.device}/target"

    def command(self, verb: str) -> str:
        """Where a command to this device arrives."""
        return f"{self.root}/{self.fleet}/down/device/{self.device}/command/{verb}"

    def broadcast(self, verb: str) -> str:
        """Where a command to the whole fleet arrives."""
        return f"{self.root}/{self.fleet}/down/command/{verb}"

    def commands(self, verbs: tuple[str, ...]) -> tuple[str, ...]:
        """The topics of `verbs`, to this device and to all."""
        return tuple(topic for verb in verbs for topic in (self.command(verb), self.broadcast(verb)))

    def verb_of(self, topic: str) -> str | None:
        """The verb, when `topic` brings a command to this device or its fleet."""
        for prefix in (self.command(""), self.broadcast("")):
            verb = topic.removeprefix(prefix)
            if verb != topic and VERB.fullmatch(verb):
                return verb
        return None

    def is_broadcast(self, topic: str) -> bool:
        return topic.startswith(self.broadcast(""))

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The targets' topics. Exact, never wildcards."""
        return (self.fleet_target, self.device_target)

    def scope_of(self, topic: str) -> str | None:
        """`fleet` or `device` for a target's topic, None for any other."""
        return {self.fleet_target: FLEET, self.device_target: DEVICE}.get(topic)

    def up(self, kind: str) -> str:
        return f"{self.root}/{self.fleet}/up/{self.device}/{kind}"

    @property
    def session(self) -> str:
        return self.up(SESSION)

    @property
    def state(self) -> str:
        return self.up(STATE)

    @property
    def ack(self) -> str:
        return self.up(ACK)

    @property
    def event(self) -> str:
        return self.up(EVENT)

    @property
    def progress(self) -> str:
        return self.up(PROGRESS)

    @property
    def response(self) -> str:
        return self.up(RESPONSE)

    def log(self, app: str, service: str) -> str:
        return self.up(f"{LOG}/{app}/{service}")

    def may_answer(self, response_topic: str) -> bool:
        """Whether a command may ask for its answer there: this device's `response`, or under its fleet's `reply/`."""
        if response_topic == self.response:
            return True
        client = response_topic.removeprefix(f"{self.root}/{self.fleet}/reply/")
        if len(client) > MOST_REPLY:
            return False
        return client != response_topic and all(client.split("/")) and not any(mark in client for mark in "+#\0")


@dataclass(frozen=True, slots=True)
class FleetTopics:
    """A cloud's view of one fleet: where it publishes, what it subscribes to, and whose message arrived."""

    root: str
    fleet: str

    def __post_init__(self) -> None:
        check_root(self.root)
        check_id(self.fleet, "fleet")

    def of(self, device: str) -> Topics:
        return Topics(self.root, self.fleet, device)

    @property
    def target(self) -> str:
        """The whole fleet's target."""
        return f"{self.root}/{self.fleet}/down/target"

    def device_target(self, device: str) -> str:
        return self.of(device).device_target

    @property
    def targets(self) -> tuple[str, ...]:
        """Subscriptions to what is published to the fleet and to its devices."""
        return (self.target, f"{self.root}/{self.fleet}/down/device/+/target")

    def every(self, kind: str) -> str:
        """The subscription to one kind of message from every device."""
        return f"{self.root}/{self.fleet}/up/+/{kind}" + ("/+/+" if kind == LOG else "")

    def subscriptions(self, *kinds: str) -> tuple[str, ...]:
        """Subscriptions to `kinds` from every device; by default to all that tell how devices are."""
        return tuple(self.every(kind) for kind in kinds or (SESSION, STATE, ACK, EVENT))

    def broadcast(self, verb: str) -> str:
        """Where a command to all devices goes."""
        return f"{self.root}/{self.fleet}/down/command/{verb}"

    def reply(self, client: str) -> str:
        """Where answers to this cloud client's commands go."""
        return f"{self.root}/{self.fleet}/reply/{client}"

    def parse_up(self, topic: str) -> tuple[str, str] | None:
        """`(device, kind)` of a message that came up, None for any other topic. A log's kind is `log`."""
        rest = topic.removeprefix(f"{self.root}/{self.fleet}/up/")
        if rest == topic:
            return None
        device, _, kind = rest.partition("/")
        if kind.startswith(f"{LOG}/"):
            kind = LOG
        return (device, kind) if ID.fullmatch(device) and kind in KINDS else None

    def device_of(self, topic: str) -> str | None:
        """The device whose target or message `topic` is; None for the fleet's target and for foreign topics."""
        if (up := self.parse_up(topic)) is not None:
            return up[0]
        rest = topic.removeprefix(f"{self.root}/{self.fleet}/down/device/")
        device, _, what = rest.partition("/")
        return device if rest != topic and what and ID.fullmatch(device) else None
