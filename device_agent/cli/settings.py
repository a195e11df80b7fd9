"""The settings: one frozen object, read once. Environment `DEVICE_AGENT_*` over a TOML file over defaults.

An unknown setting is an error: it is a typing mistake. Secrets are files, never values.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from device_agent.adapters.broker import Broker, parse_url
from device_agent.core.policy import RULES, Policy
from device_agent.core.room import Reserve
from device_agent.model import compose_units
from device_agent.model.compose_units import NotValid
from device_agent.wire.commands import verbs_of
from device_agent.wire.topics import check_id, check_root

PREFIX = "DEVICE_AGENT_"
_COMPOSE_ONLY = frozenset((PREFIX + "IMAGE", PREFIX + "VOLUME"))
"""Read by the Compose file, not by the agent."""


_WHOLE = 100
_SUMS = {"memory_max": compose_units.limit, "cpus_max": compose_units.cpus}
"""The rules of a policy with Compose's units."""


class BadSetting(Exception):  # noqa: N818
    """The start stops here, with this one line."""


class Settings(BaseSettings):
    """Every field is the setting of the same name: `mqtt_url` is `DEVICE_AGENT_MQTT_URL`, or `mqtt_url` in the file."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    fleet: str
    device_id: str
    mqtt_url: str = "mqtt://localhost:1883"
    mqtt_version: Literal["5", "3.1.1"] = "5"
    mqtt_username: str | None = None
    mqtt_password_file: Path | None = None
    mqtt_ca_file: Path | None = None
    mqtt_cert_file: Path | None = None
    mqtt_key_file: Path | None = None
    mqtt_keepalive: Annotated[int, Field(ge=5, le=65535)] = 60
    """Seconds."""
    mqtt_session_expiry: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 3600
    """Seconds that the broker keeps the session of a device that is away."""
    mqtt_will_delay: Annotated[int, Field(ge=0, le=0xFFFFFFFF)] = 30
    """Seconds from a broken connection to the Will; 0 for brokers that do not retain a Will with a delay."""
    topic_root: str = "fleet/v1"
    data_dir: Path = Path("/app/data")
    control_socket: Path = Path("/run/device-agent/control.sock")
    engine_url: str = "unix:///var/run/docker.sock"
    name_prefix: Annotated[str, Field(pattern=r"^([a-zA-Z0-9][a-zA-Z0-9_.-]{0,62})?$")] = ""
    trusted_keys: Path | None = None
    signature_threshold: Annotated[int, Field(ge=1)] = 1
    commands: str | None = None
    """The verbs that may come over MQTT, with commas between; `all`; `none`. None: all but `purge`."""
    unsigned_commands: str | None = None
    """With trusted keys, those that need no signature. None: `report`, `plan` and `explain`."""
    policy_file: Path | None = None
    registry_auth: Path | None = None
    """A Docker `config.json`, or a folder of them."""
    disk_reserve: str = "10%"
    """What pulls leave free: a share of the disk, and then at least 256 MiB, or a size."""
    target_max_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 1024 * 1024
    """A target as it travels."""
    target_max_inflated_bytes: Annotated[int, Field(ge=1024, le=256 * 1024 * 1024)] = 8 * 1024 * 1024
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] | None = None
    """None: console at a terminal, else JSON."""
    config_file: Path | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment outweighs what is given to the constructor, which is the file."""
        return (env_settings, init_settings)

    @field_validator("mqtt_version", mode="before")
    @classmethod
    def _number_or_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value

    @field_validator("fleet", "device_id")
    @classmethod
    def _is_id(cls, value: str, info: ValidationInfo) -> str:
        return check_id(value, "fleet" if info.field_name == "fleet" else "device id")

    @field_validator("mqtt_url")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        parse_url(value)
        return value

    @field_validator("commands", "unsigned_commands")
    @classmethod
    def _are_verbs(cls, value: str | None) -> str | None:
        if value is not None:
            verbs_of(value)
        return value

    @field_validator("topic_root")
    @classmethod
    def _is_root(cls, value: str) -> str:
        return check_root(value)

    @field_validator("engine_url")
    @classmethod
    def _is_engine(cls, value: str) -> str:
        if not value.startswith(("unix://", "tcp://", "http://", "https://")):
            raise ValueError("an engine's URL starts with unix:// or tcp://")
        return value

    @field_validator("disk_reserve")
    @classmethod
    def _is_reserve(cls, value: str) -> str:
        _reserve(value)
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> "Settings":
        self.broker()
        if self.signature_threshold > 1 and self.trusted_keys is None:
            raise ValueError(f"{PREFIX}SIGNATURE_THRESHOLD is above 1, and {PREFIX}TRUSTED_KEYS is not set")
        if self.unsigned_commands is not None and self.trusted_keys is None:
            raise ValueError(
                f"{PREFIX}UNSIGNED_COMMANDS is set, and {PREFIX}TRUSTED_KEYS is not: no command needs a key"
            )
        return self

    def reserve(self) -> Reserve:
        return _reserve(self.disk_reserve)

    def broker(self) -> Broker:
        """Raises ValueError."""
        return Broker(
            parse_url(self.mqtt_url),
            self.mqtt_version,
            self.mqtt_username,
            self.mqtt_password_file,
            self.mqtt_ca_file,
            self.mqtt_cert_file,
            self.mqtt_key_file,
        )


