"""YAML as Compose reads it: the 1.2 core schema, where `no` is a word and `22:22` is not a number of seconds."""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """PyYAML's resolvers are YAML 1.1's; Compose Files are written for a 1.2 parser."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the name and shape are PyYAML's
        letter: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[1] in ("merge", "null")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    digits = loader.construct_scalar(node).replace("_", "")
    # A leading zero is octal, as in YAML 1.1 and to Compose's parser: `mode: 0755`.
    return int(digits, 8) if digits.lstrip("-+").isdecimal() and digits.lstrip("-+").startswith("0") else int(digits, 0)


for _name, _regexp, _letters in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0[0-7_]*|[1-9][0-9_]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_regexp})$"), list(_letters))
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def load(text: str) -> Any:
    """One document, JSON or YAML. Raises `ValueError` with the place in the file."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader, with other resolvers
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error
