"""Which version the next target of a scope gets: always above everything a device may ever have accepted."""

from collections.abc import Iterable

from device_agent.model.target import Version

FIRST = Version(1, 1)


def next_version(own: Version | None, retained: Version | None, accepted: Iterable[Version]) -> Version:
    """`own` is the database's, `retained` the broker's, `accepted` what devices say they have.

    The revision counts up. The epoch goes up where the database has lost its past: it knows nothing of a scope that
    somebody has published to, or a device has more than both database and broker know. Another device, offline now,
    may then have a higher revision than anybody here knows of, and would refuse a lower one as stale.
    """
    known = max(filter(None, (own, retained)), default=None)
    highest = max(filter(None, (known, *accepted)), default=None)
    if highest is None:
        return FIRST
    if own is None or known is None or highest > known:
        return Version(highest.epoch + 1, 1)
    return Version(known.epoch, known.revision + 1)
