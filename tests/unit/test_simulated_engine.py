"""What only the simulated engine can do: fail at every call, be away, and be moved by a test."""

from threading import Event
from typing import Any

import pytest

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_parts import Behaviour
from device_agent.model.compose import Healthcheck, Port, Restart, Service
from device_agent.model.errors import EngineAway, EngineError
from device_agent.model.observed import LABEL_APP, LABEL_DEVICE, LABEL_SERVICE, Container, Health, Status
from device_agent.model.steps import Create

LABELS = {LABEL_DEVICE: "f/d", LABEL_APP: "shop"}


class PowerCut(BaseException):
    pass


def step(service: str = "api", **keys: Any) -> Create:
    made = Service(image="a:1", **keys)
    return Create(service, "a:1", made, {**LABELS, LABEL_SERVICE: service}, "none")


@pytest.fixture
def engine() -> SimulatedEngine:
    engine = SimulatedEngine("f/d")
    engine.world.add_image("a:1")
    return engine


def by_name(engine: SimulatedEngine) -> dict[str, Container]:
    return {c.name: c for c in engine.observe().containers}


def test_every_call_can_fail_before_and_after_it_took_effect(engine: SimulatedEngine) -> None:
    calls: list[tuple[str, tuple[Any, ...]]] = []
    cut_at = "create"

    def before_call(name: str, arguments: tuple[Any, ...]) -> None:
        calls.append((name, arguments))
        if name == cut_at:
            raise PowerCut

    engine.before_call = before_call
    with pytest.raises(PowerCut):
        engine.create(step())
    assert by_name(engine) == {}

    cut_at = "create.done"
    with pytest.raises(PowerCut):
        engine.create(step())
    assert set(by_name(engine)) == {"api"}
    assert calls[0] == ("create", (step(),))


def test_an_engine_that_goes_away_in_the_middle_of_a_call(engine: SimulatedEngine) -> None:
    def before_call(name: str, _: tuple[Any, ...]) -> None:
        engine.world.away = name == "create.done"

    engine.before_call = before_call
    with pytest.raises(EngineAway):
        engine.create(step())

    engine.world.away = False
    engine.before_call = lambda *_: None
    assert set(by_name(engine)) == {"api"}


def test_a_reboot_starts_what_the_policies_say(engine: SimulatedEngine) -> None:
    policies = ("no", "on-failure", "unless-stopped", "always")
    for policy in policies:
        for word in ("runs", "stopped"):
            engine.create(step(f"{policy}-{word}", restart=Restart(policy=policy)))
            engine.start(f"{policy}-{word}")
            if word == "stopped":
                engine.stop(by_name(engine)[f"{policy}-{word}"].id, 1)
        engine.create(step(f"{policy}-created", restart=Restart(policy=policy)))

    engine.world.reboot()

    running = {name for name, c in by_name(engine).items() if c.status is Status.RUNNING}
    assert running == {"unless-stopped-runs", "always-runs", "always-stopped"}


def test_health_is_told_a_tick_after_the_start(engine: SimulatedEngine) -> None:
    id_ = engine.world.image("a:1")
    engine.world.behaviours[id_] = Behaviour(health=Health.UNHEALTHY)
    engine.create(step(healthcheck=Healthcheck(test=("CMD", "x"))))
    engine.start("api")
    assert by_name(engine)["api"].health is Health.STARTING

    engine.world.tick()
    assert by_name(engine)["api"].health is Health.UNHEALTHY

    engine.world.become_healthy("api")
    assert by_name(engine)["api"].health is Health.HEALTHY


def test_an_image_that_was_untagged_is_gone_and_can_be_pulled_again(engine: SimulatedEngine) -> None:
    engine.world.untag("a:1")
    with pytest.raises(EngineError, match="a:1"):
        engine.create(step())

    moved = engine.world.offer_image("a:1", "sha256:" + "b" * 64)
    engine.pull("a:1", None, lambda _: None, Event())

    assert engine.observe().images["docker.io/library/a:1"] == moved


def test_ports_are_free_again_when_their_holder_has_ended(engine: SimulatedEngine) -> None:
    port = Port(target=80, published="80")
    engine.world.add_foreign("stranger", ports=(port,))
    engine.create(step(ports=(port,)))
    with pytest.raises(EngineError):
        engine.start("api")

    engine.world.kill("stranger")
    engine.start("api")

    assert by_name(engine)["api"].published == {(80, "tcp")}


def test_a_range_gives_the_first_that_is_free(engine: SimulatedEngine) -> None:
    for name in ("one", "two"):
        engine.create(step(name, ports=(Port(target=80, published="8000-8001"),)))
        engine.start(name)
    engine.create(step("three", ports=(Port(target=80, published="8000-8001"),)))

    assert by_name(engine)["two"].published == {(8001, "tcp")}
    with pytest.raises(EngineError):
        engine.start("three")


def test_two_agents_share_a_world(engine: SimulatedEngine) -> None:
    other = SimulatedEngine("f/other", engine.world)
    engine.create(step())

    assert other.observe().containers == ()
    with pytest.raises(EngineError):
        other.create(step())
