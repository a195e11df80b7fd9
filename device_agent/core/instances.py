"""`scale`: each container of a service as a service of its own.

The first has the name and the definition that a service without a `scale` has, so that scaling up or down recreates
nothing. Who depends on a service depends on each of its containers, and waits for nothing of one that has none.
"""

from collections.abc import Mapping

from device_agent.model.compose import Service
from device_agent.model.observed import instance_key


def instances(services: Mapping[str, Service]) -> dict[str, Service]:
    """By instance: `api`, `api#2` and so on."""
    keys = {name: [instance_key(name, number + 1) for number in range(one.scale)] for name, one in services.items()}
    return {key: _with_needs(service, keys) for name, service in services.items() for key in keys[name]}


def _with_needs(service: Service, keys: Mapping[str, list[str]]) -> Service:
    if all(keys[name] == [name] for name in service.depends_on):
        return service
    needs = {key: need for name, need in service.depends_on.items() for key in keys[name]}
    return service.model_copy(update={"depends_on": needs})
