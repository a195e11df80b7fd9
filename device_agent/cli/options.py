"""From the settings to what the agent needs of them."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from device_agent.adapters.own_mounts import own_places, read_mountinfo
from device_agent.adapters.registry_auth import SETTING, RegistryAuth
from device_agent.cli.settings import BadSetting, Settings, load_policy
from device_agent.core.policy import ENGINE_SOCKETS, Own
from device_agent.core.wanted import Naming
from device_agent.model.target import Identity
from device_agent.runtime.options import Options
from device_agent.wire.commands import ALLOWED, UNSIGNED, verbs_of
from device_agent.wire.dsse import TrustedKeys, load_trusted_keys
from device_agent.wire.payload import Limits
from device_agent.wire.topics import Topics

_UNIX = "unix://"


def agent_options(settings: Settings) -> Options:
    """Raises `BadSetting` for keys and a policy that cannot be used."""
    identity = Identity(settings.fleet, settings.device_id)
    trusted = trusted_keys(settings)
    return Options(
        identity=identity,
        topics=Topics(settings.topic_root, settings.fleet, settings.device_id),
        naming=Naming(str(identity), settings.name_prefix),
        policy=replace(load_policy(settings.policy_file), own=own(settings)),
        limits=Limits(settings.target_max_bytes, settings.target_max_inflated_bytes),
        trusted=trusted,
        reserve=settings.reserve(),
        will_delay_s=settings.mqtt_will_delay,
        commands=ALLOWED if settings.commands is None else verbs_of(settings.commands),
        unsigned=UNSIGNED if settings.unsigned_commands is None else verbs_of(settings.unsigned_commands),
    )


def own(settings: Settings) -> Own:
    """Where the agent, its settings and its engine's socket are, whatever they are called here."""
    files = [value for name in Settings.model_fields if isinstance(value := getattr(settings, name), Path)]
    if settings.engine_url.startswith(_UNIX):
        files.append(Path(settings.engine_url.removeprefix(_UNIX)))
    volumes, paths = own_places(files, read_mountinfo())
    return Own(Own().volumes | volumes, paths - set(ENGINE_SOCKETS))


def trusted_keys(settings: Settings) -> Callable[[], TrustedKeys] | None:
    """Reads them anew each time; None: none are set. Raises `BadSetting` for keys that cannot be used now."""
    if settings.trusted_keys is None:
        return None
    trusted = functools.partial(load_trusted_keys, settings.trusted_keys, settings.signature_threshold)
    try:
        trusted()
    except ValueError as error:
        raise BadSetting(f"DEVICE_AGENT_TRUSTED_KEYS: {error}") from None
    return trusted


def registry_auth(settings: Settings) -> RegistryAuth:
    """Raises `BadSetting` for what cannot be used now; each pull reads it anew."""
    auth = RegistryAuth(settings.registry_auth)
    try:
        auth.logins()
    except ValueError as error:
        raise BadSetting(f"{SETTING}: {error}") from None
    return auth