def _reserve(text: str) -> Reserve:
    """`10%`, or a size as Compose writes it. Raises ValueError."""
    if text.endswith("%"):
        percent = text.removesuffix("%")
        if not percent.isdecimal() or int(percent) >= _WHOLE:
            raise ValueError("expected a share of the disk below 100%, or a size such as 1g")
        return Reserve(percent=float(percent))
    try:
        return Reserve(percent=0.0, least=compose_units.limit(text) or 0)
    except NotValid as error:
        raise ValueError(f"expected a share of the disk such as 10%, or a size: {error}") from None


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Raises `BadSetting` with one line that names the setting."""
    environment = os.environ if environment is None else environment
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known | _COMPOSE_ONLY and environment[name]:
            raise BadSetting(f"{name} is not a setting{_guess(name, known)}")
    config_file = environment.get(PREFIX + "CONFIG_FILE")
    values = _file(Path(config_file)) if config_file else {}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise BadSetting(_first(error, values, environment)) from None


def _file(path: Path) -> dict[str, Any]:
    values = _toml(path, f"{PREFIX}CONFIG_FILE: {path}")
    for name in values:
        if name not in Settings.model_fields:
            raise BadSetting(f"{path}: {name} is not a setting{_guess(name, set(Settings.model_fields))}")
    return values


def _toml(path: Path, where: str) -> dict[str, Any]:
    """What a file holds. Raises `BadSetting` that begins with `where`."""
    import tomllib  # noqa: PLC0415 - most agents are set up by their environment

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadSetting(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise BadSetting(f"{where}: {error}") from None


def _guess(name: str, known: set[str]) -> str:
    import difflib  # noqa: PLC0415 - for mistakes only

    near = difflib.get_close_matches(name, known, 1)
    return f": did you mean {near[0]}?" if near else ""


def _first(error: ValidationError, values: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    problem = error.errors()[0]
    name = str(problem["loc"][0]) if problem["loc"] else ""
    message = problem["msg"].removeprefix("Value error, ")
    variable = PREFIX + name.upper()
    if not name:
        return message
    if problem["type"] == "missing":
        return f"{variable} is required"
    if name in values and variable not in environment:
        return f"{name} in {environment.get(PREFIX + 'CONFIG_FILE')}: {message}"
    return f"{variable}: {message}"


def sources(settings: Settings, environment: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """Setting → (value, where it is from): what `device-agent config` prints. Secrets are files: paths are shown."""
    environment = os.environ if environment is None else environment
    table = {}
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        value = getattr(settings, name)
        origin = (
            "environment" if environment.get(variable) else "file" if name in settings.model_fields_set else "default"
        )
        table[variable] = ("" if value is None else str(value), origin)
    return table


def load_policy(path: Path | None) -> Policy:
    """The device owner's policy; strict where nothing is said. Raises `BadSetting`."""
    if path is None:
        return Policy()
    where = f"{PREFIX}POLICY_FILE: {path}"
    values = _toml(path, where)
    for name, value in values.items():
        if name not in RULES:
            raise BadSetting(f"{where}: {name} is not of a policy{_guess(name, set(RULES))}")
        values[name] = _rule(f"{where}: {name}", value, _SUMS.get(name), RULES[name])
    return Policy(**values)


def _rule(where: str, value: Any, parse: Callable[[Any], int | None] | None, default: object) -> object:
    """One rule's value; which form it has is told by its default. Raises `BadSetting`."""
    if parse is not None:
        try:
            return parse(value)
        except NotValid as error:
            raise BadSetting(f"{where}: {error}") from None
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadSetting(f"{where} must be true or false")
        return value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadSetting(f"{where} must be a list of strings")
    return tuple(value)
