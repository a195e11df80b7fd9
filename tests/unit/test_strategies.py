"""The strategies that make room, on a whole device: what runs when, and what comes back."""

from typing import Any

from tests.builders import app, service
from tests.device import Device

FIRST = "first:1"
NEXT = "next:1"


def web(strategy: str, image: str) -> Any:
    return {"web": {**app(api=service(image)), "x-update": {"strategy": strategy}}}


def runs(strategy: str) -> Device:
    """It runs an image that it has pulled itself."""
    device = Device(images=("api:1",)).boot()
    device.world.offer_image(FIRST)
    device.publish(web(strategy, FIRST))
    device.converge()
    device.wait(20)
    device.world.offer_image(NEXT)
    return device


def names(device: Device) -> set[str]:
    return {name.removeprefix("docker.io/library/") for name in device.world.images}


def at_pull(device: Device) -> list[tuple[set[str], bool]]:
    """What is up at each pull, and whether the first image is still here."""
    seen: list[tuple[set[str], bool]] = []

    def look(name: str) -> None:
        if name == "pull":
            seen.append((device.ups(), FIRST in names(device)))

    device.trouble = look  # type: ignore[method-assign]
    return seen


def test_stop_first_pulls_while_nothing_of_it_runs() -> None:
    device = runs("stop-first")
    seen = at_pull(device)
    device.publish(web("stop-first", NEXT), revision=2)
    device.converge()
    assert seen == [(set(), True)]
    assert device.containers()["web/api"].made.image == NEXT
    assert device.told()[-1] == "applied 1.2"


def test_stop_first_runs_what_there_is_while_the_registry_is_away() -> None:
    device = runs("stop-first")
    before = device.containers()["web/api"].id
    device.world.registry_down = True
    device.publish(web("stop-first", NEXT), revision=2)
    assert device.ups() == {"web/api"}
    assert device.containers()["web/api"].id == before
    device.world.registry_down = False
    device.converge()
    assert device.containers()["web/api"].made.image == NEXT


def test_delete_first_has_one_image_at_a_time() -> None:
    device = runs("delete-first")
    seen = at_pull(device)
    device.publish(web("delete-first", NEXT), revision=2)
    device.converge()
    assert seen == [(set(), False)]
    assert names(device) >= {NEXT, "api:1"}
    assert FIRST not in names(device)


def test_delete_first_pulls_again_what_it_rolls_back_to() -> None:
    device = runs("delete-first")
    device.publish(web("delete-first", "nowhere:1"), revision=2)
    device.wait(60)
    assert "rolled_back 1.2 web" in " ".join(device.told())
    assert device.containers()["web/api"].made.image == FIRST
    assert device.ups() == {"web/api"}
    assert device.state()["apps"]["web"]["reason"]["code"] == "rolled_back"


def test_delete_first_waits_for_the_registry_and_says_so() -> None:
    device = runs("delete-first")
    device.world.registry_down = True
    device.publish(web("delete-first", NEXT), revision=2)
    device.wait(30)
    told = device.state()["apps"]["web"]["services"]["api"]
    assert (told["status"], told["reason"]["code"]) == ("pulling", "registry_unreachable")
    device.cut_power(world_too=True)
    device.boot()
    device.world.registry_down = False
    device.converge()
    assert device.containers()["web/api"].made.image == NEXT
