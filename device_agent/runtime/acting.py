"""Carrying plans out: each step on a worker as soon as it can go, one run for each app."""

import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from device_agent.model.errors import EngineAway, EngineError, Kind
from device_agent.model.observed import EngineEvent
from device_agent.model.steps import Plan, Step, Stop
from device_agent.ports import Engine
from device_agent.runtime.execute import execute, lane
from device_agent.runtime.inbox import Put, StepEnded
from device_agent.runtime.retries import Retries
from device_agent.runtime.run import Run
from device_agent.runtime.workers import CALL, Workers

_SURPRISES = frozenset(("die", "destroy", "oom", "kill", "stop", "pause", "unpause", "rename", "health_status"))

log = structlog.get_logger()


@dataclass(slots=True)
class Acting:
    engine: Engine
    workers: Workers
    put: Put
    stopping: threading.Event
    retries: Retries
    ask_locks: Callable[[str], None]
    """Find out whether what an app is about to stop may be stopped: `locks_read` is called with the answer."""
    over: Callable[[str], None]
    """Nothing more of an app's plan can be done."""
    runs: dict[str, Run] = field(default_factory=dict)

    def begin(self, plan: Plan, asked: Collection[str], going: frozenset[str]) -> None:
        """Everything that can be done now. `asked`: containers to be asked for their update locks before a stop.

        `going`: those that are on their way out already.
        """
        guarded = (step.id for step in plan.steps if isinstance(step.action, Stop) and step.action.id in asked)
        run = Run(plan, guarded=frozenset(guarded), going=going)
        if not run.over:
            self.runs[plan.app] = run
            self._go_on(plan.app, run)

    def _go_on(self, app: str, run: Run) -> None:
        """Everything of a run that can go now; when nothing more can, it is over."""
        for step in run.ready():
            self._dispatch(app, run, step)
        if run.must_ask():
            run.asking = True
            self.ask_locks(app)
        if run.over:
            del self.runs[app]
            self.over(app)

    def locks_read(self, app: str, *, free: bool) -> None:
        """Whether what a run waits to stop may be stopped. If not, nothing more of it is."""
        run = self.runs.get(app)
        if run is None:
            return
        run.asking = False
        if free:
            run.guarded = frozenset()
        else:
            run.draining = True
        self._go_on(app, run)

    def _dispatch(self, app: str, run: Run, step: Step) -> None:
        run.flying[step.id] = step
        log.info("step", app=app, step=step.id, cause=step.cause)

        def job() -> None:
            try:
                execute(step.action, self.engine, self.stopping)
            except EngineAway:
                self.put(StepEnded(app, step, away=True))
            except EngineError as error:
                self.put(StepEnded(app, step, error))
            else:
                self.put(StepEnded(app, step))

        self.workers.submit(lane(step.action), job)

    def step_ended(self, event: StepEnded) -> None:
        """Go on with the run, or end it."""
        run, step = self.runs[event.app], event.step
        del run.flying[step.id]
        if event.away:
            run.failed.add(step.id)
            run.draining = True
        elif event.error:
            run.failed.add(step.id)
            self.retries.failed(event.app, step.subject, step.spec, event.error)
        else:
            run.done.add(step.id)
            if step.again:
                ended = EngineError("exited", step.cause, Kind.OUTSIDE)
                self.retries.failed(event.app, step.subject, step.spec, ended)
        self._go_on(event.app, run)

    def surprised(self, event: EngineEvent) -> None:
        """Something happened to a container of an app whose plan is under way: it may be of no use now."""
        run = self.runs.get(event.app or "")
        surprise = event.kind == "container" and event.action.partition(":")[0] in _SURPRISES
        if run and surprise and not run.touches(event.id):
            run.draining = True

    # Ending.

    def overtake(self, apps: Collection[str]) -> None:
        """Their plans are of no use any more: what is in the middle of a replacement is finished, no more."""
        for app in self.runs.keys() & apps:
            self.runs[app].draining = True

    def hurry(self) -> None:
        """There is no time left for a stop in the middle to end by itself: it ends now, for its replacement to run."""
        for run in self.runs.values():
            awaited = {id_ for step in run.plan.steps if step.commits for id_ in step.after}
            for step in run.flying.values():
                # One that is only to go has all of its grace: the engine sees to it without us.
                if isinstance(step.action, Stop) and step.id in awaited:
                    self.workers.submit(CALL, partial(self._kill, step.action.id))

    def _kill(self, container_id: str) -> None:
        # What becomes of it is told by the stop that is under way.
        with suppress(EngineAway, EngineError):
            self.engine.stop(container_id, 0.0)

    def being_stopped(self, app: str) -> frozenset[str]:
        """Ids of the containers of an app that are being stopped now."""
        flying = self.runs[app].flying.values() if app in self.runs else ()
        return frozenset(step.action.id for step in flying if isinstance(step.action, Stop))

    @property
    def busy(self) -> bool:
        return any(run.flying for run in self.runs.values())
