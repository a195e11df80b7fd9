"""Whole apps: from raw JSON to canonical models, or a refusal that names every wrong place.

Rules
1. An app is refused whole, and with it the document: nothing of it is half applied.
2. What is unknown or not supported outweighs what is wrong, and that outweighs a cycle: the refusal's code is the first
   that applies, its problems are all of them.
3. After validation nothing is implied any more: a service's networks are explicit, every network that is used has a
   definition, and who has something of another service depends on it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from device_agent.model import (
    compose_files,
    compose_maintenance,
    compose_pulling,
    compose_resources,
    compose_service,
    compose_together,
)
from device_agent.model.compose import (
    App,
    Gate,
    NetworkDefinition,
    Service,
    ServiceNetwork,
    Update,
    VolumeDefinition,
)
from device_agent.model.compose_dependencies import warn_of_never_met
from device_agent.model.compose_forms import APP_NAME, KEY_NAME
from device_agent.model.compose_lists import WHEN_PUBLISHING
from device_agent.model.compose_scale import has_fixed_address, too_narrow
from device_agent.model.compose_units import NotValid, duration, one_of
from device_agent.model.errors import MOST_PROBLEMS, Problem, Refused
from device_agent.model.place import Enough, Names, Notes, Place, Reader, by, read, read_fields, read_object
from device_agent.model.target import Json

DEFAULT_NETWORK = "default"
MOST = 1000
"""Apps, and services of all of them together: more than one engine can carry, and little enough to judge at once."""

_FILES = (compose_files.CONFIGS, compose_files.SECRETS)
_APP_REFUSED = {
    "models": "no models are run here: run a service that serves one",
    "include": f"`include` {WHEN_PUBLISHING}",
}
_APP_IGNORED = {
    "name": "has no use here: an app is named by its key under `apps`",
    "version": "has no use here: it has none in the Compose Specification any more",
}


@dataclass(frozen=True, slots=True)
class Parsed:
    """Valid apps by name, and what was accepted without effect, sorted by pointer."""

    apps: Mapping[str, App]
    warnings: tuple[Problem, ...] = ()


def validate_apps(apps: Mapping[str, Json]) -> Parsed:
    """The canonical apps of a document's `apps`, every one of them an object.

    Raises `Refused` with code `too_large`, `unsupported`, `invalid` or `cycle`, and every wrong place in its problems,
    sorted.
    """
    _check_size(apps)
    notes = Notes()
    root = Place(apps, notes, key="apps")
    found: dict[str, App] = {}
    cycles: list[Problem] = []
    try:
        for name in apps:
            _read_app(name, root.at(name), found, cycles)
        compose_pulling.one_platform(root, found)
        _name_once(root, found)
    except Enough:
        pass
    _refuse(notes, cycles)
    return Parsed(found, _sorted(notes.warnings))


def _check_size(apps: Mapping[str, Json]) -> None:
    sections = [app.get("services") for app in apps.values() if isinstance(app, dict)]
    services = sum(len(section) for section in sections if isinstance(section, dict))
    for count, what in ((len(apps), "apps"), (services, "services")):
        if count > MOST:
            raise Refused("too_large", f"{count} {what}: a device takes at most {MOST}")


def _read_app(name: str, place: Place, found: dict[str, App], cycles: list[Problem]) -> None:
    if not APP_NAME.fullmatch(name):
        place.invalid("an app's name has lower-case letters, digits, `_` and `-`, and starts with a letter or digit")
    try:
        app = _app(place)
    except NotValid as error:
        place.note(error)
    else:
        found[name] = app
        cycles += islice(_cycles(place, app.services), MOST_PROBLEMS - len(cycles))


def _refuse(notes: Notes, cycles: list[Problem]) -> None:
    counts = (
        ("unsupported", notes.unsupported, "key is not supported", "keys are not supported"),
        ("invalid", notes.invalid, "value is not valid", "values are not valid"),
        ("cycle", cycles, "cycle of dependencies", "cycles of dependencies"),
    )
    wrong = [(code, f"{len(found)} {one if len(found) == 1 else many}") for code, found, one, many in counts if found]
    if wrong:
        problems = _sorted([*notes.unsupported, *notes.invalid, *cycles])
        more = ", and maybe more" if len(problems) >= MOST_PROBLEMS else ""
        raise Refused(wrong[0][0], ", ".join(message for _, message in wrong) + more, problems)


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.pointer, problem.message)))


def _app(place: Place) -> App:
    """The app as far as it could be read. Raises `NotValid` when it is no object at all."""
    value = place.object()
    contents = {section: compose_files.contents(value, section) for section in _FILES}
    names = Names(_keys(value, "services"), _keys(value, "networks"), _keys(value, "volumes"), contents)
    readers = {
        "services": _section(names, compose_service.service),
        "networks": _section(names, compose_resources.network),
        "volumes": _section(names, compose_resources.volume),
        **{section: _section(names, compose_files.definition) for section in _FILES},
        "x-release": _gate,
        "x-maintenance": compose_maintenance.windows,
        "x-update": compose_service.update,
    }
    fields = read_fields(place, readers, refused=_APP_REFUSED, ignored=_APP_IGNORED)
    if value.get("services", {}) == {}:
        place.invalid("an app has at least one service", "services")
    services = _with_update(place, fields.get("services", {}), fields.get("x-update", Update()))
    warn_of_never_met(place, services)
    app = _explicit(services, fields.get("networks", {}), fields.get("volumes", {}))
    extensions = {"gate": "x-release", "windows": "x-maintenance"}
    given = {name: fields[key] for name, key in extensions.items() if key in fields}
    return app.model_copy(update={"services": compose_together.settle(place, app.services), **given})


_GATE: Mapping[str, Reader] = {
    "healthy_for": by(duration),
    "deadline": by(duration),
    "on_failure": by(one_of("rollback", "retry", "hold")),
}


def _gate(place: Place) -> Gate:
    return Gate(**read_object(place, _GATE))


def _with_update(place: Place, services: Mapping[str, Service], default: Update) -> dict[str, Service]:
    """The app's strategy where a service has none of its own. One that cannot be carried out is refused."""
    complete: dict[str, Service] = {}
    for name, service in services.items():
        own = "update" in service.model_fields_set
        complete[name] = service if own else service.model_copy(update={"update": default})
        if complete[name].update.strategy == "start-first":
            where = ("services", name, "x-update") if own else ("x-update",)
            for problem in _not_beside_itself(name, service):
                place.invalid(f"start-first: {problem}", *where)
    return complete


