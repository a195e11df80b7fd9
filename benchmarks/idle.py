"""What an agent with 10 services costs while nothing happens, and what an install writes to disk."""

import signal
import subprocess
import sys
import time

from benchmarks.world import ROOT, Agent, app, as_in_the_image

SETTLED_S = 8.0


def written_for_install(agent: Agent, count: int) -> int:
    """Bytes that the agent's process caused to be written for an install, to its end."""
    before = agent.written()
    agent.publish({"bench": app(count)})
    agent.converged()
    # The deletion of the last rows that the broker has follows within this.
    time.sleep(SETTLED_S)
    return agent.written() - before


def at_rest(agent: Agent, seconds: float) -> tuple[float, float, int, int]:
    """PSS in MiB, share of a core, bytes written to disk, states published, over so many seconds."""
    while not agent.states.empty():
        agent.states.get()
    cpu, written = agent.cpu_s(), agent.written()
    time.sleep(seconds)
    return agent.pss_mib(), (agent.cpu_s() - cpu) / seconds, agent.written() - written, agent.states.qsize()


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
