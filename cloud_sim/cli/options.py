"""Settings that every command takes, as options and from the environment, and how a command ends."""

import functools
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from rich.console import Console

from cloud_sim.cloud import Cloud, NotConverged
from cloud_sim.connection import Broker, Denied, Misconfigured, Unreachable
from device_agent.model.errors import Refused
from device_agent.wire.topics import DEFAULT_ROOT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DONE, FAILED, USAGE, TOO_LATE, INTERRUPTED = 0, 1, 2, 3, 130

_BROKER = "Broker"


class MqttVersion(StrEnum):
    V5 = "5"
    V311 = "3.1.1"


def _option(name: str, variable: str, text: str, **more: Any) -> Any:
    return typer.Option(f"--{name}", envvar=f"CLOUD_SIM_{variable}", help=text, rich_help_panel=_BROKER, **more)


def default_database() -> Path:
    """In the user's data folder, as the XDG Base Directory Specification names it."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "cloud-sim" / "cloud-sim.sqlite"


Keys = Annotated[
    list[Path] | None,
    typer.Option(
        "--key", envvar="CLOUD_SIM_SIGNING_KEY", metavar="FILE", help="Sign with this key; may be given several times."
    ),
]


@dataclass(frozen=True, slots=True)
class Settings:
    """Which fleet, and how its broker is reached."""

    fleet: Annotated[str | None, _option("fleet", "FLEET", "The fleet.")] = None
    url: Annotated[str, _option("url", "MQTT_URL", "The broker: mqtt://HOST[:PORT], or mqtts:// for TLS.")] = (
        "mqtt://localhost:1883"
    )
    mqtt_version: Annotated[MqttVersion, _option("mqtt-version", "MQTT_VERSION", "The protocol's version.")] = (
        MqttVersion.V5
    )
    username: Annotated[str | None, _option("username", "MQTT_USERNAME", "Who to log in as.")] = None
    password_file: Annotated[Path | None, _option("password-file", "MQTT_PASSWORD_FILE", "Its password.")] = None
    ca_file: Annotated[Path | None, _option("ca-file", "MQTT_CA_FILE", "Who signs the broker's certificate.")] = None
    cert_file: Annotated[Path | None, _option("cert-file", "MQTT_CERT_FILE", "Our certificate.")] = None
    key_file: Annotated[Path | None, _option("key-file", "MQTT_KEY_FILE", "Its key.")] = None
    topic_root: Annotated[str, _option("topic-root", "TOPIC_ROOT", "What every topic starts with.")] = DEFAULT_ROOT
    database: Annotated[
        Path,
        _option(
            "database",
            "DATABASE",
            "What this cloud published and heard, in SQLite.",
            default_factory=default_database,
            show_default="~/.local/share/cloud-sim/cloud-sim.sqlite",
        ),
    ] = Path()

    def broker(self) -> Broker:
        """Raises `Misconfigured`."""
        return Broker.of(
            self.url,
            version=self.mqtt_version.value,
            username=self.username,
            password_file=self.password_file,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
        )

    def cloud(self, fleet: str | None = None, *, keys: Sequence["Ed25519PrivateKey"] = ()) -> Cloud:
        """Not connected yet. Raises `Misconfigured`."""
        chosen = self.fleet or fleet
        if not chosen:
            raise Misconfigured("which fleet? Say --fleet NAME, or set CLOUD_SIM_FLEET")
        if self.username and not self.url.startswith("mqtts://"):
            note(f"the password travels unencrypted to {self.url}: use mqtts://")
        return Cloud(
            self.url,
            chosen,
            database=self.database,
            root=self.topic_root,
            username=self.username,
            password_file=self.password_file,
            ca_file=self.ca_file,
            cert_file=self.cert_file,
            key_file=self.key_file,
            mqtt_version=self.mqtt_version.value,
            keys=keys,
            tell=note,
        )


def with_settings(command: Callable[..., int]) -> Callable[..., None]:
    """A command that takes `settings` gets every one of them as an option, and its answer becomes the exit code."""
    hints = get_type_hints(Settings, include_extras=True)
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            # A default that is made when it is needed may not be given twice.
            default=inspect.Parameter.empty if name == "database" else field.default,
            annotation=hints[name],
        )
        for name, field in Settings.__dataclass_fields__.items()
    ]
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(command).parameters.values()
        if parameter.name != "settings"
    ]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        settings = Settings(**{option.name: values.pop(option.name) for option in options})
        with ending():
            raise typer.Exit(command(settings=settings, **values))

    run.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *options)}
    return run


@contextmanager
def ending() -> Iterator[None]:
    """Errors become one line that says what to do, and the exit code that scripts go by."""
    try:
        yield
    except Misconfigured as error:
        complain(str(error))
        raise typer.Exit(USAGE) from error
    except Refused as refused:
        complain(
            f"refused ({refused.code}): {refused.message}", *(f"{p.pointer}: {p.message}" for p in refused.problems)
        )
        raise typer.Exit(USAGE) from refused
    except Unreachable as error:
        complain(f"{error}. Is it running, and is --url (CLOUD_SIM_MQTT_URL) right?")
        raise typer.Exit(FAILED) from error
    except Denied as error:
        complain(f"{error}. See --username and --password-file, and the broker's access rules")
        raise typer.Exit(FAILED) from error
    except NotConverged as error:
        complain("not converged in time", *(f"{device}: {why}" for device, why in error.why.items()))
        raise typer.Exit(TOO_LATE) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error
    except BrokenPipeError as error:
        # Whoever read us has seen enough, as `head` has, which is no error. Nothing more can be said, not even by the
        # interpreter when it flushes at exit.
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
        raise typer.Exit(DONE) from error


def complain(message: str, *places: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[red]error:[/red]", end=" ")
    console.print(message, markup=False)
    for place in places:
        console.print(f"  {place}", markup=False)


def note(message: str) -> None:
    """Something that nobody asked for, and that an operator should know."""
    text = f"note: {message}"
    # To sys.stderr as it is now, not to the stream beneath: while a live table is shown, it puts lines above the table.
    sys.stderr.write((typer.style(text, fg=typer.colors.YELLOW) if sys.stderr.isatty() else text) + "\n")
    sys.stderr.flush()


def seconds(text: str | float) -> float:
    """`90`, `90s`, `5m` or `2h`."""
    if not isinstance(text, str):
        return text
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if not match:
        raise typer.BadParameter(f"{text!r} is not a duration: write 90s, 5m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
