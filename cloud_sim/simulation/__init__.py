"""Simulated devices: the real agent, many in one process, over simulated engines and real MQTT connections."""
