"""The container engine as the agent's port `Engine`: Docker, or what speaks its API (Podman).

Nothing is connected before the first call, and no call blocks for ever. Looking goes over plain connections
(`docker_http.py`), changing through the SDK (`docker_actions.py`).
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from datetime import datetime
from functools import cached_property
from http import HTTPStatus
from threading import Event, Thread
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog

from device_agent.adapters import docker_observe as look
from device_agent.adapters.docker_events import OPENED, event, events_path
from device_agent.adapters.docker_http import EngineHttp
from device_agent.adapters.docker_logs import LogReader, logs_path
from device_agent.adapters.docker_memory import ImageList, Inspections, Memo
from device_agent.adapters.docker_missing import missing_bytes
from device_agent.adapters.docker_pull import pull
from device_agent.adapters.registry_auth import RegistryAuth
from device_agent.model.errors import EngineError, Kind
from device_agent.model.log import LogLine
from device_agent.model.observed import LABEL_DEVICE, EngineEvent, Observed, Status
from device_agent.model.steps import Connect, Create, CreateNetwork, CreateVolume, Fill
from device_agent.ports import PullProgress

if TYPE_CHECKING:
    from device_agent.adapters.docker_actions import Actions

NO_LOGINS = RegistryAuth()

log = structlog.get_logger()


class DockerEngine:
    """`owner` is the value of the label `device-agent.device` (`{fleet}/{device}`): what carries it is ours."""

    def __init__(self, url: str, owner: str, *, auth: RegistryAuth = NO_LOGINS, timeout_s: float = 15.0) -> None:
        self._owner = owner
        self._auth = auth
        self._http = EngineHttp(url, timeout_s)
        self._inspections = Inspections()
        self._containers = Memo(look.listed_containers)
        self._networks = Memo(look.networks(owner))
        self._volumes = Memo(look.volumes(owner))
        self._image_list = ImageList()
        self._apps: dict[str, str] = {}
        self._ahead: Future[Observed] | None = None

    @cached_property
    def _actions(self) -> "Actions":
        from device_agent.adapters.docker_actions import Actions  # noqa: PLC0415 - 60 ms and 10 MiB, perhaps never needed

        return Actions(self._http)

    def begin(self) -> None:
        """Begin the first look, before there is anybody who asks for it: `observe` takes what it finds."""
        ahead = self._ahead = Future[Observed]()

        def look() -> None:
            try:
                ahead.set_result(self._observe(frozenset()))
            except BaseException as error:  # noqa: BLE001 - raised where it is asked for
                ahead.set_exception(error)

        Thread(target=look, name="first look", daemon=True).start()

    def observe(self, stale: frozenset[str] | None = frozenset()) -> Observed:
        ahead, self._ahead = self._ahead, None
        return ahead.result() if ahead else self._observe(stale)

    def _observe(self, stale: frozenset[str] | None) -> Observed:
        since = self._inspections.now()
        images = None if stale is None else self._image_list.trusted()
        listing = self._image_list.begin() if images is None else 0
        paths = (
            look.containers_path(self._owner),
            look.NETWORKS,
            look.VOLUMES,
            *([look.IMAGES] if images is None else []),
        )
        containers, networks, volumes, *rest = (answer.checked().body for answer in self._http.get(*paths))
        if images is None:
            images = look.images(rest[0])
            self._image_list.keep(images, listing)
        listed = self._containers(containers)
        seen = self._inspect(self._inspections.outdated(listed, stale), since)
        found = Observed(
            containers=tuple(
                look.with_inspection(
                    item, seen.get(item.container.id) or self._inspections.known(item.container.id), ids
                )
                for ids in ({network.name: network.id for network in self._networks(networks)},)
                for item in listed
            ),
            networks=self._networks(networks),
            volumes=self._volumes(volumes),
            images=images,
        )
        self._apps = _apps(found)
        return found

    def _inspect(self, outdated: list[look.Listed], since: int) -> dict[str, look.Inspected]:
        seen: dict[str, look.Inspected] = {}
        answers = self._http.get(*(look.inspect_path(item.container.id) for item in outdated))
        for item, answer in zip(outdated, answers, strict=True):
            if answer.status == HTTPStatus.NOT_FOUND:
                continue  # gone since it was listed: the next look will not show it
            inspected = look.inspected_container(answer.checked().body, item.mark)
            seen[item.container.id] = inspected
            self._inspections.learn(item.container, inspected, since)
        return seen

    def events(self, stop: Event) -> Iterator[EngineEvent]:
        lines = self._http.lines("GET", events_path(time.time()), stop=stop, idle_s=None)
        try:
            if next(lines, None) is None:
                return
            with self._image_list.watched():
                yield OPENED
                for line in lines:
                    happened = event(line, self._owner, self._apps)
                    if happened is None:
                        continue
                    if happened.kind == "image":
                        self._image_list.changed()
                    yield happened
        except TimeoutError as error:
            raise self._http.failed(error, "events", self._http.timeout_s) from error
        finally:
            lines.close()

    def pull(self, image: str, platform: str | None, progress: Callable[[PullProgress], None], cancel: Event) -> str:
        try:
            return pull(self._http, self._auth, image, platform, progress, cancel)
        finally:
            self._image_list.changed()

    def missing_bytes(self, image: str, platform: str | None) -> int | None:
        return missing_bytes(self._http, self._auth, image, platform)

    def create_network(self, network: CreateNetwork) -> None:
        self._actions.create_network(network)

    def check_network(self, network_id: str, users: frozenset[str]) -> None:
        answer = self._http.get(f"/networks/{network_id}")[0]
        if answer.status == HTTPStatus.NOT_FOUND:
            return
        attached: dict[str, dict[str, str]] = answer.checked().json().get("Containers") or {}
        others = sorted(each.get("Name") or id_[:12] for id_, each in attached.items() if id_ not in users)
        if others:
            message = f"containers that are not this app's are on the network: {', '.join(others)}"
            raise EngineError("network_in_use", message, Kind.OUTSIDE)

    def remove_network(self, network_id: str) -> None:
        self._actions.remove_network(network_id)

    def create_volume(self, volume: CreateVolume) -> None:
        self._actions.create_volume(volume)

    def fill(self, fill: Fill) -> None:
        self._actions.fill(fill)

    def create(self, container: Create) -> None:
        try:
            warnings = self._actions.create(container)
        except EngineError as error:
            raise self._name_holder(container.name) if error.code == "name_in_use" else error from error
        for warning in warnings:
            log.warning("engine_warning", container=container.name, message=warning)

    def connect(self, connect: Connect) -> None:
        self._actions.connect(connect)

    def disconnect(self, container_id: str, network: str) -> None:
        self._actions.disconnect(container_id, network)

    def start(self, container: str) -> None:
        try:
            self._actions.start(container)
        finally:
            self._inspections.forget(container)  # a start that fails leaves its error in the inspection alone

    def stop(self, container_id: str, grace_s: float) -> None:
        self._actions.stop(container_id, grace_s)
        self._inspections.forget(container_id)

    def remove(self, container_id: str) -> None:
        self._actions.remove(container_id)

    def rename(self, container_id: str, name: str) -> None:
        try:
            self._actions.rename(container_id, name)
        except EngineError as error:
            raise self._name_holder(name) if error.code == "name_in_use" else error from error
        self._inspections.renamed(container_id, name)

    def remove_image(self, image: str) -> None:
        self._actions.remove_image(image)
        self._image_list.changed()

    def remove_volume(self, name: str) -> None:
        self._actions.remove_volume(name)

    def has_file(self, container_id: str, path: str) -> bool:
        answer = self._http.head(f"/containers/{container_id}/archive?path={quote(path, safe='')}")
        if answer.status == HTTPStatus.NOT_FOUND:
            return False
        answer.checked()
        return True

    def tail(self, container_id: str, lines: int) -> str:
        return self._actions.tail(container_id, lines)

    def logs(
        self, container_id: str, *, lines: int, since: datetime | None, follow: bool, stop: Event
    ) -> Iterator[tuple[LogLine, ...]]:
        path = logs_path(container_id, lines, since, follow=follow)
        idle_s = None if follow else self._http.timeout_s
        reader = LogReader()
        try:
            with closing(self._http.pieces("GET", path, stop=stop, idle_s=idle_s)) as pieces:
                for piece in pieces:
                    if batch := reader.feed(piece):
                        yield batch
        except TimeoutError as error:
            raise self._http.failed(error, f"logs of {container_id}", self._http.timeout_s) from error
        if batch := reader.end():
            yield batch

    def close(self) -> None:
        """Let go of the idle connections. It may be used again."""
        self._http.away()
        if "_actions" in self.__dict__:
            self._actions.close()

    def _name_holder(self, name: str) -> EngineError:
        """A name held by an own container, or by one that is going, will be free; one of a stranger's may never be."""
        answer = self._http.get(f"/containers/{quote(name)}/json")[0]
        if answer.status == HTTPStatus.NOT_FOUND:
            return EngineError("name_in_use", f"the name {name} is still being freed by the engine", Kind.TEMPORARY)
        holder = answer.checked().json()
        if holder["State"].get("Status") == Status.REMOVING:
            return EngineError("name_in_use", f"the container that has the name {name} is going", Kind.TEMPORARY)
        if (holder["Config"].get("Labels") or {}).get(LABEL_DEVICE) == self._owner:
            return EngineError("name_in_use", f"the name {name} is taken by another of our containers", Kind.TEMPORARY)
        message = f"the name {name} is taken by container {holder['Id'][:12]}, which is not the agent's"
        return EngineError("name_in_use", message, Kind.OUTSIDE)


def _apps(found: Observed) -> dict[str, str]:
    apps = {network.id: network.app for network in found.networks if network.app}
    apps |= {volume.name: volume.app for volume in found.volumes if volume.app}
    return apps | {container.id: container.app for container in found.containers}
