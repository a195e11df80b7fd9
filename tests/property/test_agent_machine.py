"""The real agent through whatever an unfriendly world does to it, over fakes.

Invariants hold after every rule; `calm` is the settling rule: once all causes are gone, the device reaches the newest
target, everything it had to tell has been told, and nothing was lost on the way. A target that can never prove good is
rolled back to what last did, and a newer one is taken.
"""

import json
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cloud_sim.engine_parts import Behaviour
from device_agent.model.errors import EngineError, Kind
from device_agent.model.observed import UPDATE_LOCK, Health
from tests.builders import app, everything, payload, service, target
from tests.device import OWNER, TOPICS, Device, PowerCut
from tests.property.strategies import shortcomings

CHECK = {"test": ["CMD", "true"]}
BESIDE = {"x-update": {"strategy": "start-first"}}


def patient(sections: dict[str, Any] | None = None, **services: Any) -> Any:
    """Here containers are killed while releases prove good, which would roll them back: these are tried on."""
    return app({"x-release": {"on_failure": "retry"}, **(sections or {})}, **services)


def rolled_back(**services: Any) -> Any:
    return app({"x-release": {"on_failure": "rollback", "healthy_for": "5s"}}, **services)


BASE = patient(only=service("base:1"))
WEBS = (
    patient({"secrets": {"key": {"content": "1"}}}, api=service("api:1", secrets=["key"])),
    patient(
        {"secrets": {"key": {"content": "2"}}},
        api=service("api:2", secrets=["key"], depends_on={"db": {"condition": "service_healthy"}}),
        db=service("db:1", healthcheck=CHECK),
    ),
    patient({"volumes": {"data": {}}}, api=service("api:1", volumes=["data:/d"], networks=["default"])),
    patient({"networks": {"default": {"internal": True}}}, api=service("api:1", networks=["default"])),
    patient(
        api=service("api:2", depends_on={"db": {"condition": "service_healthy"}}, networks=["default"]),
        db=service("db:1", healthcheck=CHECK, networks=["default"], ports=["80:80"]),
    ),
    patient(api=service("api:2", ports=["80:80"]), db=service("db:1", ports=["81:80"])),
    patient(
        api=service("api:2", depends_on={"job": {"condition": "service_completed_successfully"}}),
        job=service("job:1", restart="no"),
    ),
    patient(vpn=service("api:1"), api=service("api:2", network_mode="service:vpn")),
    patient(api=service("api:1", container_name="shop", **{"x-update": {"strategy": "stop-first"}})),
    patient(
        api=service("api:2", container_name="shop", **{"x-update": {"strategy": "delete-first"}}),
        db=service("db:1", depends_on={"api": {"condition": "service_started", "restart": True}}),
    ),
)
BESIDES = (
    patient(api=service("api:1", healthcheck=CHECK, networks=["default"], **BESIDE)),
    patient(
        api=service("api:2", **BESIDE),
        db=service("db:1", depends_on={"api": {"condition": "service_started", "restart": True}}, **BESIDE),
    ),
)
BAD = (
    rolled_back(api=service("sick:1", healthcheck=CHECK), db=service("db:1", depends_on=["api"])),
    rolled_back(api=service("ends:1", **BESIDE), db=service("db:1", networks=["default"])),
)
"""Their images are never good: see `begin`."""
FLEET_APPS = ({"base": BASE}, *({"base": BASE, "web": web} for web in (*WEBS, *BESIDES, *BAD)))
DEVICE_APPS: tuple[dict[str, Any], ...] = ({}, {"web": None}, {"own": patient(api=service("api:1"))}, {"web": WEBS[1]})
JUNK = (b"", b"{", b'{"schema": 9}', payload({"base": app(only=service(build="."))}, revision=10_000))


def _never_good(one: Any) -> bool:
    return any(made.service.image in ("sick:1", "ends:1") for made in one.services.values())


