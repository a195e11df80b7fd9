"""A simulated device answers what arrives as the agent alone does, whatever else has been decided in its process."""

import json
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sim.engine_parts import Behaviour, image_id
from cloud_sim.engine_world import World
from cloud_sim.simulation.faults import CALL, HEALTH, PULL, STOP, EveryImage
from cloud_sim.simulation.sharing import Shared
from device_agent.core.policy import Policy
from device_agent.model.image import normalise
from tests.builders import document
from tests.device import TOPICS, Device
from tests.simulated_device import Simulated

AT_ONCE = {PULL: 0.0, STOP: 0.0, CALL: 0.0, HEALTH: 5.0}
LONG_S = 400.0
"""Longer than any gate and than the longest back-off."""
SHARED = Shared()
"""Of all cases: what one device has decided must never be another's answer to something else."""

services = st.sampled_from(
    [
        {"image": "api:1"},
        {"image": "api:2"},
        {"image": "api:1", "environment": {"A": "1"}},
        {"image": "ends:1"},
        {"image": "ends:1", "restart": "always"},
        {"image": "api:1", "healthcheck": {"test": ["CMD", "true"]}},
        {"image": "api:1", "build": "."},
        {"image": "api:1", "privileged": True},
    ]
)
apps = st.dictionaries(
    st.sampled_from(["web", "db"]),
    st.builds(
        lambda api, gate: {"services": {"api": api}, "x-release": gate},
        services,
        st.sampled_from([{}, {"healthy_for": "0s"}]),
    ),
    max_size=2,
)


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Bytes, and whether they come on the device's own topic."""
    own = draw(st.booleans())
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from([b"", b"{", b"[]", b'{"schema": 2}'])), own
    scope = {"device": TOPICS.device} if own else {}
    revision, release = draw(st.integers(1, 4)), draw(st.sampled_from([None, "a"]))
    body = document(draw(apps), revision=revision, release=release, **scope)
    if draw(st.integers(0, 5)) == 0:
        body["allow_empty"] = True
    return json.dumps(body).encode(), own


def faulty(world: World) -> World:
    world.registry = EveryImage()
    world.behaviours[image_id(normalise("ends:1"))] = Behaviour(exit_code=1)
    return world


@settings(max_examples=40)
@given(st.lists(arrivals(), min_size=1, max_size=4))
def test_it_gives_the_same_answers(arriving: list[tuple[bytes, bool]]) -> None:
    alone = Device(Policy())
    faulty(alone.world)
    alone.boot()
    simulated = Simulated(SHARED, latencies=AT_ONCE)
    faulty(simulated.world)
    simulated.boot()
    for content, own in arriving:
        alone.bring(content, device=own)
        simulated.bring(content, device=own)
        alone.wait(LONG_S)
        simulated.wait(LONG_S)
    assert by_app(simulated.acks()) == by_app(alone.acks())
    assert lasting(simulated.state()) == lasting(alone.state())


def by_app(acks: list[dict[str, Any]]) -> dict[str | None, list[dict[str, Any]]]:
    """In order for each app, without number and time, and without what jitter has a part in."""
    found: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for ack in acks:
        passing = ("seq", "at", "session", "attempt", "next_try_at")
        found[ack.get("app")].append({key: value for key, value in ack.items() if key not in passing})
    return found


def lasting(state: dict[str, Any]) -> Any:
    """What is wanted and what is there, without when it came about."""
    kept = {key: state[key] for key in ("have", "effective_digest", "converged", "orphans")}
    kept["apps"] = {
        name: {service: (told["container"], told["image_id"]) for service, told in app["services"].items()}
        for name, app in state["apps"].items()
    }
    return kept
