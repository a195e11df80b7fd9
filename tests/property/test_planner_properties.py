"""What holds for every plan, whatever the target and the world: shown on a simulated engine.

The goal is stated without the planner (`shortcomings`), and the worlds are drawn around what is wanted.
"""

import threading
from dataclasses import replace
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from device_agent.core.backoff import Attempts
from device_agent.core.matching import match_services
from device_agent.core.planner import plan_app, plan_removal
from device_agent.model.errors import EngineError
from device_agent.model.memory import Attempt
from device_agent.model.observed import LABEL_SERVICE, Container, Health, Status
from device_agent.model.steps import Create, Plan, Pull, Remove, Start, Step, Stop
from device_agent.runtime.execute import execute
from tests.builders import NOW, attempts, wanted
from tests.property.strategies import Scene, documents, scenes, shortcomings

MOST_PASSES = 12


def carry_out(scene: Scene, plan: Plan, attempts: dict[tuple[str, str], Attempt]) -> int:
    """Every step that can go, in the order in which each becomes ready. Returns how many were done."""
    done: set[str] = set()
    failed: set[str] = set()
    at_once = threading.Event()
    at_once.set()
    while ready := [s for s in plan.steps if s.id not in done | failed and not s.until and s.after <= done]:
        for step in ready:
            try:
                if isinstance(step.action, Pull):
                    scene.engine.pull(step.action.image, None, lambda _: None, threading.Event())
                    failed.add(step.id)  # what waits for it is planned anew
                    continue
                execute(step.action, scene.engine, at_once)
            except EngineError as error:
                failed.add(step.id)
                attempts[plan.app, step.subject] = Attempt(
                    plan.app, step.subject, step.spec, 1, error.code, error.message, NOW + timedelta(seconds=1)
                )
            else:
                done.add(step.id)
                if isinstance(step.action, Start):
                    up = [c for c in scene.engine.observe().containers if c.service == service_of(step) and c.up]
                    assert len(up) <= 1, f"{step}\n{plan}"
    return len(done | failed)


def strategy_of(scene: Scene) -> str:
    return str(scene.document["x-update"]["strategy"])


def service_of(step: Step) -> str:
    return step.subject.removeprefix("previous ")


def planned(scene: Scene, rows: dict[tuple[str, str], Attempt] | None = None, after_s: float = 0) -> Plan:
    known = Attempts(NOW + timedelta(seconds=after_s), rows or {})
    return plan_app(scene.wanted, scene.engine.observe(), known, {})


@given(scenes())
def test_it_converges(scene):
    rows: dict[tuple[str, str], Attempt] = {}
    history = []
    for number in range(MOST_PASSES):
        plan = planned(scene, rows, after_s=2 * (number % 2))
        history.append(str(plan))
        carry_out(scene, plan, rows)
        if number % 2:
            rows.clear()
        scene.world.tick()
        if not planned(scene).steps:
            break
    assert shortcomings(scene.wanted, scene.world) == [], "\n--\n".join(history)
    assert not planned(scene).steps


@given(scenes())
def test_there_is_nothing_to_do_exactly_when_the_goal_is_met(scene):
    plan = planned(scene)
    waiting = [text for text in shortcomings(scene.wanted, scene.world) if not text.endswith("it is starting")]
    assert bool(plan.steps) == bool(waiting), str(plan)


@given(scenes(), st.randoms(use_true_random=False))
def test_the_order_of_listing_and_of_the_target_is_irrelevant(scene, chance):
    def shuffled(items):
        copy = list(items)
        chance.shuffle(copy)
        return copy

    observed = scene.engine.observe()
    other_listing = replace(
        observed,
        containers=tuple(shuffled(observed.containers)),
        networks=tuple(shuffled(observed.networks)),
        volumes=tuple(shuffled(observed.volumes)),
        images=dict(shuffled(observed.images.items())),
    )
    assert str(plan_app(scene.wanted, other_listing, attempts(), {})) == str(planned(scene))


@given(documents(), st.randoms(use_true_random=False))
def test_the_order_of_keys_changes_no_spec(document, chance):
    names = list(document["services"])
    chance.shuffle(names)
    shuffled = document | {"services": {name: dict(reversed(document["services"][name].items())) for name in names}}
    one, other = wanted(document), wanted(shuffled)
    assert one.digest == other.digest
    assert {n: s.basis for n, s in one.services.items()} == {n: s.basis for n, s in other.services.items()}


@given(scenes())
def test_what_is_as_it_should_be_appears_in_no_step(scene):
    wrong = shortcomings(scene.wanted, scene.world)
    mine = [c for c in scene.engine.observe().containers if c.app == scene.wanted.name]
    networks_change = any("network" in text or "not on" in text for text in wrong)
    text = str(planned(scene))
    for container in mine:
        made = scene.wanted.services.get(container.service)
        names = {container.service, *(made.shares if made else ())}
        about = [w for w in wrong if w.startswith(tuple(f"{name}{end}" for name in names for end in (":", " has")))]
        if about or networks_change or container.service not in scene.wanted.services:
            continue
        assert container.name not in text


