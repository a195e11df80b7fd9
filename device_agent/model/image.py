"""Image references, normalised: the form under which a reference of a target and one the engine lists are equal."""

import re
from functools import lru_cache

DOCKER_HUB = "docker.io"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@lru_cache(maxsize=1024)
def normalise(reference: str) -> str:
    """`nginx` → `docker.io/library/nginx:latest`.

    A digest outweighs a tag: `b:1@sha256:…` → `docker.io/library/b@sha256:…`.

    An image id (`sha256:…`) stays as it is. The rules are those of the distribution project's reference grammar: the
    first component is a registry when it contains a dot or a colon, or is `localhost`.
    """
    if _DIGEST.fullmatch(reference):
        return reference
    name, _, digest = reference.partition("@")
    head, slash, rest = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost"):
        registry, path = head, rest
    else:
        registry, path = DOCKER_HUB, name
    if registry == "index.docker.io":
        registry = DOCKER_HUB
    last = path.rpartition("/")[2]
    tag = ""
    if ":" in last:
        path, _, tag = path.rpartition(":")
    if registry == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return f"{registry}/{path}@{digest}" if digest else f"{registry}/{path}:{tag or 'latest'}"


def is_fixed(reference: str) -> bool:
    """Whether it always names the same image: by digest, or by id."""
    return "@" in reference or bool(_DIGEST.fullmatch(reference))


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def fits_platform(wanted: str, os: str, architecture: str, variant: str) -> bool:
    """Whether an image is for a platform, `OS[/ARCH[/VARIANT]]`. What an image does not say is not held against it."""
    words = [_ARCHITECTURES.get(word, word) for word in wanted.split("/")]
    if len(words) == 1 and words[0] not in (os, "linux", "windows"):
        words = ["", *words]  # `arm64`, as the engine takes it too
    has = (os, architecture, variant)
    return all(not word or not said or word == said for word, said in zip(words, has, strict=False))


def registry_of(reference: str) -> str:
    """Its host, with the port where one is named."""
    return normalise(reference).partition("/")[0]
