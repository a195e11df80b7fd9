"""What services stand on: the images of their release, their networks and their volumes.

Laid before the services are planned, which then ask it: which steps to wait for, and what cannot be had. Rules 4 and 5
of the planner are kept here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from device_agent.core.draft import NONE, Draft, Ids, stop_of
from device_agent.core.images import NOTHING_PULLED, Pulled, plan_pulls
from device_agent.core.matching import Match, present
from device_agent.core.wanted import WantedApp, WantedNetwork, WantedService
from device_agent.model.observed import Container, Network, Observed
from device_agent.model.steps import (
    Blocked,
    CheckNetwork,
    Connect,
    Disconnect,
    Endpoint,
    RemoveNetwork,
    Start,
    Step,
)


@dataclass(slots=True)
class Foundations:
    """The foundations of one app; lives for one planning."""

    wanted: WantedApp
    observed: Observed
    matches: Mapping[str, Match]
    steps: Draft
    pulled: Pulled = NOTHING_PULLED
    images: Ids = NONE
    """The pulls of this release."""
    blocked: dict[str, Blocked] = field(default_factory=dict)
    """`image REFERENCE`, `network KEY`, `volume KEY` → why it cannot be had."""
    ready: dict[str, Ids] = field(default_factory=dict)
    """`network KEY`, `volume KEY` → the step that makes it."""
    attached: dict[str, Ids] = field(default_factory=dict)
    """Service → the steps that put its container back on its networks."""

    def lay(self) -> None:
        self.images, absent = plan_pulls(self.wanted, self.matches, self.pulled, self.steps)
        self.blocked |= {blocked.subject: blocked for blocked in absent}
        for network in self.wanted.networks.values():
            self._network(network)
        self._volumes()

    def obstacle(self, service: WantedService) -> str:
        """The first of what it stands on that cannot be had: somebody else has to clear it."""
        return next((subject for subject in _stands_on(service) if subject in self.blocked), "")

    def made(self, service: WantedService) -> Ids:
        """The steps that make its networks and volumes, and put its container back on them."""
        made = NONE.union(*(self.ready.get(subject, NONE) for subject in _stands_on(service)))
        return made | self.attached.get(service.name, NONE)

    def _network(self, network: WantedNetwork) -> None:
        subject = f"network {network.key}"
        there = [n for n in self.observed.networks if n.name == network.name]
        own = next((n for n in there if n.app == self.wanted.name), None)
        if network.external:
            if there:
                self._attach(network, there[0].id, NONE)
            else:
                self._block(
                    subject, "network_missing", f"the external network {network.name} does not exist: create it"
                )
        elif own and own.spec == network.spec:
            self._attach(network, own.id, NONE)
        elif own and (until := self._not_yet(network, subject)):
            # It cannot be replaced now: it is used as it is until the next try, which this held step tells.
            action, cause = RemoveNetwork(network.name, own.id), f"the definition of network {network.name} changed"
            self.steps.add(Step(action, subject, network.spec, cause, until=until))
            self._attach(network, own.id, NONE)
        elif own:
            self._replace_network(network, own, subject)
        elif there:
            message = (
                f"a network {network.name} exists that is not this app's: remove or rename it, or declare it external"
            )
            self._block(subject, "name_in_use", message)
        else:
            created = self.steps.add(Step(network.create, subject, network.spec, "it does not exist"))
            self.ready[subject] = created
            self._attach(network, "", created)

    def _attach(self, network: WantedNetwork, network_id: str, after: Ids) -> None:
        """Containers as wanted that lost the network: taken off by hand, or left with a removed one of its name."""
        for name, match in self.matches.items():
            endpoint = self._endpoint(name, network)
            if endpoint is None or match.winner is None:
                continue
            attached = match.winner.networks.get(network.name)
            if attached is not None and attached in ("", network_id):
                continue
            cause = f"it is not on network {network.name}"
            before = after
            if attached is not None:
                leave = Disconnect(match.winner.name, match.winner.id, network.name)
                before = self.steps.add(Step(leave, name, match.winner.spec, cause, after))
            connect = Step(Connect(match.winner.name, endpoint), name, match.winner.spec, cause, before)
            self.attached[name] = self.attached.get(name, NONE) | self.steps.add(connect)

    def _endpoint(self, service: str, network: WantedNetwork) -> Endpoint | None:
        return next((e for e in self.wanted.services[service].endpoints if e.network == network.name), None)

    def _users(self, network: WantedNetwork) -> list[Container]:
        return [c for c in present(self.wanted.name, self.observed) if network.name in c.networks]

    def _not_yet(self, network: WantedNetwork, subject: str) -> str:
        """Until when it cannot be replaced: a user that cannot be moved now keeps the others from being stopped."""
        waits = (self.steps.waiting(user.service, user.spec) for user in self._users(network))
        return self.steps.waiting(subject, network.spec) or next(filter(None, waits), "")

    def _replace_network(self, network: WantedNetwork, own: Network, subject: str) -> None:
        """A changed definition: its users are stopped, moved over and started again."""
        cause = f"the definition of network {network.name} changed"
        users = self._users(network)
        check = CheckNetwork(network.name, own.id, frozenset(user.id for user in users))
        ready = self.steps.add(Step(check, subject, network.spec, cause, self.images))
        gone = NONE
        for user in users:
            stopped = ready
            if user.up:
                stop = Step(stop_of(self.wanted, user), user.service, user.spec, cause, ready)
                stopped = self.steps.add(stop)
            leave = Disconnect(user.name, user.id, network.name)
            gone |= self.steps.add(Step(leave, user.service, user.spec, cause, stopped, commits=user.up))
        busy = any(user.up for user in users)
        remove = RemoveNetwork(network.name, own.id)
        removed = self.steps.add(Step(remove, subject, network.spec, cause, gone or ready, commits=busy))
        created = self.steps.add(Step(network.create, subject, network.spec, cause, removed, commits=busy))
        self.ready[subject] = created
        for user in users:
            match = self.matches.get(user.service)
            endpoint = self._endpoint(user.service, network) if match else None
            if endpoint is None or match is None or user not in (match.winner, match.fallback):
                continue
            # What is to be replaced is moved over too: it runs on while its replacement cannot.
            connect = Step(Connect(user.name, endpoint), user.service, user.spec, cause, created, commits=user.up)
            connected = self.steps.add(connect)
            if user is match.winner:
                self.attached[user.service] = self.attached.get(user.service, NONE) | connected
                if user.up and not self.wanted.services[user.service].stopped:
                    self.steps.add(Step(Start(user.name), user.service, user.spec, cause, connected, commits=True))

    def _volumes(self) -> None:
        for key in sorted({key for service in self.wanted.services.values() for key in service.volumes}):
            volume = self.wanted.volumes[key]
            subject = f"volume {key}"
            there = next((v for v in self.observed.volumes if v.name == volume.name), None)
            if volume.external and not there:
                self._block(subject, "volume_missing", f"the external volume {volume.name} does not exist: create it")
            elif there and not volume.external and there.app is None:
                message = f"a volume {volume.name} exists that is not this device's: remove it, or declare it external"
                self._block(subject, "name_in_use", message)
            elif not there:
                self.ready[subject] = self.steps.add(Step(volume.create, subject, volume.spec, "it does not exist"))

    def _block(self, subject: str, code: str, message: str) -> None:
        self.blocked[subject] = Blocked(subject, code, message)


def _stands_on(service: WantedService) -> tuple[str, ...]:
    return (*(f"network {key}" for key in service.networks), *(f"volume {key}" for key in sorted(service.volumes)))
