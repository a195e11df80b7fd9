"""Decide once what thousands decide alike.

A target is read once for each different payload. What a device wants follows from its targets alone, so devices with
the same ones share it. Whether a target is for a device, new to it, or too old, each decides for itself.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from device_agent.core.intake import Standing, Wanted
from device_agent.model.errors import Refused
from device_agent.model.target import Json, Target
from device_agent.runtime.documents import Documents

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

KEPT = 256
"""Different documents, and different answers. A fleet has one or two at a time; its devices may each have their own."""

_T = TypeVar("_T")


class Shared:
    """What has been read and decided lately. An answer that is a refusal is one too."""

    def __init__(self) -> None:
        self.bodies = _Answers()
        self.targets = _Answers()
        self.wanted = _Answers()


class _Answers:
    def __init__(self) -> None:
        self._known: OrderedDict[Any, tuple[Any, Any]] = OrderedDict()

    def answer(self, key: Any, question: Callable[[], _T], alive: Any = None) -> _T:
        """`question`'s answer, asked once for a key. `alive` is kept as long: keys may be made of its `id`s."""
        found = self._known.get(key)
        if found is None:
            try:
                found = (question(), alive)
            except Refused as refused:
                found = (refused, alive)
            self._known[key] = found
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        answer = found[0]
        if isinstance(answer, Refused):
            # A new one: raised again, the old one would grow by a traceback each time.
            raise Refused(answer.code, answer.message, answer.problems)
        return answer


class SharedDocuments(Documents):
    """An agent's documents, read and decided on together with others of the same policy and the same naming."""

    __slots__ = ("_shared",)

    def __init__(self, agent: "Agent", shared: Shared) -> None:
        super().__init__(agent)
        self._shared = shared

    def body_of(self, payload: bytes, content_type: str | None) -> Json:
        return self._shared.bodies.answer(
            (payload, content_type), lambda: Documents.body_of(self, payload, content_type)
        )

    def target_of(self, body: Json, payload: bytes, content_type: str | None) -> Target:
        key = (payload, content_type)
        return self._shared.targets.answer(key, lambda: Documents.target_of(self, body, payload, content_type))

    def wanted_after(self, standing: Standing, *arriving: Target) -> Wanted:
        has = tuple(accepted.target for accepted in standing.targets.values())
        key = (*map(id, has), None, *map(id, arriving), standing.has_apps)
        return self._shared.wanted.answer(
            key, lambda: Documents.wanted_after(self, standing, *arriving), (has, arriving)
        )
