"""What operators have said of single services, laid over what is wanted; and when it is of no account any more."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from device_agent.core.matching import match_services
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.memory import Order
from device_agent.model.observed import Observed, service_of

STOP, START, RESTART, UNLOCK = "stop", "start", "restart", "unlock"


def with_orders(wanted: WantedApp, orders: Iterable[Order]) -> WantedApp:
    """The app as its operator wants it: services that are kept stopped, or to be started anew."""
    said = {order.service: order for order in orders if order.app == wanted.name}
    if not said:
        return wanted
    return replace(wanted, services={name: _ordered(wanted, name, said) for name in wanted.services})


def _ordered(app: WantedApp, name: str, said: Mapping[str, Order]) -> WantedService:
    wanted, stop, own = app.services[name], said.get(service_of(name)), said.get(name)
    if stop and _stops(stop, app):
        return wanted if wanted.stopped else replace(wanted, stopped="by an operator")
    return replace(wanted, anew=own.content) if own and own.verb in (START, RESTART) else wanted


def _stops(order: Order, app: WantedApp) -> bool:
    """Whether it was said of the service as it is in this app. All of its containers have one definition."""
    first = app.services.get(order.service)
    return order.verb == STOP and first is not None and first.definition == order.content


def orders_for(
    verb: str, wanted: WantedApp, service: str, observed: Observed, stopping: Collection[str] = ()
) -> list[Order]:
    """What is to be remembered of a `stop`, `start` or `restart`: nothing where there is nothing to do.

    `stopping`: ids of containers that are being stopped now. One that is to be started goes through with its stop.
    """
    if verb == STOP:
        return [Order(wanted.name, service, STOP, wanted.services[service].definition)]
    matches = match_services(wanted, observed)
    containers = {name: matches[name].winner for name in wanted.instances(service)}
    # What is not there is made and started anyway, and what runs has been started.
    return [
        Order(wanted.name, name, RESTART if container.id in stopping else verb, container.run)
        for name, container in containers.items()
        if container and (verb == RESTART or not container.up or container.id in stopping)
    ]


def restarted_with(wanted: WantedApp, services: Collection[str], observed: Observed) -> list[str]:
    """The services that run and depend on these with `restart`, and those that so depend on them in turn."""
    matches = match_services(wanted, observed)
    found = dict.fromkeys(services)
    for name, service in wanted.services.items():  # each after those it depends on
        container = matches[name].winner
        needs = (service_of(other) for other, need in service.service.depends_on.items() if need.restart)
        if container and container.up and not service.stopped and not found.keys().isdisjoint(needs):
            found[service_of(name)] = None
    return [name for name in found if name not in services]


def carried_out(order: Order, observed: Observed) -> bool:
    """Whether what was to be started anew has been, or is gone."""
    if order.verb not in (START, RESTART):
        return False
    container = next((c for c in observed.containers if c.run == order.content), None)
    return container is None or (order.verb == START and container.up)


def outlived(order: Order, settled: WantedApp) -> bool:
    """Whether an app has settled with another service, or without the one that was meant."""
    if order.verb == UNLOCK:
        return True
    return order.service not in settled.services or (order.verb == STOP and not _stops(order, settled))
