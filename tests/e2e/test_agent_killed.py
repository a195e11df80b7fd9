"""Scenario 4, the agent: kill -9 at every call of a port during an apply, and once more during the recovery."""

import contextlib
import queue
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.device import CONVERGE_S, Device, Stranger, app, service
from tests.e2e.oracle import judge
from tests.e2e.power_cut import NEVER
from tests.eventually import eventually

CUT = (sys.executable, str(Path(__file__).with_name("power_cut.py")))
CALLS = (
    *("store.load", "store.reserve_sessions", "store.commit", "store.remember_good"),
    *("transaction.put_target", "transaction.queue", "transaction.unqueue"),
    *("engine.observe", "engine.create", "engine.has_file", "engine.stop", "engine.start", "engine.remove"),
    *("transport.start", "transport.publish", "transport.acknowledge"),
)
HANDS = 6
"""Devices that are worked on side by side: most of the time they wait for the engine."""


OWN = {"side": app(one=service())}
"""The device's own target. With one in each scope the agent judges what is retained as soon as it has both."""


def release(number: int) -> dict[str, dict]:
    """A service that each release replaces, and a neighbour on its network that none does."""
    return {"web": app(api=service(1 + number % 2, environment={"RELEASE": number}), db=service())}


class Bench:
    """A device that applies release after release, and has its power cut meanwhile."""

    def __init__(self, device: Device, client: Stranger) -> None:
        self.device = device
        self._client = client
        self._number = 0
        self._own = device.cloud.publish(OWN, device=device.id)
        device.start()
        device.publish(release(0))
        identities = device.identities()
        self._kept = {key: identities[key] for key in ("web/db", "side/one")}
        assert device.stop() == 0

    def cut(self, *words: str) -> str | None:
        """Apply the next release with a cut for each word, then without. Where the last cut was; None for nowhere."""
        device = self.device
        self._number += 1
        published = device.cloud.publish(release(self._number))
        before, cut = device.snapshot(), None
        for word in words:
            cut = self._apply(word)
            # What was said to be accepted is on disk, and nothing ever goes back.
            after = device.snapshot()
            assert after.sound == "ok"
            assert after.targets["fleet"] >= before.targets["fleet"]
            assert after.floors["fleet"] >= before.floors["fleet"]
            if device.acks(verdict="accepted", revision=published.revision):
                assert after.targets["fleet"] == (published.epoch, published.revision)
            before = after
        device.start()
        judge(device, self._client, published, {**release(self._number), **OWN}, own=self._own, untouched=self._kept)
        assert device.stop() == 0
        return cut

    def _apply(self, word: str) -> str | None:
        device = self.device
        before = device.session
        device.launch(*CUT, environment={"POWER_CUT": word})
        process = device.process
        assert process
        eventually(
            lambda: process.poll() is not None or (device.session > before and device.has_converged()),
            CONVERGE_S,
            "a cut, or the end of the apply",
        )
        code = device.stop()
        if code == 0:
            return None
        assert code == -signal.SIGKILL
        return device.log().rpartition("power cut ")[2].split("\n")[0]

    def calls(self) -> list[str]:
        """The calls of an apply with no cut."""
        heard = len(self.device.log())
        assert self.cut(NEVER) is None
        calls = self.device.log()[heard:]
        return [line.removeprefix("port call ") for line in calls.splitlines() if line.startswith("port call ")]


def sweep(benches: list[Bench], cuts: list[tuple[str, ...]]) -> list[str]:
    """Carry out all the cuts. Where they were, those that came before the end of the apply."""
    left: queue.SimpleQueue[tuple[str, ...]] = queue.SimpleQueue()
    for words in cuts:
        left.put(words)
    failed, found = threading.Event(), []

    def work(bench: Bench) -> None:
        with contextlib.suppress(queue.Empty):
            while not failed.is_set():
                words = left.get_nowait()
                try:
                    where = bench.cut(*words)
                except BaseException as error:
                    failed.set()
                    error.add_note(f"with the power cut {words}")
                    raise
                if where:
                    found.append(where)

    with ThreadPoolExecutor(len(benches)) as pool:
        for done in [pool.submit(work, bench) for bench in benches]:
            done.result()
    return found


@pytest.fixture
def benches(make_device: Callable[..., Device], client: Stranger) -> list[Bench]:
    with ThreadPoolExecutor(HANDS) as pool:
        return list(pool.map(lambda device: Bench(device, client), [make_device() for _ in range(HANDS)]))


@pytest.mark.timeout(600)
def test_an_apply_must_survive_kill_9_at_every_call(benches: list[Bench]) -> None:
    counted = Counter(benches[0].calls())
    assert counted.keys() >= set(CALLS)
    cuts = [(f"before {name} {number}",) for name, count in counted.items() for number in range(1, count + 1)]

    found = sweep(benches, cuts)

    # Threads do not always call in the same order, or as often; but every kind of call has been cut.
    assert {f"before {name}" for name in CALLS} <= set(found)


@pytest.mark.timeout(600)
def test_an_apply_must_survive_kill_9_after_a_call_and_another_one_in_the_recovery(benches: list[Bench]) -> None:
    names = [name for name in CALLS if name.startswith("engine.")] + ["store.commit", "transport.acknowledge"]
    cuts = [(f"after {name} 1", f"after any {6 + 3 * place}") for place, name in enumerate(names)]

    found = sweep(benches, cuts)

    assert len(found) >= len(cuts) - 2
