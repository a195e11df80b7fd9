"""`make cluster`: a fleet on a RabbitMQ cluster of three nodes that loses one of them and gets it back.

A target is published, and a node is killed in the middle of its roll-out: first the one that the cloud is connected to,
then another. A second target is published while the node is away, a third when it is back. At the end devices come that
the cluster has no session of. Then it is judged: everybody runs the newest target, which the cloud proves by digest; no
device is behind what the cloud ever heard it accept; nobody is missing.
"""

import argparse
import json
import logging
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from cloud_sim.clock import monotonic
from cloud_sim.cloud import Cloud
from cloud_sim.connection import Broker
from cloud_sim.roster import ONLINE
from cloud_sim.simulation.fleet import Fleet
from cloud_sim.visitor import Visitor
from device_agent.model.target import FLEET, Version
from tests.arguments import writable
from tests.rabbitmq_cluster import CLASSIC, MQTT_PORT, NODES, QUORUM, Cluster, cluster

NAME = "cluster"
PATIENCE_S = 600.0
PACE = 5.0
"""Connections made in a second: each costs a new cluster 0.2 s of CPU, for a quorum queue and its subscriptions."""
TURN_S, LOOK_S = 0.05, 0.5
REST_S = 3.0
LATE = 10
"""One in so many devices comes at the end only."""
KILLED_AT = 4
"""When one in so many has accepted the target, the node is killed."""
NONE = "none"
"""Sessions that end with their connection; else what kind of queue keeps them."""

Times = tuple[float, float]
"""In seconds since it was published: of half of the devices, and of the last."""


@dataclass(slots=True)
class Step:
    what: str
    accepted: Times | None = None
    applied: Times | None = None
    """The broker has the acks."""
    whole_s: float | None = None
    """Until everybody was connected (again), or the node was back."""


@dataclass(slots=True)
class Report:
    sessions: str
    devices: int
    node_mib: Times = (0.0, 0.0)
    """A node's memory, the mean of three: without devices, and with them at rest."""
    steps: list[Step] = field(default_factory=list)
    cut: int = 0
    """Connections that ended or were not made."""
    acks: int = 0
    gaps: int = 0
    """Acks and events that the cloud did not hear, because it was not connected."""
    told: list[str] = field(default_factory=list)
    """What the cloud said."""
    broken: list[str] = field(default_factory=list)


