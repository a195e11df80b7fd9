"""`x-maintenance` of an app: the windows in which a release may begin."""

from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from device_agent.model import compose_units as units
from device_agent.model.compose import Window
from device_agent.model.compose_units import NotValid
from device_agent.model.place import Place, Reader, by, read, read_object
from device_agent.model.target import Json

_SOME_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def _cron(value: Json) -> str:
    from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only who has a window needs it

    text = units.text(value)
    try:
        next(CronSim(text, _SOME_TIME))
    except CronSimError as error:
        raise NotValid(f"is no cron expression of five fields: {error}") from None
    except StopIteration:
        raise NotValid("is a time that never comes") from None
    return text


def _timezone(value: Json) -> str:
    name = units.text(value)
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise NotValid(f"`{name}` is no time zone that is known here, such as UTC or Europe/Berlin") from None
    return name


def _duration(value: Json) -> int:
    nanoseconds = units.duration(value)
    if nanoseconds <= 0:
        raise NotValid("a window has a length, such as 2h")
    return nanoseconds


_WINDOW: Mapping[str, Reader] = {"cron": by(_cron), "duration": by(_duration), "timezone": by(_timezone)}


def _window(place: Place) -> Window:
    return Window(**read_object(place, _WINDOW, required=("cron", "duration")))


def windows(place: Place) -> tuple[Window, ...]:
    return tuple(window for item in place.items() for window in read(item, _window))
