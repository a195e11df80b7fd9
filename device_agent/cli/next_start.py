"""What the next start of an agent would make of the data folder, in words: for where none runs."""

from pathlib import Path
from tempfile import gettempdir

from device_agent.adapters.store import StoreLocked
from device_agent.adapters.store_rehearsal import Rehearsed
from device_agent.cli.finding import Finding, Health
from device_agent.model.errors import StoreBroken, StoreFull

CHECK = "database"
PUBLISH_AGAIN = "publish the targets again where apps are not as published"
MOUNT = "mount a volume that can be read and written at DEVICE_AGENT_DATA_DIR"


def told(folder: Path, found: Rehearsed) -> Finding:
    """Of a start that could be tried."""
    if found.unwritable:
        return Finding(CHECK, Health.BROKEN, f"{found.unwritable} cannot be written: no agent starts with it", MOUNT)
    if not found.finds_room:
        needs, free = -(-found.needs // 1024), found.free // 1024
        seen = (
            f"{folder}: the disk is full: the next start needs {needs} KiB, {free} are free, and without them it ends"
        )
        return Finding(CHECK, Health.BROKEN, seen, "free some space; what runs runs on without an agent")
    if found.recovered:
        seen = f"{folder}: the next start mends it, and would tell: {found.recovered}"
        return Finding(
            CHECK, Health.WARNING, seen, f"put back what was there before, or start the agent and {PUBLISH_AGAIN}"
        )
    if found.fresh:
        return Finding(CHECK, Health.OK, f"{folder} has no database: the next start makes one")
    if found.migrates:
        return Finding(CHECK, Health.OK, f"{folder} is of an older agent: the next start migrates it")
    return Finding(CHECK, Health.OK, f"{folder} is sound: the next start goes on with it")


def untried(folder: Path, why: StoreLocked | StoreFull | StoreBroken | OSError) -> Finding:
    """Of one that could not."""
    match why:
        case StoreLocked():
            mend = "try again if an agent begins or ends now; else set DEVICE_AGENT_CONTROL_SOCKET as it has it"
            return Finding(CHECK, Health.BROKEN, f"another process has {folder}", mend)
        case StoreFull():
            seen = f"{folder} was not looked into: no room for a copy of it ({why})"
            return Finding(CHECK, Health.WARNING, seen, f"free some space in {gettempdir()}")
        case _:
            return Finding(CHECK, Health.BROKEN, f"{folder}: {why}", MOUNT)
