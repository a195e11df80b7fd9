"""The documentation's list of keys and the tables that read them say the same, so that neither drifts."""

import re
from collections.abc import Iterable
from pathlib import Path

from device_agent.model import (
    compose_files,
    compose_limits,
    compose_networking,
    compose_resources,
    compose_service,
    validate,
)

PAGE = (Path(__file__).parents[2] / "docs" / "reconciling.md").read_text()
SECTION = PAGE.partition("## Compose keys")[2].partition("\n## ")[0]
KEY = re.compile(r"`([a-z0-9_]+)`(?: \(([^)]*)\))?")


def listed(text: str) -> dict[str, set[str]]:
    """Key → the keys that stand in parentheses behind it. One that is there twice would be noticed."""
    found = [(name, set(re.findall(r"`([a-z0-9_]+)`", inside))) for name, inside in KEY.findall(text)]
    assert len(found) == len(dict(found)), "a key is listed twice"
    return dict(found)


def paragraph(start: str) -> str:
    return SECTION.partition(start)[2].partition("\n\n")[0]


SERVICE = listed("\n".join(line.split("|")[1] for line in SECTION.splitlines() if line.startswith("| `")))
IGNORED = listed(paragraph("Accepted with a warning"))
REFUSED = listed(paragraph("Refused by this version").replace("Resolved when publishing", ""))
TOP = listed(paragraph("Top level:"))


def same(documented: Iterable[str], read: Iterable[str]) -> None:
    assert sorted(documented) == sorted(read)


def test_the_keys_of_a_service():
    same(SERVICE, (key for key in compose_service._SERVICE if not key.startswith("x-")))
    same(REFUSED, compose_service._SERVICE_REFUSED)
    same(IGNORED, [*compose_service._SERVICE_IGNORED, "deploy"])


def test_the_keys_inside_a_key():
    same(SERVICE["networks"], compose_networking._SERVICE_NETWORK)
    same(SERVICE["secrets"], compose_files._GRANT)
    same(SERVICE["depends_on"], compose_service._DEPENDENCY)
    same(SERVICE["blkio_config"], compose_limits._BLKIO)
    same(SERVICE["deploy"], compose_limits._DEPLOY)
    same(IGNORED["deploy"], compose_limits.DEPLOY_IGNORED)


def test_the_keys_of_an_app():
    same(TOP["networks"], compose_resources._NETWORK)
    same(TOP["volumes"], compose_resources._VOLUME)
    same(TOP["secrets"], compose_files._DEFINITION)
    same(TOP, {"services", "networks", "volumes", *validate._FILES})
    assert not TOP.keys() & validate._APP_REFUSED.keys()
