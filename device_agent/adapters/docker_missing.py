"""What a pull would bring: the layers of an image that the engine does not have yet."""

from http import HTTPStatus
from urllib.parse import quote

import structlog

from device_agent.adapters.docker_http import EngineHttp
from device_agent.adapters.registry_auth import RegistryAuth
from device_agent.model.image import registry_of

log = structlog.get_logger()


def missing_bytes(http: EngineHttp, auth: RegistryAuth, image: str, platform: str | None) -> int | None:
    """`ports.Engine.missing_bytes`."""
    from device_agent.adapters.registry import Unknown, layers  # noqa: PLC0415 - only who pulls needs it

    try:
        found = layers(image, platform or _own_platform(http), auth.login(registry_of(image)))
    except (Unknown, ValueError) as error:
        log.info("size unknown", image=image, why=str(error), next="it is pulled without looking for space first")
        return None
    held = _held(http)
    if found.image_id in held:
        return 0
    # An engine keeps a layer with all that lies under it: only a common beginning is not brought again.
    common = max((_common(found.contents, contents) for contents in held.values()), default=0)
    return sum(found.sizes[common:])


def _own_platform(http: EngineHttp) -> str:
    document = http.get("/version")[0].checked().json()
    return f"{document.get('Os') or 'linux'}/{document.get('Arch') or ''}".rstrip("/")


def _held(http: EngineHttp) -> dict[str, tuple[str, ...]]:
    """Image id → the contents of its layers."""
    listed = http.get("/images/json")[0].checked().json()
    answers = http.get(*(f"/images/{quote(item['Id'], safe=':')}/json" for item in listed))
    documents = (answer.json() for answer in answers if answer.status == HTTPStatus.OK)  # the others are gone
    return {doc["Id"]: tuple((doc.get("RootFS") or {}).get("Layers") or ()) for doc in documents}


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
