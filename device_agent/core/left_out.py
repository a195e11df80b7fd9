"""The services of an app that its report leaves out: those that are to go, and those that are to have no container."""

from device_agent.core.status import reported
from device_agent.core.wanted import WantedApp
from device_agent.model.observed import Observed, service_of
from device_agent.model.report import AppReport, Reason, ServiceReport


def left_out(app: str, wanted: WantedApp | None, observed: Observed, told: AppReport) -> dict[str, ServiceReport]:
    """By service. `wanted`: what is to run of the app; None where nothing is."""
    going = (c for c in observed.containers if c.app == app and c.service not in told.services)
    found = {name: ServiceReport("stopped", reason=_SCALED_TO_0) for name in _without_containers(wanted)}
    return found | {
        container.service: reported("stopping", container, None) for container in sorted(going, key=lambda c: c.id)
    }


SCALE = "scale"
_SCALED_TO_0 = Reason(SCALE, "its scale is 0: it is to have no container")


def _without_containers(wanted: WantedApp | None) -> list[str]:
    document = wanted.document if wanted else None
    services = document.get("services") if isinstance(document, dict) else None
    having = {service_of(name) for name in wanted.services} if wanted else set()
    return sorted(name for name in services if name not in having) if isinstance(services, dict) else []
