"""A plan in the making."""

import pytest

from device_agent.core.draft import Draft
from device_agent.model.steps import Remove, Step
from tests.builders import attempts


def test_steps_that_wait_for_each_other_are_told_and_not_waited_for():
    draft = Draft("web", attempts())
    for name, other in (("a", "b"), ("b", "c"), ("c", "b")):
        draft.add(Step(Remove(name, name), name, "", "", after=frozenset({f"remove {other}"})))
    with pytest.raises(AssertionError, match="remove a, remove b, remove c"):
        draft.in_order()