@given(scenes())
def test_what_runs_is_stopped_only_when_all_images_are_there(scene):
    plan = planned(scene)
    pulls = {s.id for s in plan.steps if isinstance(s.action, Pull)}
    for step in plan.steps:
        if step.cause.startswith("it makes room") and strategy_of(scene) != "recreate":
            continue
        if isinstance(step.action, Stop) and not step.subject.startswith("previous "):
            assert pulls <= everything_before(plan, step), f"{step}\n{plan}"


@given(scenes())
def test_what_could_run_again_is_removed_only_when_its_replacement_is_good(scene):
    observed = {c.id: c for c in scene.engine.observe().containers}
    plan = planned(scene)
    for step in plan.steps:
        if not isinstance(step.action, Remove) or step.until or service_of(step) not in scene.wanted.services:
            continue
        if observed[step.action.id].status in (Status.CREATED, Status.DEAD):
            continue
        if step.cause.startswith("it makes room") and strategy_of(scene) == "delete-first":
            continue
        others = [c for c in observed.values() if c.service == service_of(step) and c.id != step.action.id]
        if scene.wanted.services[service_of(step)].stopped:
            assert others or any(id_.startswith("create ") for id_ in everything_before(plan, step))
            continue
        assert any((c.status is Status.RUNNING and c.health in (None, Health.HEALTHY)) or c.completed for c in others)


def _done(container: Container) -> bool:
    return container.one_shot and container.completed


def _could_run(container: Container, scene: Scene) -> bool:
    """It ran before, and stands on nothing that may be missing."""
    made = scene.world.containers[container.id].made
    return container.status is Status.EXITED and made.network_mode == "none" and not container.networks


@given(scenes())
def test_while_a_service_cannot_be_brought_up_what_it_replaces_runs(scene):
    observed = scene.engine.observe()
    rows = {
        ("web", name): Attempt("web", name, match.spec, 1, "bad", "bad", NOW + timedelta(minutes=1))
        for name, match in match_services(scene.wanted, observed).items()
        if match.spec and not (match.winner and (match.winner.up or _done(match.winner)))
    }
    others = [c for c in observed.containers if ("web", c.service) in rows and c.spec != rows["web", c.service].spec]
    owed = {c.service for c in others if not c.one_shot and (c.up or _could_run(c, scene))}
    owed -= {name for name, made in scene.wanted.services.items() if made.stopped}
    # What leaves a network that is replaced is stopped for that, and runs again with the pass that follows.
    for _ in range(2):
        carry_out(scene, plan_app(scene.wanted, scene.engine.observe(), Attempts(NOW, rows), {}), {})
    assert owed <= {c.service for c in scene.engine.observe().containers if c.up}


@given(scenes())
def test_only_what_is_the_agents_own_is_touched(scene):
    for plan in (planned(scene), plan_removal("web", scene.engine.observe(), attempts())):
        own = {c.id for c in scene.engine.observe().containers} | {
            n.id for n in scene.engine.observe().networks if n.app == "web"
        }
        own |= {step.action.name for step in plan.steps if isinstance(step.action, Create)}
        for step in plan.steps:
            id_ = getattr(step.action, "id", None)
            assert id_ is None or id_ in own, step
    before = {k: (c.status, dict(c.attached)) for k, c in scene.world.containers.items() if k in scene.foreign}
    carry_out(scene, planned(scene), {})
    after = {k: (c.status, dict(c.attached)) for k, c in scene.world.containers.items() if k in scene.foreign}
    assert after == before
    assert scene.foreign <= after.keys() | scene.world.networks.keys() | scene.world.volumes.keys()


@given(scenes())
def test_every_step_comes_after_what_it_waits_for(scene):
    for plan in (planned(scene), plan_removal("web", scene.engine.observe(), attempts())):
        seen: set[str] = set()
        for step in plan.steps:
            assert step.after <= seen, f"{step} waits for {step.after - seen}\n{plan}"
            assert step.id not in seen
            seen.add(step.id)


@given(scenes())
def test_a_removed_app_goes_and_its_data_stays(scene):
    data = {name for name, volume in scene.world.volumes.items() if LABEL_SERVICE not in volume.labels}
    for _ in range(3):
        carry_out(scene, plan_removal("web", scene.engine.observe(), attempts()), {})
    assert not [c for c in scene.engine.observe().containers if c.app == "web"]
    assert not [n for n in scene.engine.observe().networks if n.app == "web"]
    assert set(scene.world.volumes) == data


def everything_before(plan: Plan, step: Step) -> set[str]:
    by_id = {each.id: each for each in plan.steps}
    found: set[str] = set()
    to_do = [step.id]
    while to_do:
        for earlier in by_id[to_do.pop()].after - found:
            found.add(earlier)
            to_do.append(earlier)
    return found
