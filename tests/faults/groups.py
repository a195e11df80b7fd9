"""All faults there are: importing this registers them."""

from tests.faults import agent_faults, broker_faults, clock_faults, engine_faults, operator_faults, store_faults
from tests.faults.fault import FAULTS

GROUPS = tuple(
    module.GROUP for module in (agent_faults, store_faults, broker_faults, engine_faults, operator_faults, clock_faults)
)

__all__ = ["FAULTS", "GROUPS"]
