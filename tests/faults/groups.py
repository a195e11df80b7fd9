"""All faults there are: importing this registers them."""

from tests.faults import (
    agent_faults,
    broker_faults,
    certificate_faults,
    clock_faults,
    engine_faults,
    operator_faults,
    power_faults,
    registry_faults,
    release_faults,
    store_faults,
)
from tests.faults.fault import FAULTS

GROUPS = tuple(
    dict.fromkeys(
        module.GROUP
        for module in (
            agent_faults,
            store_faults,
            power_faults,
            broker_faults,
            certificate_faults,
            engine_faults,
            registry_faults,
            release_faults,
            operator_faults,
            clock_faults,
        )
    )
)
"""In the order in which they are told."""

__all__ = ["FAULTS", "GROUPS"]
