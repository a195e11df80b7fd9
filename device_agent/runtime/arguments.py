"""The arguments of a command, checked. Every function raises `Refused` (`malformed`)."""

import json
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


def document(args: Mapping[str, Json]) -> bytes:
    """A target, or an envelope around one: as text, or as it is in JSON."""
    document = args.get("target")
    if isinstance(document, dict):
        document = json.dumps(document, ensure_ascii=False)
    if not isinstance(document, str):
        raise Refused("malformed", "the argument target is the document, or its text")
    try:
        # As the command line wrote its bytes as text, for what is no UTF-8: a compressed target.
        return document.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise Refused("malformed", "the argument target is not Unicode: a lone surrogate") from error
