"""The worst messages through every decoder: bounded memory, and never anything but a refusal."""

import tracemalloc
from collections.abc import Callable
from typing import Any

from device_agent.core.intake import want
from device_agent.core.policy import Policy
from device_agent.model.errors import MOST_PROBLEMS, Refused
from device_agent.wire import commands, uplink
from device_agent.wire.target import check_keys, glimpse, open_target, read_version
from tests.builders import NAMING
from tests.hostile import INFLATED, MIB, TRAVELS, documents

LARGEST = 32 * MIB
"""8 of a document, its text once more, its longest strings once more. The most take 65,536 ports, of a few bytes."""
DECODERS = (
    uplink.decode_session,
    uplink.decode_state,
    uplink.decode_ack,
    uplink.decode_event,
    commands.read_command,
    commands.decode_answer,
)


def judged(raw: bytes) -> str:
    """The whole way of a target, short of the device's memory of others. Its code, or `accepted`."""
    body: Any = None
    known = False
    try:
        body = open_target(raw)
        target = read_version(body, raw=raw)
        known = True
        check_keys(body)
        want({target.scope: target}, NAMING, Policy())
    except Refused as refused:
        if not known:
            glimpse(body)
        assert len(refused.problems) <= MOST_PROBLEMS  # noqa: PT017 - a refusal is one of two right outcomes
        assert len(refused.message) < 500  # noqa: PT017
        return refused.code
    return "accepted"


def peak(work: Callable[[bytes], object], raw: bytes) -> int:
    tracemalloc.start()
    try:
        work(raw)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_message_takes_more_memory_than_it_may() -> None:
    over = {}
    for name, raw in documents(INFLATED):
        needed = peak(judged, raw)
        if needed > LARGEST:
            over[name] = f"{needed / MIB:.1f} MiB"
    assert over == {}


def test_every_decoder_refuses_them() -> None:
    for name, raw in documents(TRAVELS):
        for decode in DECODERS:
            try:
                decode(raw)
            except Refused:
                continue
            raise AssertionError(f"{decode.__name__} takes {name}")
