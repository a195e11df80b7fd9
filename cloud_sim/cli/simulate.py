"""`cloud-sim simulate`: a fleet of simulated devices, for as long as it is wanted."""

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import structlog
import typer

from cloud_sim.cli.options import (
    DONE,
    FAILED,
    INTERRUPTED,
    TOO_LATE,
    Settings,
    complain,
    note,
    seconds,
    with_settings,
)
from cloud_sim.cli.simulation import View
from cloud_sim.clock import monotonic
from cloud_sim.connection import Misconfigured, Unreachable
from cloud_sim.simulation.faults import FAILURES, LATENCIES, Behaviour
from cloud_sim.simulation.figures import resident_mib
from cloud_sim.simulation.fleet import Fleet, Outcome, Storm
from cloud_sim.simulation.network import PACE
from cloud_sim.simulation.processes import SIGNALS, Ended, Processes, processes_for


@with_settings
def simulate(
    settings: Settings,
    devices: Annotated[int, typer.Option("--devices", "-n", min=1, metavar="N", help="How many.", show_default=False)],
    prefix: Annotated[str, typer.Option(help="What their ids start with.")] = "sim-",
    for_: Annotated[
        float | None,
        typer.Option("--for", parser=seconds, metavar="TIME", help="End after 60s, 5m, 2h.", show_default="never"),
    ] = None,
    until_applied: Annotated[
        bool, typer.Option("--until-applied", help="End when every device has applied what is published.")
    ] = False,
    latency: Annotated[
        str, typer.Option(metavar="WHAT=TIME,...", help="What engines take: pull, stop, health, any other call.")
    ] = "pull=2s,stop=0.5s,call=0.02s,health=1s",
    fail: Annotated[
        str, typer.Option(metavar="WHAT=SHARE,...", help="What fails: pull, start, crash; 0.05 is one in twenty.")
    ] = "",
    storm: Annotated[
        list[str] | None,
        typer.Option(metavar="N@TIME", help="So many connections break at once, so long after the start."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of chance: with the same one, the same happens to the same device.")] = 0,
    pace: Annotated[int, typer.Option(min=1, help="Connections made in a second.")] = PACE,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="That carry the devices.", show_default="one for each core and 500 devices"),
    ] = None,
    broker_pid: Annotated[
        int | None,
        typer.Option(min=1, help="The broker's process, where its memory is to be told.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report alone, as one JSON object.")] = False,
) -> int:
    """Run simulated devices: each the real agent, over a real connection and a simulated engine that has every image.

    They take what is published and answer it, until Ctrl-C (or SIGTERM), --for or --until-applied. Then they say
    farewell, and a report is printed.
    """
    if not settings.fleet:
        raise Misconfigured("which fleet? Say --fleet NAME, or set CLOUD_SIM_FLEET")
    if for_ is not None and for_ <= 0:
        raise Misconfigured("--for: a simulation takes a while, 60s for one; leave it out to end it with Ctrl-C")
    behaviour = Behaviour(
        {**LATENCIES, **_assigned("--latency", latency, LATENCIES, seconds)},
        {**FAILURES, **_assigned("--fail", fail, FAILURES, _share)},
        seed,
    )
    storms = [_storm(text, devices, for_) for text in storm or ()]
    if broker_pid is not None and resident_mib(broker_pid) is None:
        raise Misconfigured(f"--broker-pid {broker_pid}: this machine has no such process whose memory could be told")
    broker = settings.broker()
    if why := broker.probe():
        raise Unreachable(f"cannot reach the broker {broker}: {why}")
    # What thousands of agents do is not logged: they tell it to the broker.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=True
    )
    count = min(devices, processes or processes_for(devices))
    make = Fleet if count == 1 else partial(Processes, count)
    with _interruptible() as deaf:
        try:
            fleet = make(
                broker,
                settings.fleet,
                devices,
                root=settings.topic_root,
                prefix=prefix,
                behaviour=behaviour,
                storms=storms,
                pace=pace,
            )
            try:
                view = View(fleet, as_json=as_json, broker_pid=broker_pid)
                return _run(fleet, view, for_, until_applied=until_applied)
            finally:
                deaf()
                fleet.close()
        except Ended as error:
            complain(str(error))
            return FAILED


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """SIGTERM is as Ctrl-C. What it gives makes this process deaf to both, for the last steps."""

    def deaf() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    before = [signal.signal(number, signal.default_int_handler) for number in SIGNALS]
    try:
        yield deaf
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def _run(fleet: Fleet | Processes, view: View, for_s: float | None, *, until_applied: bool) -> int:
    until = None if for_s is None else monotonic() + for_s

    def over() -> bool:
        if not view.due():
            return False
        view.show()
        return (until is not None and monotonic() >= until) or (
            until_applied and fleet.outcome() is not Outcome.PENDING
        )

    interrupted = False
    with view:
        try:
            fleet.start()
            fleet.run(over)
        except KeyboardInterrupt:
            interrupted = True
    outcome, connected, troubles = fleet.outcome(), fleet.connected, fleet.troubles()
    try:
        note(f"{connected} devices say farewell")
        view.report()
        fleet.stop()
    except KeyboardInterrupt:
        note("ended before every device had said farewell")
        return INTERRUPTED
    if not fleet.figures.connections:
        complain("no device could connect", *troubles)
        return FAILED
    if not connected:
        complain("the broker was lost: at the end no device was connected", *troubles)
        return FAILED
    if not until_applied or outcome is Outcome.APPLIED:
        return DONE
    if interrupted:
        return INTERRUPTED
    return FAILED if outcome is Outcome.ROLLED_BACK else TOO_LATE


def _assigned(option: str, text: str, known: Mapping[str, float], parse: Callable[[str], float]) -> dict[str, float]:
    """`pull=2s,stop=1s`. Raises `Misconfigured`."""
    found: dict[str, float] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in known:
            raise Misconfigured(f"{part!r}: write {option} NAME=VALUE, the name one of {', '.join(known)}")
        if name in found:
            raise Misconfigured(f"{option} says {name} twice: say it once")
        found[name] = parse(value)
    return found


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise Misconfigured(f"{text!r} is not a share: write a number from 0 to 1")
    return share


def _storm(text: str, of: int, for_s: float | None) -> Storm:
    """`500@30s`, of so many devices, in a simulation of so many seconds. Raises `Misconfigured`."""
    devices, at, when = text.partition("@")
    if not at or not devices.isdecimal():
        raise Misconfigured(f"{text!r} is not a storm: write 500@30s")
    storm = Storm(int(devices), seconds(when))
    if not 1 <= storm.devices <= of:
        raise Misconfigured(f"--storm {text}: there are {of} devices, write 1 to {of} of them")
    if storm.at_s <= 0:
        raise Misconfigured(f"--storm {text}: at the start nobody is connected yet, write a later time")
    if for_s is not None and storm.at_s >= for_s:
        raise Misconfigured(f"--storm {text}: the simulation is over by then, --for {for_s:g}s")
    return storm
