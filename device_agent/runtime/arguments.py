"""The arguments of a command, checked. Every function raises `Refused` (`malformed`)."""

from collections.abc import Mapping

from device_agent.model.errors import Refused
from device_agent.model.target import Json


def no_more(args: Mapping[str, Json], *known: str) -> None:
    unknown = sorted(args.keys() - set(known))
    if unknown:
        raise Refused("malformed", f"unknown argument: {', '.join(unknown)}")


def text(args: Mapping[str, Json], name: str) -> str:
    value = args.get(name)
    if not isinstance(value, str) or not value:
        raise Refused("malformed", f"the argument {name} is a name")
    return value


def optional_text(args: Mapping[str, Json], name: str) -> str | None:
    return None if args.get(name) is None else text(args, name)
