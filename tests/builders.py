"""Plain builders with keyword overrides: documents, targets and the worlds that go with them.

A world is drawn around what is wanted: `running(app, "api")` is the very container that the target asks for.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cloud_sim.engine_parts import image_id
from device_agent.core.backoff import Attempts
from device_agent.core.intake import Wanted, want
from device_agent.core.planner import plan_app, plan_removal
from device_agent.core.policy import RULES, Policy
from device_agent.core.wanted import Naming, WantedApp
from device_agent.model.image import normalise
from device_agent.model.memory import Attempt
from device_agent.model.observed import Container, Network, Observed, Status, Volume
from device_agent.model.steps import Plan
from device_agent.model.target import Identity, Target
from device_agent.wire.target import read_target

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
IDENTITY = Identity("plant7", "d1")
NAMING = Naming(str(IDENTITY))
OPEN = Policy(
    **{
        name: True if default is False else ("*",)
        for name, default in RULES.items()
        if isinstance(default, bool | tuple) and name != "digests_only"
    }
)

Json = Any


# Documents.


def service(image: str = "api:1", **keys: Json) -> Json:
    """A Compose service. It is on no network unless told otherwise: plans stay short."""
    base: Json = {"image": image}
    if not {"networks", "network_mode"} & keys.keys():
        base["network_mode"] = "none"
    return base | keys


def app(sections: Mapping[str, Json] | None = None, **services: Json) -> Json:
    """An app of services; `sections` are its `networks` and `volumes`."""
    return {"services": services, **(sections or {})}


def document(apps: Mapping[str, Json] | None = None, **keys: Json) -> Json:
    """A target, by default the first of the fleet. `device` and `fleet` go into its scope."""
    scope = {"fleet": keys.pop("fleet", IDENTITY.fleet), "device": keys.pop("device", None)}
    base: Json = {"schema": 1, "scope": scope, "epoch": 1, "revision": 1}
    return base | {"apps": apps if apps is not None else {"web": app(api=service())}} | keys


def payload(apps: Mapping[str, Json] | None = None, **keys: Json) -> bytes:
    return json.dumps(document(apps, **keys)).encode()


def target(apps: Mapping[str, Json] | None = None, **keys: Json) -> Target:
    return read_target(payload(apps, **keys))


def everything(
    fleet: Target | None = None, device: Target | None = None, naming: Naming = NAMING, policy: Policy | None = None
) -> Wanted:
    """What a device makes of its targets."""
    return want({t.scope: t for t in (fleet, device) if t}, naming, policy)


def wanted(contents: Json, name: str = "web", naming: Naming = NAMING, **keys: Json) -> WantedApp:
    """One app, ready for planning."""
    return everything(target({name: contents}, **keys), naming=naming).apps[name]


# Worlds.


def started(second: int) -> str:
    return (NOW - timedelta(days=1) + timedelta(seconds=second)).isoformat()


def running(of: WantedApp, service_name: str, /, *shared: str, **changes: Any) -> Container:
    """The container that `of` wants for a service, running; `shared` are the ids of those whose namespaces it joins."""
    made = of.services[service_name]
    id_ = image_id(made.image)
    spec = made.spec(changes.get("image_id", id_), shared)
    container = Container(
        id=f"{service_name}-id",
        name=of.container_name(service_name, spec),
        app=of.name,
        service=service_name,
        spec=spec,
        image=made.image,
        image_id=id_,
        status=Status.RUNNING,
        release=of.release or "",
        revision=of.revision,
        depends_on=tuple(sorted(made.service.depends_on)),
        networks={of.networks[key].name: f"{of.networks[key].name}-id" for key in made.networks},
        published=frozenset((int(p.published), p.protocol) for p in made.service.ports if p.published),
        restart=made.service.restart.policy,
        started_at=started(1),
    )
    return replace(container, **changes)


def exited(of: WantedApp, service_name: str, /, code: int = 1, **changes: Any) -> Container:
    return running(of, service_name, status=Status.EXITED, exit_code=code, **changes)


def network(of: WantedApp, key: str = "default", **changes: Any) -> Network:
    made = of.networks[key]
    return replace(Network(made.name, f"{made.name}-id", of.name, key, made.spec), **changes)


def volume(of: WantedApp, key: str, **changes: Any) -> Volume:
    made = of.volumes[key]
    return replace(Volume(made.name, of.name, key, made.spec), **changes)


def images(*references: str) -> dict[str, str]:
    return {normalise(reference): image_id(normalise(reference)) for reference in references}


def world(of: WantedApp, *containers: Container, absent: tuple[str, ...] = (), **changes: Any) -> Observed:
    """These containers, and all of the app's images (less `absent`), networks and volumes."""
    here = {made.image for made in of.services.values()} | {c.image for c in containers}
    observed = Observed(
        containers=containers,
        networks=tuple(network(of, key) for key in of.networks),
        volumes=tuple(volume(of, key) for key in of.volumes if key in _mounted(of)),
        images={reference: image_id(reference) for reference in here if reference not in map(normalise, absent)},
    )
    return replace(observed, **changes)


def _mounted(of: WantedApp) -> set[str]:
    return {key for made in of.services.values() for key in made.volumes}


# Plans.

_HASH = re.compile(r"-([0-9a-f]{6}\b|[0-9a-f]{12}(?=-files))")


def attempt(subject: str, spec: str, app: str = "web", **changes: Any) -> Attempt:
    """A failure that waits for another minute."""
    next_at = NOW + timedelta(minutes=1)
    return replace(Attempt(app, subject, spec, 1, "port_in_use", "the port is taken", next_at), **changes)


def attempts(*rows: Attempt, now: datetime = NOW) -> Attempts:
    return Attempts(now, {(row.app, row.subject): row for row in rows})


def plan(
    of: WantedApp,
    observed: Observed,
    *failures: Attempt,
    settled: WantedApp | None = None,
    now: datetime = NOW,
    gated: bool = False,
) -> Plan:
    """`settled`: the app as it last settled. `gated`: its release has not passed its gate."""
    specs = {name: running(settled, name).spec for name in settled.services} if settled else {}
    return plan_app(of, observed, attempts(*failures, now=now), specs, gated=gated)


def removal(name: str, observed: Observed, *failures: Attempt) -> Plan:
    return plan_removal(name, observed, attempts(*failures))


def printed(made: Plan) -> str:
    """A plan as the tests read it: hashes as `*`, images in short, what blocks it in lines that begin with `!`."""
    blocked = "\n".join(f"! {each.subject}: {each.code}" for each in made.blocked)
    text = _HASH.sub("-*", "\n".join(filter(None, (str(made), blocked))))
    return text.replace("docker.io/library/", "")


def waits_for(made: Plan, start_of: str) -> set[str]:
    """Ids of the steps that must have succeeded before this one goes; both with hashes as `*`."""
    by_id = {step.id: step for step in made.steps}
    found: set[str] = set()
    to_do = [id_ for id_ in by_id if _HASH.sub("-*", id_) == start_of]
    assert to_do, f"no step {start_of!r} in\n{made}"
    while to_do:
        for earlier in by_id[to_do.pop()].after - found:
            found.add(earlier)
            to_do.append(earlier)
    return {_HASH.sub("-*", id_) for id_ in found}
