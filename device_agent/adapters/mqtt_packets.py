"""A paho client as this agent uses one, and the properties of what it sends."""

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_agent.adapters.broker import Wants
from device_agent.ports import Will


def new_client(client_id: str, *, v5: bool, fresh: bool, connect_s: float) -> paho.Client:
    """For one connection, driven through paho's interface for external loops. `fresh`: without the session there is."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        clean_session=None if v5 else fresh,
        protocol=paho.MQTTv5 if v5 else paho.MQTTv311,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    client.connect_timeout = connect_s
    # Without this paho would write to the socket from within `publish`, in the caller's thread. It is not used as
    # a wake-up: between two threads paho can miss to call it.
    client.on_socket_register_write = lambda *_: None
    return client


def connect_properties(wants: Wants) -> Properties:
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = wants.session_expiry_s
    properties.ReceiveMaximum = wants.receive_maximum
    properties.MaximumPacketSize = wants.maximum_packet_size
    return properties


def will_properties(will: Will) -> Properties | None:
    # No delay is said by leaving it out: RabbitMQ 4.0 retains the property with the Will, 0 too, and then breaks
    # the connection of every subscriber that it should be sent to.
    if not will.delay_s:
        return None
    properties = Properties(PacketTypes.WILLMESSAGE)
    properties.WillDelayInterval = will.delay_s
    return properties


def publish_properties(expiry_s: int | None, correlation: bytes | None) -> Properties:
    properties = Properties(PacketTypes.PUBLISH)
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    if correlation is not None:
        properties.CorrelationData = correlation
    return properties