class AgentMachine(RuleBasedStateMachine):
    @initialize(images=st.sets(st.sampled_from(("api:1", "api:2", "db:1"))), mixed=st.booleans())
    def begin(self, images, mixed):
        self.device = Device(images=("base:1", *images), seed=None)
        self.device.mixed = mixed
        for image in ("api:1", "api:2", "db:1"):
            self.device.world.offer_image(image)
        self.device.world.offer_image("job:1", behaviour=Behaviour(exit_code=0))
        self.device.world.offer_image("sick:1", behaviour=Behaviour(health=Health.UNHEALTHY))
        self.device.world.offer_image("ends:1", behaviour=Behaviour(exit_code=3))
        self.newest: dict[str, tuple[int, Any]] = {}
        self.revision = 0
        self.held = False
        """The newest target of the device holds it."""
        self.sent: dict[bytes, tuple[str, int]] = {}
        """Payload → its scope and revision."""
        self.seen: dict[str, Any] = {}
        self.volumes: set[str] = set()
        self.foreign = self.device.world.add_foreign("web-api")
        self.device.watch = self.one_container_of_a_service_runs
        self.device.boot()
        self.publish_fleet(FLEET_APPS[1])

    # The cloud.

    @rule(apps=st.sampled_from(FLEET_APPS))
    def publish_fleet(self, apps):
        self._publish("fleet", apps)

    @rule(apps=st.sampled_from(DEVICE_APPS))
    def publish_to_the_device(self, apps):
        self.held = False
        self._publish("device", apps)

    @rule(apps=st.sampled_from(DEVICE_APPS))
    def hold_the_device(self, apps):
        self.held = True
        self._publish("device", apps)

    def _publish(self, scope, apps):
        self.revision += 1
        self.newest[scope] = (self.revision, apps)
        self._send(scope, self.revision, apps)

    def _send(self, scope, revision, apps):
        keys = {"device": "d1"} if scope == "device" else {}
        if self.held and scope == "device":
            keys["hold"] = True
        content = payload(apps, revision=revision, **keys)
        self.sent[content] = (scope, revision)
        self.device.broker.arrive(
            TOPICS.device_target if scope == "device" else TOPICS.fleet_target, content, retain=True
        )

    @rule(apps=st.sampled_from(FLEET_APPS))
    def publish_an_old_one(self, apps):
        self._send("fleet", 0, apps)

    @rule(content=st.sampled_from(JUNK), device=st.booleans())
    def publish_junk(self, content, device):
        self.device.broker.arrive(TOPICS.device_target if device else TOPICS.fleet_target, content, retain=True)

    # The world.

    @rule(
        calls=st.integers(1, 6),
        kind=st.sampled_from(tuple(Kind)),
        name=st.sampled_from(
            ("create", "start", "stop", "remove", "pull", "connect", "remove_network", "observe", "has_file")
        ),
    )
    def engine_fails(self, calls, kind, name):
        left = [calls]

        def trouble(called):
            if called == name and left[0]:
                left[0] -= 1
                raise EngineError("engine", "it fails", kind)

        self.device.trouble = trouble

    @rule(away=st.booleans())
    def engine_away(self, away):
        self.device.world.away = away

    @rule(down=st.booleans())
    def registry(self, down):
        self.device.world.registry_down = down

    @rule(
        choice=st.randoms(use_true_random=False),
        what=st.sampled_from(("exit", "kill", "rm", "stop", "disconnect", "rename", "update")),
    )
    def someone_meddles(self, choice, what):
        world = self.device.world
        mine = sorted((c for c in world.containers.values() if c.owned_by(OWNER)), key=lambda c: c.id)
        if not mine:
            return
        container = choice.choice(mine)
        if what == "exit" and container.up:
            world.exit(container.id, 1)
        elif what == "kill" and container.up:
            world.kill(container.id)
        elif what == "rm":
            world.rm(container.id)
        elif what == "stop":
            world.stop(container)
        elif what == "rename":
            container.name = f"renamed-{container.id[-6:]}"
            world.happened(container, "rename")
        elif what == "update":
            world.update(container.id, memory=7 * 2**20)
        elif what == "disconnect" and container.attached:
            container.attached.pop(min(container.attached))

    @rule(choice=st.randoms(use_true_random=False), locked=st.booleans())
    def an_application_locks(self, choice, locked):
        up = sorted(
            (c for c in self.device.world.containers.values() if c.owned_by(OWNER) and c.up), key=lambda c: c.id
        )
        if up:
            paths = choice.choice(up).paths
            paths.add(UPDATE_LOCK) if locked else paths.discard(UPDATE_LOCK)

    @rule(verb=st.sampled_from(("stop", "start", "restart", "retry", "unlock")), app=st.sampled_from(("base", "web")))
    def an_operator_orders(self, verb, app):
        self.device.ask(verb, app=app)

    @rule()
    def image_is_removed(self):
        for image in ("api:2", "db:1"):
            if f"docker.io/library/{image}" in self.device.world.images:
                self.device.world.untag(image)
                return

    @rule(full=st.booleans())
    def disk(self, full):
        self.device.store.full = full

    # The connection.

    @rule(hold=st.booleans())
    def connection(self, hold):
        if self.device.broker.connected:
            self.device.broker.lose_unanswered()
            self.device.broker.disconnect()
        else:
            self.device.broker.hold_pubacks = hold
            self.device.broker.connect()

    # The agent.

    @rule(seconds=st.sampled_from((0.05, 1, 5, 30, 400)))
    def time_passes(self, seconds):
        self.device.wait(seconds)

    @rule(steps=st.integers(1, 6))
    def a_moment_passes(self, steps):
        for _ in range(steps):
            self.device.step()

    @rule(call=st.integers(1, 25), machine=st.booleans())
    def power_is_lost(self, call, machine):
        self.device.fuse.reset(call)
        with suppress(PowerCut):
            self.device.wait(30)
        self._again(machine)

    @precondition(lambda self: not self.device.world.away)
    @rule()
    def agent_is_replaced(self):
        self.device.stop()
        self.device.wait(10)
        assert self.device.agent.ending.finished
        self._again(machine=False)

    def _again(self, machine):
        self.device.cut_power(world_too=machine and not self.device.world.away)
        self.device.boot(connect=False)

    # What always holds.

    @invariant()
    def one_container_of_a_service_runs(self):
        """Or two, where one of them is to prove good (again) beside the other. Once all is calm there is one."""
        if hasattr(self, "device"):
            up = [c for c in self.device.world.containers.values() if c.owned_by(OWNER) and c.up]
            of_service = attrgetter("app", "service")
            for which, containers in groupby(sorted(up, key=of_service), of_service):
                strategies = [c.made.service.update.strategy for c in containers]
                assert len(strategies) <= (2 if "start-first" in strategies else 1), which

    @invariant()
    def revisions_never_go_back(self):
        if hasattr(self, "device"):
            for scope, accepted in self.device.store.rows.targets.items():
                assert accepted.target.version >= self.seen.get(scope, (0, 0))
                assert self.device.store.rows.floors[scope].version >= accepted.target.version
                self.seen[scope] = accepted.target.version

    @invariant()
    def what_was_acknowledged_is_on_disk(self):
        if hasattr(self, "device"):
            stored = {scope: each.target.version[1] for scope, each in self.device.store.rows.targets.items()}
            pending = [self.sent[m.payload] for m in self._at_the_broker() if m.payload in self.sent]
            for message in self.device.pubacked():
                scope, revision = self.sent.get(message.payload, ("fleet", 0))
                comes_again = any(other == scope and number >= revision for other, number in pending)
                assert revision <= stored.get(scope, 0) or comes_again

    def _at_the_broker(self):
        """What it will send again, because it has no PUBACK."""
        return (*self.device.broker.unacknowledged.values(), *self.device.broker._queued)

    @invariant()
    def nothing_foreign_and_no_volume_is_gone(self):
        if hasattr(self, "device"):
            assert self.foreign in self.device.world.containers
            assert self.volumes <= set(self.device.world.volumes)
            self.volumes = {name for name in self.device.world.volumes if "_" in name}

    # In calm weather.

    @rule()
    def calm(self):
        device = self.device
        device.world.away = device.world.registry_down = device.store.full = False
        device.trouble = lambda _name: None
        for container in device.world.containers.values():
            container.paths.clear()
        if self.held:
            self.publish_to_the_device(self.newest["device"][1])
        if device.broker.connected:
            device.broker.lose_unanswered()
            device.broker.disconnect()
        device.broker.hold_pubacks = False
        device.broker.connect()
        for scope, (revision, apps) in self.newest.items():
            self._send(scope, revision, apps)
        device.wait(60)
        for app_name in tuple(device.agent.reconciler.running):
            device.ask("start", app=app_name)
        if any(_never_good(one) for one in self._wanted().apps.values()):
            self._rolls_back()
            self.publish_fleet(FLEET_APPS[1])
        device.converge(most_s=7200)
        wanted = self._wanted()
        for one in wanted.apps.values():
            assert shortcomings(one, device.world) == []
        own = {c.app for c in device.world.containers.values() if c.owned_by(OWNER)}
        assert own == set(wanted.apps)
        for scope, (revision, _) in self.newest.items():
            accepted = device.store.rows.targets[scope]
            assert (accepted.target.version, accepted.ended) == ((1, revision), "applied")
        numbers = {
            json.loads(sent.payload)["seq"] for topic in (TOPICS.ack, TOPICS.event) for sent in device.broker.on(topic)
        }
        assert numbers == set(range(min(numbers), max(numbers) + 1))

    def _wanted(self):
        return everything(
            *(
                target(apps, revision=revision, **({"device": "d1"} if scope == "device" else {}))
                for scope, (revision, apps) in sorted(self.newest.items(), reverse=True)
            )
        )

    def _rolls_back(self):
        """To what `web` last settled with, if that was any good: one that an operator has stopped settles so."""
        device, wanted = self.device, self._wanted().apps["web"]
        good = device.agent.releases.last_good("web")
        if good is None or _never_good(good):
            return
        waited = 0
        # The fleet's target had been applied where it was the device's own that hid its app.
        while shortcomings(good, device.world) or device.agent.rollout.targets["fleet"].ended is None:
            assert waited < 7200, f"not rolled back: {device.agent.current.read()}"
            device.wait(5)
            waited += 5
        device.wait(60)
        assert device.store.rows.bad["web"].digest == wanted.digest
        assert any(told.startswith("rolled_back") and " web " in told for told in device.told())

    def teardown(self):
        if hasattr(self, "device"):
            self.calm()


AgentMachine.TestCase.settings = settings(stateful_step_count=25)
test_the_agent_survives = AgentMachine.TestCase
