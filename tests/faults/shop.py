"""A registry, and what is between it and the engine."""

import contextlib
import os
import secrets
from typing import Self

import docker
import docker.errors

from tests.e2e.host import DEFAULT_URL, TEST_IMAGE, Host, OwnEngine
from tests.registry import Registry, grown, registry
from tests.registry_proxy import RegistryProxy, serving

LAYERS_KIB = (1024, 2048)


class Shop:
    """The registry is in a container on the shared engine. `proxy` is where the engine sees it, also one of its own."""

    def __init__(self, own_engine: OwnEngine | None) -> None:
        self._own_engine = own_engine
        self._sold: list[str] = []
        self.given_away: set[str] = set()
        """Names that mean somebody else's image by now, who alone may remove it."""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._registry: Registry = stack.enter_context(registry())
            self._api = docker.APIClient(base_url=os.environ.get("DOCKER_HOST") or DEFAULT_URL, version="auto")
            stack.callback(self._api.close)
            self.proxy = stack.enter_context(serving(RegistryProxy(self._registry.host)))
            self._stack = stack.pop_all()
        if self._own_engine is not None:
            self.appear_to(self._own_engine)
        return self

    def appear_to(self, engine: OwnEngine) -> None:
        """The agent is in this namespace, an engine of one's own in another, a new one at each start of it.

        Both are to see the registry under one name.
        """
        inside = engine.inside(lambda: RegistryProxy(self._registry.host, self.proxy.server_port))
        self.proxy = self._stack.enter_context(serving(inside))

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def stock(self, *layers_kib: int) -> str:
        """The name of a new image, which is on no engine and has layers that are on none."""
        name = f"faults-{secrets.token_hex(4)}"
        with grown(self._api, f"{TEST_IMAGE}:2", name, *(layers_kib or LAYERS_KIB)) as made:
            pushed, _ = self._registry.push(self._api, made)
        self._sold.append(pushed.replace(self._registry.host, self.proxy.host))
        return self._sold[-1]

    def on(self, host: Host) -> list[str]:
        """What of it an engine has."""
        return [image for image in self._sold if image not in self.given_away and host.api.images(name=image)]

    def remove_from(self, host: Host) -> None:
        for image in self._sold:
            with contextlib.suppress(docker.errors.ImageNotFound):
                host.api.remove_image(image)
