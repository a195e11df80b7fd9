"""The calls that change something, by the docker SDK. Imported when the first one is made: it costs 60 ms and 10 MiB.

The SDK's low-level client only: the high-level one inspects behind one's back. Clients are kept for re-use, one caller
each at a time, because a `requests` session is not promised to be safe for several threads.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
import urllib3
from docker.api.client import APIClient
from docker.errors import APIError

from device_agent.adapters.docker_create import MAC_OF_ENDPOINT, container_body, left_out, network_arguments
from device_agent.adapters.docker_errors import sorted_error
from device_agent.adapters.docker_files import archive, holder_body
from device_agent.adapters.docker_http import EngineHttp
from device_agent.adapters.docker_mounts import too_old
from device_agent.model.compose_files import HELD_AT
from device_agent.model.errors import EngineError, Kind
from device_agent.model.steps import Connect, Create, CreateNetwork, CreateVolume, Fill

TAIL_BYTES = 2048
DRIVER_S = 15.0
"""How long the engine looks for a driver or plugin that it does not have, before it says so."""
_KEPT = 8
_PLATFORM = (1, 41)
"""Older engines have no word for it."""


class Actions:
    """Everything but looking and pulling. Safe for several threads; every call has a time limit."""

    def __init__(self, http: EngineHttp) -> None:
        self._http = http
        self._idle: deque[_Client] = deque()

    def create_network(self, network: CreateNetwork) -> None:
        with self._client(f"create network {network.name}", more_s=DRIVER_S) as client:
            client.create_network(**network_arguments(network))

    def remove_network(self, network_id: str) -> None:
        with self._client(f"remove network {network_id}") as client, _accepting(_gone):
            client.remove_network(network_id)

    def create_volume(self, volume: CreateVolume) -> None:
        with self._client(f"create volume {volume.name}", more_s=DRIVER_S) as client:
            made = client.create_volume(volume.name, volume.driver, dict(volume.driver_opts), dict(volume.labels))
        # The engine answers with the volume that was there before, as if it had made it.
        if not volume.labels.items() <= (made.get("Labels") or {}).items():
            message = f"the name is taken: there is a volume {volume.name} that is not this app's"
            raise EngineError("name_in_use", message, Kind.OUTSIDE)

    def fill(self, fill: Fill) -> None:
        self.create_volume(fill.volume)
        with self._client(f"fill volume {fill.volume.name}") as client:
            made = client.create_container_from_config(  # type: ignore[no-untyped-call]
                holder_body(fill), None, self._platform(fill.platform)
            )
            try:
                client.put_archive(made["Id"], HELD_AT, archive(fill.files))
            finally:
                client.remove_container(made["Id"], v=True, force=True)

    def create(self, create: Create) -> list[str]:
        """Warnings: the engine's own, and what it is too old for."""
        with self._client(f"create {create.name}", more_s=DRIVER_S) as client:
            api = self._http.api()
            if problem := too_old(create.mounts, api):
                raise EngineError("bad_config", problem, Kind.TARGET)
            source = client.inspect_volume(create.files)["Mountpoint"] if create.files else ""
            body, platform = container_body(create, api, source), self._platform(create.service.platform)
            made = client.create_container_from_config(body, create.name, platform)  # type: ignore[no-untyped-call]
        return [*(f"left out by this engine: {what}" for what in left_out(create, api)), *(made.get("Warnings") or ())]

    def _platform(self, platform: str | None) -> str | None:
        return platform if self._http.api() >= _PLATFORM else None

    def connect(self, connect: Connect) -> None:
        network, mac_address = connect.endpoint.network, connect.endpoint.mac_address
        if mac_address and self._http.api() < MAC_OF_ENDPOINT:
            message = f"this engine gives a container one MAC address, on its first network: not one on {network}"
            raise EngineError("bad_config", message, Kind.TARGET)
        already = _says("already exists in network")
        with self._client(f"connect {connect.container} to {network}") as client, _accepting(already):
            client.connect_container_to_network(
                connect.container,
                network,
                ipv4_address=connect.endpoint.ipv4_address,
                ipv6_address=connect.endpoint.ipv6_address,
                aliases=list(connect.endpoint.aliases) or None,
                links=list(connect.endpoint.links) or None,
                mac_address=mac_address,
            )

    def disconnect(self, container_id: str, network: str) -> None:
        there = _either(_gone, _says("is not connected to"))
        with self._client(f"disconnect {container_id} from {network}") as client, _accepting(there):
            client.disconnect_container_from_network(container_id, network, force=True)

    def start(self, container: str) -> None:
        with self._client(f"start {container}") as client:
            try:
                client.start(container)
            except APIError as error:
                if _says("paused")(error):
                    client.unpause(container)
                    return
                if _left_behind(error) and not _has_run(client, container):
                    # Nothing else ends it: this container would never start. The next look has another one made.
                    client.remove_container(container, v=True, force=True)
                raise

    def stop(self, container_id: str, grace_s: float) -> None:
        with self._client(f"stop {container_id} after {grace_s:g} s of grace") as client, _accepting(_gone):
            # Explicit: left out, the SDK gives up waiting 10 s after its own time limit, whatever the grace.
            client.stop(container_id, timeout=math.ceil(grace_s))

    def remove(self, container_id: str) -> None:
        with self._client(f"remove {container_id}") as client, _accepting(_gone):
            client.remove_container(container_id, v=True, force=True)

    def rename(self, container_id: str, name: str) -> None:
        with self._client(f"rename {container_id}") as client, _accepting(_says("same name as its current name")):
            client.rename(container_id, name)

    def remove_image(self, image: str) -> None:
        with self._client(f"remove image {image}") as client, _accepting(_gone):
            client.remove_image(image)

    def remove_volume(self, name: str) -> None:
        with self._client(f"remove volume {name}", more_s=DRIVER_S) as client, _accepting(_gone):
            client.remove_volume(name)

    def tail(self, container_id: str, lines: int) -> str:
        unreadable = _either(_gone, _says("does not support reading"))
        output = b""
        with self._client(f"logs of {container_id}") as client, _accepting(unreadable):
            output = client.logs(container_id, stdout=True, stderr=True, tail=lines)
        return output[-TAIL_BYTES:].decode(errors="replace")

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _client(self, what: str, more_s: float = 0.0) -> Iterator["_Client"]:
        client = self._take()
        limit_s = self._http.timeout_s + more_s
        client.timeout = limit_s  # type: ignore[assignment] # may be a fraction
        try:
            yield client
        except APIError as error:
            # An answer is no fault of the connection.
            self._give_back(client)
            raise sorted_error(error.status_code or 500, error.explanation or "") from error
        except requests.Timeout as error:
            client.close()
            raise self._http.failed(TimeoutError(), what, limit_s) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            client.close()
            raise self._http.failed(error, what, limit_s) from error
        else:
            self._give_back(client)

    def _take(self) -> "_Client":
        version = "{}.{}".format(*self._http.api())
        while self._idle:
            try:
                client = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if client.api_version == version:
                return client
            client.close()
        return _Client(self._http.url, version, self._http.timeout_s)

    def _give_back(self, client: "_Client") -> None:
        if len(self._idle) < _KEPT:
            self._idle.append(client)
        else:
            client.close()