class Story:
    """One run. But for what waits for containers, everything is done in the thread that carries the fleet."""

    def __init__(
        self, nodes: Cluster, cloud: Cloud, report: Report, shown: Callable[[str, int, int, int], None]
    ) -> None:
        broker = Broker(nodes.address, MQTT_PORT)
        late = max(1, report.devices // LATE)
        self._nodes, self._cloud, self._report, self._shown = nodes, cloud, report, shown
        self._late = Fleet(broker, NAME, late, prefix="late-", pace=PACE)
        self._fleets = [Fleet(broker, NAME, report.devices - late, prefix="sim-", pace=PACE)]
        if report.sessions == NONE:
            for fleet in (*self._fleets, self._late):
                fleet.network.connect_properties.SessionExpiryInterval = 0
        self._revision = 0
        self._missing_at = self._show_at = self._prove_at = 0.0
        """When somebody was missing, the last time; when it is shown, and asked of the cloud, how far they are."""
        self._pool = ThreadPoolExecutor(1)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for fleet in {*self._fleets, self._late}:
            fleet.close()

    # What happens.

    def tell(self) -> None:
        empty = self._memory()
        self._come("the devices come", self._fleets[0])
        self._publish("a target")
        self._rest()
        self._report.node_mib = (empty, self._memory())
        clouds = next(node for node in NODES if self._retains(node))
        other = next(node for node in NODES if node != clouds)
        for node, whose in ((clouds, "the cloud's node"), (other, "another node")):
            self._publish(f"a target, and {whose} is killed meanwhile", node)
            self._publish("a target while it is away")
            self._return(node)
            self._publish("a target when it is back")
        self._fleets.append(self._late)
        step = self._come("devices come that have no session", self._late)
        began = monotonic()
        self._taken()
        took = monotonic() - began
        self._proven()
        step.accepted, step.applied = (took, took), (monotonic() - began,) * 2
        self._rest()
        self._judge()

    def _come(self, what: str, fleet: Fleet) -> Step:
        step, began = self._step(what), monotonic()
        fleet.start()
        self._until("everybody is connected", lambda: self._connected == self._devices)
        step.whole_s = monotonic() - began
        return step

    def _publish(self, what: str, victim: str | None = None) -> None:
        step = self._step(what)
        self._revision += 1
        began, dropped = monotonic(), self._dropped
        name = (FLEET, Version(1, self._revision))
        figures = self._fleets[0].figures
        figures.published(*name, began)
        api = {"image": f"registry.example/api:{self._revision}", "environment": {"REVISION": str(self._revision)}}
        app = {"services": {"api": api}, "x-release": {"healthy_for": "0s"}}
        published = self._pool.submit(self._cloud.publish, {"web": app})
        if victim:
            self._until("some have accepted it", lambda: self._holders >= self._devices / KILLED_AT)
            killed = monotonic()
            self._nodes.kill(victim)
            self._until("connections are lost", lambda: self._dropped > dropped)
            self._until("everybody is connected", lambda: self._connected == self._devices)
            step.whole_s = self._missing_at - killed
        self._until("it is published", published.done)
        published.result()
        self._taken()
        self._proven()
        times = figures.answers[name].times()
        step.accepted, step.applied = ((times[each].median, times[each].last) for each in ("accepted", "applied"))

    def _return(self, node: str) -> None:
        step, began = self._step("the node comes back"), monotonic()
        back = self._pool.submit(self._nodes.start, node)
        self._until("the node is back", back.done)
        back.result()
        step.whole_s = monotonic() - began

    def _taken(self) -> None:
        self._until("everybody has taken it", lambda: self._holders == self._devices)

    def _proven(self) -> None:
        self._until("everybody runs it, as the cloud can prove", self._all_proven)

    def _rest(self) -> None:
        over = monotonic() + REST_S
        self._until("a moment of rest", lambda: monotonic() > over)

    # Looking.

    def _step(self, what: str) -> Step:
        step = Step(what)
        self._report.steps.append(step)
        return step

    def _until(self, what: str, check: Callable[[], bool]) -> None:
        over = monotonic() + PATIENCE_S
        while not check():
            for fleet in self._fleets:
                fleet.network.turn(TURN_S / len(self._fleets))
            now = monotonic()
            if self._connected < self._devices:
                self._missing_at = now
            if now > over:
                raise TimeoutError(f"not in {PATIENCE_S:g} s: {what}; {self._why()}")
            if now > self._show_at:
                self._show_at = now + LOOK_S
                self._shown(f"{self._report.steps[-1].what}: {what}", self._connected, self._holders, self._devices)

    def _why(self) -> str:
        troubles = [trouble for fleet in self._fleets for trouble in fleet.troubles()]
        short = [f"{device}: {said}" for device, said in self._cloud.shortfalls().items() if said]
        return (
            f"{self._connected} of {self._devices} connected, {self._holders} have it; "
            f"{troubles}; the cloud ({self._cloud.down or 'connected'}) misses {len(short)}: {short[:3]}"
        )

    @property
    def _devices(self) -> int:
        return sum(len(fleet.devices) for fleet in self._fleets)

    @property
    def _connected(self) -> int:
        return sum(fleet.connected for fleet in self._fleets)

    @property
    def _dropped(self) -> int:
        return sum(fleet.figures.dropped for fleet in self._fleets)

    def _held(self) -> Iterator[tuple[str, int]]:
        """What each device has accepted."""
        for device in (device for fleet in self._fleets for device in fleet.devices):
            targets = device.agent.rollout.targets
            yield device.id, targets[FLEET].target.version.revision if FLEET in targets else 0

    @property
    def _holders(self) -> int:
        return sum(revision == self._revision for _, revision in self._held())

    def _all_proven(self) -> bool:
        if monotonic() < self._prove_at:
            return False
        self._prove_at = monotonic() + LOOK_S
        said = self._cloud.shortfalls()
        return len(said) == self._devices and not any(said.values())

    def _retains(self, node: str) -> bool:
        """Whether the fleet's target was published through it."""
        topic = f"fleet/v1/{NAME}/down/target"
        with Visitor(Broker(self._nodes.host(node), MQTT_PORT), "asks") as visitor:
            return visitor.subscribe(topic) and visitor.hears(topic, timeout_s=2)

    def _memory(self) -> float:
        return statistics.mean(map(self._nodes.memory_mib, NODES))

    def _judge(self) -> None:
        report, held = self._report, dict(self._held())
        broken = [
            f"left behind: {device} has {revision}" for device, revision in held.items() if revision != self._revision
        ]
        known = {device.id: self._cloud.presence(device) for device in self._cloud.devices()}
        broken += [
            f"missing: {device} is {known.get(device, 'unknown')}" for device in held if known.get(device) != ONLINE
        ]
        heard: dict[str, list[tuple[int, int]]] = {}
        for entry in self._cloud.acks():
            if entry.body["verdict"] == "accepted":
                heard.setdefault(entry.device, []).append((entry.seq, entry.body["revision"]))
        for device, accepted in heard.items():
            revisions = [revision for _, revision in sorted(accepted)]
            if revisions != sorted(set(revisions)) or revisions[-1] > held[device]:
                broken.append(f"went back: {device} accepted {revisions} and has {held[device]}")
        report.broken += broken
        report.acks = len(self._cloud.acks())
        report.gaps = sum(last - first + 1 for device in held for first, last in self._cloud.gaps(device))
        report.cut = self._dropped


def run(sessions: str, devices: int, console: Console) -> Report:
    report = Report(sessions, devices)
    with ExitStack() as stack:
        shown = stack.enter_context(_bars(console, sessions))
        shown("three nodes and a balancer are started", 0, 0, devices)
        nodes = stack.enter_context(cluster(CLASSIC if sessions == NONE else sessions))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        url, database = f"mqtt://{nodes.address}:{MQTT_PORT}", Path(folder, "cloud.sqlite")
        cloud = stack.enter_context(Cloud(url, NAME, database=database, connect_timeout_s=60, tell=report.told.append))
        story = Story(nodes, cloud, report, shown)
        stack.callback(story.close)
        try:
            story.tell()
        except TimeoutError as error:
            report.broken.append(str(error))
    return report


@contextmanager
def _bars(console: Console, sessions: str) -> Iterator[Callable[[str, int, int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        connected, holding = progress.add_task("connected"), progress.add_task("")

        def shown(what: str, online: int, holders: int, devices: int) -> None:
            progress.update(connected, completed=online, total=devices)
            line = f"{sessions}: {what}"
            if not console.is_terminal and line != progress.tasks[holding].description:
                console.print(f"{line} ({online} of {devices} connected)")
            progress.update(holding, completed=holders, total=devices, description=line)

        yield shown


def table(report: Report) -> Table:
    shown = Table(
        box=None, pad_edge=False, title=f"sessions: {report.sessions}, {report.devices} devices", title_justify="left"
    )
    for column in ("WHAT", "ALL THERE", "ACCEPTED: HALF", "LAST", "APPLIED: HALF", "LAST"):
        shown.add_column(column, justify="left" if column == "WHAT" else "right")
    for step in report.steps:
        times = (step.whole_s, *(step.accepted or (None, None)), *(step.applied or (None, None)))
        shown.add_row(step.what, *("" if each is None else f"{each:.1f} s" for each in times))
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("--devices", type=int, default=1000, help="how many (default 1000); a tenth comes at the end")
    parser.add_argument(
        "--sessions",
        choices=(QUORUM, CLASSIC, NONE),
        nargs="+",
        default=[QUORUM],
        help="which queues keep them (default quorum); none: they end with the connection. One run for each",
    )
    parser.add_argument("--json", type=writable, help="also write what was found to this file")
    options = parser.parse_args()
    if options.devices < 2:
        parser.error(f"--devices {options.devices}: at least 2, some at first and one that comes at the end")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console = Console(width=None if sys.stdout.isatty() else 160)
    reports = []
    for sessions in options.sessions:
        report = run(sessions, options.devices, Console(stderr=True))
        reports.append(report)
        console.print(table(report))
        console.print(
            f"a node's memory {report.node_mib[0]:.0f} MiB, with devices {report.node_mib[1]:.0f} MiB; "
            f"{report.cut:,} connections ended or not made; the cloud heard {report.acks:,} acks, {report.gaps:,} not"
        )
        for said in report.told:
            console.print(f"  the cloud: {said}", style="dim")
        console.print(*(f"BROKEN  {each}" for each in report.broken or ()), sep="\n")
        if not report.broken:
            console.print("nothing acked was lost, nobody is left behind\n", style="bold")
    if options.json:
        options.json.write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n", encoding="utf-8")
    return 1 if any(report.broken for report in reports) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("ended; the containers and their network are removed")
