"""One app around one service, and what validation makes of it.

Canonical values are written as the dump that is hashed: `model_dump(mode="json", exclude_defaults=True)`.
"""

from typing import Any

import pytest

from device_agent.model.errors import Refused
from device_agent.model.target import Json
from device_agent.model.validate import validate_apps

SERVICE = "/apps/web/services/api"
HINT = "cloud-sim publish does it"


def app(service: Json, **sections: Json) -> Json:
    return {
        "services": {"api": service, "db": {"image": "db"}},
        "networks": {"front": {}, "back": None},
        "volumes": {"data": {}},
        **sections,
    }


def dump(document: Json) -> dict[str, Any]:
    return validate_apps({"web": document}).apps["web"].model_dump(mode="json", exclude_defaults=True)


def canonical(key: str, value: Json) -> Json:
    """The canonical value of one key of a service; None where it is the default."""
    return dump(app({"image": "api", key: value}))["services"]["api"].get(key)


def refused(document: Json) -> tuple[str, dict[str, str]]:
    with pytest.raises(Refused) as refusal:
        validate_apps({"web": document})
    problems = refusal.value.problems
    assert [problem.pointer for problem in problems] == sorted(problem.pointer for problem in problems)
    return refusal.value.code, {problem.pointer: problem.message for problem in problems}
