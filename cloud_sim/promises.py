"""What device-agent needs of a broker: what each probe of `doctor` asks, what breaks without it, and what mends it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Promise:
    asked: str
    breaks: str
    mend: str


PROMISES = {
    "retained": Promise(
        "a retained message reaches who subscribes later, and again at each subscription",
        "a device that was away does not learn its target",
        "Mosquitto: retain_available true; EMQX: retainer.enable; RabbitMQ: mqtt.retained_message_store on disk (DETS)",
    ),
    "retained_cleared": Promise(
        "an empty retained message removes what is retained",
        "what was taken back comes again",
        "the specification demands it (MQTT 5, 3.3.1.3): use another broker",
    ),
    "retained_wildcard": Promise(
        "a subscription with a wildcard gets what is retained",
        "a cloud without a database does not know its fleet before each device has something to say; devices are not "
        "concerned",
        "RabbitMQ cannot; let the cloud subscribe to each device's topics by name: cloud-sim does for those it knows",
    ),
    "session": Promise(
        "the session of a client that is away is kept for as long as devices ask (1 h)",
        "what is not retained (a command) and comes while a device is away for a moment is lost",
        "RabbitMQ: mqtt.max_session_expiry_interval_seconds; EMQX: mqtt.session_expiry_interval; Mosquitto: "
        "persistent_client_expiration",
    ),
    "queue_depth": Promise(
        "100 messages wait for a client that is away",
        "the newest commands to a device that is away are dropped, silently",
        "Mosquitto: max_queued_messages, max_queued_bytes; EMQX: mqtt.max_mqueue_len; RabbitMQ: a policy's max-length",
    ),
    "message_expiry": Promise(
        "a message that has expired is not delivered",
        "a late command arrives (the device refuses it by its own expires_at)",
        "use MQTT 5, and a broker that keeps message expiry",
    ),
    "will": Promise(
        "the retained Will of a client that vanishes is published, and retained",
        "a device that lost its power stays online to every cloud",
        "the specification demands it; RabbitMQ, MQTT 5: DEVICE_AGENT_MQTT_WILL_DELAY=0",
    ),
    "will_delay": Promise(
        "a Will with a delay of 2 s comes after 2 s, and is retained",
        "with the default delay of 30 s, a cloud that starts after a device was lost takes it for online",
        "DEVICE_AGENT_MQTT_WILL_DELAY=0 (or DEVICE_AGENT_MQTT_VERSION=3.1.1) on the devices: the Will is sent at once, "
        "and cloud-sim waits the 30 s itself",
    ),
    "packet_size": Promise(
        "a message of 1 MiB, the largest target that devices take by default, gets through",
        "a larger target does not reach any device",
        "Mosquitto: max_packet_size; RabbitMQ: mqtt.max_packet_size_authenticated; EMQX: mqtt.max_packet_size; AWS IoT "
        "has 128 KiB, and no more. Or keep targets small: they are compressed from 64 KiB on",
    ),
    "dots": Promise(
        "a topic with a dot arrives as it was sent",
        "with a dot in DEVICE_AGENT_TOPIC_ROOT nothing arrives where it is expected",
        "RabbitMQ translates dots to slashes: keep them out of the topic root",
    ),
    "shared_subscriptions": Promise(
        "a shared subscription delivers each message to one of its members",
        "several instances of a cloud cannot share the acks of a large fleet; one alone is not concerned",
        "RabbitMQ cannot; EMQX: mqtt.shared_subscription",
    ),
    "retained_after_restart": Promise(
        "what is retained survives a restart of the broker",
        "a device that connects first after a restart gets no target until the cloud has published it again",
        "Mosquitto: persistence true, autosave_on_changes true, autosave_interval 1; RabbitMQ: the DETS store, which "
        "syncs every 2 s; EMQX: retainer.backend.storage_type = disc",
    ),
}