def _not_beside_itself(name: str, service: Service) -> Iterator[str]:
    if any(too_narrow(service.ports, 2 * service.scale)):
        yield (
            f"the old and the new of `{name}` run side by side, and its host ports are too few for both: "
            f"publish a range of {2 * service.scale} ports, or none"
        )
    if service.container_name:
        yield f"the old and the new of `{name}` cannot both have its `container_name`"
    if has_fixed_address(service):
        yield f"the old and the new of `{name}` cannot both have its fixed address"


def _name_once(root: Place, apps: Mapping[str, App]) -> None:
    """The engine has one container of a name."""
    taken: dict[str, str] = {}
    for app in sorted(apps):
        for key, service in sorted(apps[app].services.items()):
            if service.container_name is None:
                continue
            first = taken.setdefault(service.container_name, f"{app}/{key}")
            if first != f"{app}/{key}":
                message = f"`{service.container_name}` is the name of {first} already"
                root.at(app).invalid(message, "services", key, "container_name")


def _keys(app: Mapping[str, Json], section: str) -> frozenset[str]:
    declared = app.get(section)
    return frozenset(declared) if isinstance(declared, dict) else frozenset()


def _section(names: Names, reader: Reader) -> Reader:
    """A map of named things; a name follows Compose's pattern."""

    def read_section(section: Place) -> dict[str, object]:
        found: dict[str, object] = {}
        for name in section.object():
            place = section.at(name, names)
            named = KEY_NAME.fullmatch(name) is not None
            if not named:
                place.invalid("a name has only letters, digits, `.`, `_` and `-`")
            for value in read(place, reader):
                if named:
                    found[name] = value
        return found

    return read_section


def _explicit(
    services: Mapping[str, Service],
    networks: Mapping[str, NetworkDefinition],
    volumes: Mapping[str, VolumeDefinition],
) -> App:
    """Rule 3."""
    complete: dict[str, Service] = {}
    for name, service in services.items():
        implied = not service.networks and service.network_mode is None
        default = {"networks": {DEFAULT_NETWORK: ServiceNetwork()}}
        complete[name] = service.model_copy(update=default) if implied else service
    used = {network for service in complete.values() for network in service.networks}
    if DEFAULT_NETWORK in used and DEFAULT_NETWORK not in networks:
        networks = {**networks, DEFAULT_NETWORK: NetworkDefinition()}
    return App(services=complete, networks=networks, volumes=volumes)


def _cycles(place: Place, services: Mapping[str, Service]) -> Iterator[Problem]:
    """Each cycle once, where it was met. Without recursion: a chain of dependencies may be as long as a document."""
    finished: set[str] = set()
    for start in sorted(services):
        path: dict[str, Iterator[str]] = {}
        following: str | None = start
        while following is not None or path:
            if following is not None and following not in finished and following in services:
                path[following] = iter(sorted(services[following].depends_on))
            following = None
            while path and following is None:
                current = next(reversed(path))
                following = next(path[current], None)
                if following is None:
                    finished.add(current)
                    del path[current]
                elif following in path:
                    yield _cycle(place, services, list(path), following)
                    following = None


def _cycle(place: Place, services: Mapping[str, Service], path: list[str], entry: str) -> Problem:
    members = [*path[path.index(entry) :], entry]
    last = members[-2]
    implied = (key for key, other in compose_together.needs(services[last]) if other == entry)
    written = place.value["services"][last].get("depends_on", ())
    key = "depends_on" if entry in written else next(implied, "depends_on")
    return Problem(place.pointer("services", last, key), f"a service cannot wait for itself: {' → '.join(members)}")
