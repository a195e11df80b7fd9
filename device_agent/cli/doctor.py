"""`device-agent doctor`: what this device needs to run apps, looked at from here.

Each check is on its own: one that fails keeps no other from being made. None changes anything: of what the next start
would mend it is told what that comes to.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import device_agent
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.control_socket import NoAgent, ask
from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.host import PsutilHost
from device_agent.adapters.store import StoreLocked
from device_agent.adapters.store_rehearsal import rehearsed
from device_agent.cli import next_start
from device_agent.cli.finding import Finding, Health
from device_agent.cli.options import registry_auth, trusted_keys
from device_agent.cli.settings import BadSetting, Settings, load_policy
from device_agent.core.room import MIB
from device_agent.model.errors import EngineAway, EngineError, StoreBroken, StoreFull
from device_agent.model.target import Identity

BROKER_S = 5.0
"""For TCP and TLS each."""
OFF_S = timedelta(hours=1)
"""So much behind what was written before, a clock is wrong."""


def examine(settings: Settings) -> Iterator[Finding]:
    """One finding a check."""
    status = _running(settings)
    yield _agent(settings, status)
    yield _database(settings, status)
    yield _engine(settings)
    yield _broker(settings, status)
    yield _disk(settings)
    yield _read("policy", settings.policy_file, lambda: load_policy(settings.policy_file), "the strict policy")
    yield _read("trusted keys", settings.trusted_keys, lambda: trusted_keys(settings), "nothing has to be signed")
    yield _read("registry credentials", settings.registry_auth, lambda: registry_auth(settings), "none are sent")
    yield clock(SystemClock().now(), _newest(settings))


def _running(settings: Settings) -> Mapping[str, Any] | None:
    """What the running agent says; None: it says nothing."""
    try:
        answer = ask(settings.control_socket, "status", {})
    except (NoAgent, OSError, ValueError, TypeError):
        return None
    return answer["result"] if answer["status"] == "ok" else None


def _agent(settings: Settings, status: Mapping[str, Any] | None) -> Finding:
    if status:
        return Finding("agent", Health.OK, f"{status['fleet']}/{status['device']} answers")
    seen = f"none answers at {settings.control_socket}"
    return Finding("agent", Health.WARNING, seen, "start it, or look at its log; what runs runs on without it")


def _database(settings: Settings, status: Mapping[str, Any] | None) -> Finding:
    if not status:
        return _next_start(settings)
    store = status["store"]["status"]
    if store == "ok":
        return Finding("database", Health.OK, f"{settings.data_dir} is read and written")
    if store == "full":
        return Finding("database", Health.BROKEN, "the disk is full: nothing new is accepted", "free some space")
    return Finding("database", Health.WARNING, store, next_start.PUBLISH_AGAIN)


def _next_start(settings: Settings) -> Finding:
    """Where no agent runs: what one would make of the database."""
    folder = settings.data_dir
    try:
        with rehearsed(folder, SystemClock()) as found:
            return next_start.told(folder, found)
    except (StoreLocked, StoreFull, StoreBroken, OSError) as why:
        return next_start.untried(folder, why)


def _engine(settings: Settings) -> Finding:
    try:
        found = DockerEngine(settings.engine_url, str(Identity(settings.fleet, settings.device_id))).observe(None)
    except (EngineAway, EngineError) as error:
        mend = "start the engine, and mount its socket where DEVICE_AGENT_ENGINE_URL says"
        return Finding("engine", Health.BROKEN, f"{settings.engine_url}: {error}", mend)
    return Finding("engine", Health.OK, f"{settings.engine_url}: {len(found.containers)} containers of this device")


def _broker(settings: Settings, status: Mapping[str, Any] | None) -> Finding:
    broker = settings.broker()
    where = str(broker.address)
    if problem := broker.probe(BROKER_S):
        mend = "look at DEVICE_AGENT_MQTT_URL and the other settings of MQTT, DNS, the firewall, the broker"
        return Finding("broker", Health.BROKEN, f"{where}: {problem}", mend)
    if status and not status["connected"]:
        mend = "the agent's log says why: credentials, client id, access list"
        return Finding("broker", Health.BROKEN, f"{where} is reached, and the agent is not connected", mend)
    if settings.mqtt_username and not broker.address.tls:
        return Finding("broker", Health.WARNING, f"{where}: the password travels unencrypted", "use mqtts://")
    return Finding("broker", Health.OK, f"{where}: {'the agent is connected' if status else 'it is reached'}")


def _disk(settings: Settings) -> Finding:
    disk = PsutilHost(settings.data_dir).disk()
    if disk is None:
        return Finding("disk", Health.WARNING, f"{settings.data_dir} cannot be measured", "mount the data volume there")
    seen = f"{disk.free // MIB} of {disk.total // MIB} MiB are free"
    reserve = settings.reserve().of(disk)
    if disk.free < reserve:
        seen += f", and {reserve // MIB} are to stay free: no image is pulled"
        return Finding("disk", Health.BROKEN, seen, "free some, or set DEVICE_AGENT_DISK_RESERVE")
    return Finding("disk", Health.OK, seen)


def _read(check: str, path: Path | None, read: Callable[[], object], without: str) -> Finding:
    """A file or folder that a setting names."""
    if path is None:
        return Finding(check, Health.OK, f"no file is set: {without}")
    try:
        read()
    except BadSetting as bad:
        return Finding(check, Health.BROKEN, str(bad), "correct it: the agent does not start with it")
    return Finding(check, Health.OK, f"{path} is read")


def _newest(settings: Settings) -> datetime:
    """When something was last written that this program has: it is later than that."""
    written = [Path(device_agent.__file__), *settings.data_dir.glob("database.sqlite*")]
    return datetime.fromtimestamp(max(path.stat().st_mtime for path in written), UTC)


def clock(now: datetime, newest: datetime) -> Finding:
    seen = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    if now < newest - OFF_S:
        seen += f", and a file here is of {newest:%Y-%m-%d %H:%M}"
        return Finding(
            "clock", Health.BROKEN, seen, "set it (NTP): certificates count as not yet valid, windows open late"
        )
    return Finding("clock", Health.OK, seen)
