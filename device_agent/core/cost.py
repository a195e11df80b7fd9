"""What a plan costs: what is fetched for it, what the disk holds then, and which services are down meanwhile."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from device_agent.core.draft import grace_s
from device_agent.core.following import will_follow
from device_agent.core.matching import match_services
from device_agent.core.room import MIB, TAKES
from device_agent.core.wanted import WantedApp
from device_agent.model.host import Disk
from device_agent.model.observed import Observed
from device_agent.model.steps import Plan, Pull, Start, Step, Stop


@dataclass(frozen=True, slots=True)
class Fetched:
    """`sizes`: image → bytes to fetch, None where they are not known."""

    sizes: Mapping[str, int | None]
    disk: Disk | None

    @property
    def bytes(self) -> int | None:
        """All together; None where one is not known."""
        known = [size for size in self.sizes.values() if size is not None]
        return sum(known) if len(known) == len(self.sizes) else None

    @property
    def free_after(self) -> int | None:
        """Bytes of disk that will be free, about: what is fetched takes more when it is unpacked."""
        return None if self.disk is None or self.bytes is None else max(0, self.disk.free - self.bytes * TAKES)

    def __str__(self) -> str:
        images = f"{len(self.sizes)} image{'' if len(self.sizes) == 1 else 's'}"
        size = "how much is not known" if self.bytes is None else f"{_mib(self.bytes)} to fetch"
        disk = ""
        if self.disk is not None:
            disk = f"; disk: {_mib(self.disk.free)} free"
            disk += f", about {_mib(self.free_after)} after it" if self.free_after is not None else ""
        return f"pull: {images}, {size}{disk}"


@dataclass(frozen=True, slots=True)
class Interruption:
    """What a service that runs goes through. `down`: it is not there for a while, or not any more."""

    service: str
    strategy: str | None
    """None where it is not wanted any more."""
    down: bool
    message: str

    def __str__(self) -> str:
        return f"{self.service}: {self.message}"


def pulls(plans: Iterable[Plan]) -> tuple[Pull, ...]:
    """What is to be fetched, each image once."""
    found = {step.action.image: step.action for plan in plans for step in plan.steps if isinstance(step.action, Pull)}
    return tuple(found.values())


def interruptions(plan: Plan, wanted: WantedApp | None, observed: Observed) -> Iterator[Interruption]:
    """Of each service that runs, and that the plan stops or replaces, or that is restarted for it."""
    ups: dict[str, set[str]] = {}
    for container in observed.containers:
        if container.app == plan.app and container.up:
            ups.setdefault(container.service, set()).add(container.id)
    stopped = {step.action.id for step in plan.steps if isinstance(step.action, Stop)}
    for name in dict.fromkeys(step.subject for step in plan.steps):
        starts = {step.id for step in plan.steps if isinstance(step.action, Start) and step.subject == name}
        service = wanted.services.get(name) if wanted else None
        strategy = service.service.update.strategy if service else None
        if ups.get(name, set()) - stopped:
            # What runs is stopped by a later plan, once its replacement has proved good.
            if starts:
                yield Interruption(f"{plan.app}/{name}", strategy, down=False, message="replaced without downtime")
        elif name in ups:
            yield _interruption(plan, name, strategy, starts)
    if wanted:
        yield from _followers(plan, wanted, observed)


def _followers(plan: Plan, wanted: WantedApp, observed: Observed) -> Iterator[Interruption]:
    """Who is started again by a later plan, because of what this one replaces."""
    told = {step.subject for step in plan.steps if isinstance(step.action, Stop | Start)}
    for name, other in will_follow(wanted, match_services(wanted, observed)).items():
        if name not in told:
            message = (
                f"restarted once {other}, on which it depends with restart, has been replaced: down from its stop "
                f"(at most {grace_s(wanted, name):g} s) until it has started again"
            )
            strategy = wanted.services[name].service.update.strategy
            yield Interruption(f"{plan.app}/{name}", strategy, down=True, message=message)


def _interruption(plan: Plan, name: str, strategy: str | None, starts: set[str]) -> Interruption:
    stops = [step for step in plan.steps if isinstance(step.action, Stop) and step.subject == name]
    grace_s = max((step.action.grace_s for step in stops if isinstance(step.action, Stop)), default=0.0)
    began = {step.id for step in stops}
    beside = any(starts & _before(plan.steps, step) for step in stops)
    fetched = any(began & _before(plan.steps, step) for step in plan.steps if isinstance(step.action, Pull))
    message = f"down from its stop (at most {grace_s:g} s) " + (
        "on"
        if not starts
        else "until its image is here and it has started"
        if fetched
        else "until it has started again"
    )
    if beside:
        message = "replaced without downtime"
    return Interruption(f"{plan.app}/{name}", strategy, down=not beside, message=message)


def _before(steps: Sequence[Step], step: Step) -> set[str]:
    """Ids of all that must have succeeded first."""
    by_id = {each.id: each for each in steps}
    found: set[str] = set()
    to_do = [step.id]
    while to_do:
        for earlier in by_id[to_do.pop()].after - found:
            found.add(earlier)
            if earlier in by_id:
                to_do.append(earlier)
    return found


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB" if size < 100 * MIB else f"{size / MIB:.0f} MiB"
