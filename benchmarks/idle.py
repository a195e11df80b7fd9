"""What an agent with 10 services costs while nothing happens, and what an install writes to disk."""

import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.messages import Ear
from benchmarks.world import ROOT, Agent, agent, app, as_in_the_image
from tests.broker import Cable

SETTLED_S = 8.0


def written_for_install(running: Agent, count: int) -> int:
    """Bytes that the agent's process caused to be written for an install, to its end."""
    before = running.written()
    running.publish({"bench": app(count)})
    running.converged()
    # The deletion of the last rows that the broker has follows within this.
    time.sleep(SETTLED_S)
    return running.written() - before


@dataclass(frozen=True)
class Rest:
    """Of an agent to which nothing happens."""

    pss_mib: float
    cpu: float
    """Of a core, from 0 to 1."""
    written: int
    """Bytes to disk, in all the time."""
    messages: int
    """Of any kind, in all the time."""
    carried: float
    """Bytes of MQTT a minute, both ways: a ping and its answer are 4."""
    wake_ups: float
    """A minute, of all threads."""


def at_rest(port: int, count: int, seconds: float) -> Rest:
    """With so many services, over so many seconds, by an agent whose connection goes through a relay that counts."""
    cable = Cable("127.0.0.1", port)
    cable.plug()
    try:
        with agent(port, MQTT_URL=f"mqtt://127.0.0.1:{cable.port}") as resting:
            # All replaced once: the agent has loaded by now whatever it loads late.
            for revision in range(2):
                resting.publish({"bench": app(count, revision)})
                resting.converged()
            ear = Ear(resting)
            time.sleep(SETTLED_S)
            ear.silence()
            cpu, written, carried, wake_ups = resting.cpu_s(), resting.written(), cable.carried, resting.wake_ups()
            time.sleep(seconds)
            woken = sum(times - wake_ups.get(thread, 0) for thread, times in resting.wake_ups().items())
            minutes = seconds / 60
            rest = Rest(
                pss_mib=resting.pss_mib(),
                cpu=(resting.cpu_s() - cpu) / seconds,
                written=resting.written() - written,
                messages=sum("/up/" in topic for topic, _ in ear.silence()),
                carried=(cable.carried - carried) / minutes,
                wake_ups=woken / minutes,
            )
            ear.close()
            return rest
    finally:
        cable.unplug()


def first_pass(environment: dict[str, str], runs: int) -> list[float]:
    """Seconds from the start of the process to the end of its first pass, no broker in reach, services running."""
    took = []
    for _ in range(runs):
        began = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "device_agent", "run"],
            env=as_in_the_image({**environment, "DEVICE_AGENT_MQTT_URL": "mqtt://127.0.0.1:1"}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if '"first pass"' in line:
                took.append(time.monotonic() - began)
                break
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)
        process.stderr.close()
    return took


def libraries_alone(runs: int) -> list[float]:
    """Seconds of a process that only imports the libraries that a start cannot do without."""
    took = []
    for _ in range(runs):
        began = time.monotonic()
        libraries = "sqlalchemy.dialects.sqlite, pydantic_settings, structlog"
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.modules['rich'] = None; import {libraries}"],
            env=as_in_the_image({}),
            check=True,
        )
        took.append(time.monotonic() - began)
    return took
