"""Conditions of `depends_on` that can never hold, as far as a target tells."""

from collections.abc import Mapping

from device_agent.model.compose import Service
from device_agent.model.place import Place

INSTEAD = "or wait for service_started"


def never_met(condition: str, other: Service) -> str:
    """Why a service never comes to what another waits for, and what to change; empty when it can."""
    if condition == "service_completed_successfully" and not other.one_shot:
        policy = other.restart.policy
        return f'it is meant to run for ever (restart: {policy}): give it restart: "no" or on-failure, {INSTEAD}'
    if condition == "service_healthy" and other.healthcheck and other.healthcheck.test == ("NONE",):
        return f"its health check is switched off: give it one, {INSTEAD}"
    return ""


def warn_of_never_met(app: Place, services: Mapping[str, Service]) -> None:
    for name, service in services.items():
        for other, dependency in service.depends_on.items():
            why = never_met(dependency.condition, services[other]) if other in services else ""
            if why:
                where = ("services", name, "depends_on", other, "condition")
                app.warn(f"{dependency.condition} can never be met by `{other}`: {why}", *where)