class _Client(APIClient):
    def __init__(self, url: str, version: str, timeout_s: float) -> None:
        super().__init__(base_url=url, version=version, timeout=timeout_s)  # type: ignore[arg-type] # may be a fraction
        self.trust_env = False  # neither a proxy for the engine's socket, nor a look at the environment in every call


@contextmanager
def _accepting(harmless: Callable[[APIError], bool]) -> Iterator[None]:
    """An error that says what was wanted is so already."""
    try:
        yield
    except APIError as error:
        if not harmless(error):
            raise


def _gone(error: APIError) -> bool:
    return error.status_code == HTTPStatus.NOT_FOUND


def _left_behind(error: APIError) -> bool:
    """An engine that was killed in the middle of a start has left the task of it, and does not know it any more."""
    return sorted_error(error.status_code or 500, error.explanation or "").code == "start_left_behind"


def _has_run(client: APIClient, container: str) -> bool:
    started: str = client.inspect_container(container)["State"]["StartedAt"]
    return not started.startswith("0001-")


def _says(words: str) -> Callable[[APIError], bool]:
    return lambda error: words in (error.explanation or "")


def _either(*accepted: Callable[[APIError], bool]) -> Callable[[APIError], bool]:
    return lambda error: any(accept(error) for accept in accepted)
