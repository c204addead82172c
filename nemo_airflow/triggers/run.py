"""Follows a job in the triggerer: its lines to the task's log, its records to the tracker. It moves no outputs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from nemo_airflow.clean import clean_value
from nemo_airflow.exceptions import NemoAirflowError, NotDefinedError
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.jobs.service import JobService
from nemo_airflow.phases import JobView
from nemo_airflow.tracking.run import ENDED_BY_USER, TrackedRun, record_end
from nemo_airflow.triggers import metrics
from nemo_airflow.triggers.alerting import Alerting, AlertSettings
from nemo_airflow.triggers.live import LiveXCom, ids_of
from nemo_airflow.triggers.task_log import TaskLog

# Seconds. Airflow looks once a second for triggers to end.
_ENDED_BY_AIRFLOW_WITHIN = 3

_NOT_BEFORE = 10.0
"""Seconds from a deferral to the event that resumes the task.

Where a trigger fires before the scheduler has noted that the task's first process ended with a deferral, the scheduler
takes the second process for the first, and fails the task (apache/airflow#67287). A busy one needs several seconds.
An event that ends the task needs no second process, and is not held.
"""


class NemoRunTrigger(BaseTrigger):
    """Fires once, when the job has ended; or has started, if it needs its package then.

    A triggerer that is killed leaves the job alone; the next one goes on in its stream where the task's log and the
    tracker have come to, and passes over the lines that the log has already.

    Args:
        executor: JSON form of the executor.
        handle: JSON form of the job's handle.
        run: JSON form of the :class:`~nemo_airflow.tracking.run.TrackedRun`, or None.
        deadline: Seconds since the epoch after which the job is cancelled, or None; handed on in the event.
        attached: Whether an earlier try of the task submitted the job; handed on in the event.
        complete: Whether the job has all it needs. If not, the trigger fires when the job has started too: a worker
            then sends the package.
        logged: How far the worker had come in the task's log, as :attr:`TaskLog.mark`.
        deferred_at: Seconds since the epoch at which the task was deferred; when the trigger was started, if None.
        may_end_task: Whether the trigger ends the task itself where the job has succeeded.
        pushes_result: Whether the job's result is the task's XCom: then a worker has to store it, if there is one.
        alerts: JSON form of the :class:`~nemo_airflow.triggers.alerting.AlertSettings`, or None.
        task: What identifies the task's XComs, as :func:`~nemo_airflow.triggers.live.ids_of` returns it; that of the
            task instance that the triggerer has, if None.
    """

    def __init__(
        self,
        executor: Mapping[str, Any],
        handle: Mapping[str, Any],
        run: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        attached: bool = False,
        complete: bool = True,
        logged: Sequence[int] = (0, 0, 0),
        deferred_at: float | None = None,
        may_end_task: bool = False,
        pushes_result: bool = False,
        alerts: Mapping[str, Any] | None = None,
        task: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.executor = executor
        self.handle = handle
        self.run_data = run
        self.deadline = deadline
        self.attached = attached
        self.complete = complete
        self.logged = logged
        self.deferred_at = deferred_at
        self.may_end_task = may_end_task
        self.pushes_result = pushes_result
        self.alerts = alerts
        self._has_outcome = False
        self.task_ids = task

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments, all plain JSON types."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "executor": dict(self.executor),
            "handle": dict(self.handle),
            "run": self.run_data,
            "deadline": self.deadline,
            "attached": self.attached,
            "complete": self.complete,
            "logged": list(self.logged),
            "deferred_at": self.deferred_at,
            "may_end_task": self.may_end_task,
            "pushes_result": self.pushes_result,
            "alerts": self.alerts,
            "task": self.task_ids,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields one event with the job's outcome, or with an error when it cannot be followed."""
        begun = time.monotonic()
        handle = JobHandle.from_json(self.handle)
        log = await TaskLog.reopen(self.task_instance, self.logged, handle)
        tracked = TrackedRun.from_json(self.run_data) if self.run_data else None
        alerting = None
        if self.alerts is not None:
            alerting = Alerting(AlertSettings(**self.alerts), handle.key, self.log.warning)
        view = JobView(handle, resumes=True)
        event: dict[str, Any] = {
            "handle": dict(self.handle),
            "attached": self.attached,
            "deadline": self.deadline,
        }
        try:
            follower = Follower(
                executor_from_json(self.executor),
                handle,
                on_line=log.write,
                warn=self.log.warning,
                inform=self.log.info,
                sink=tracked.sink(self.log.warning) if tracked else None,
                deadline=self.deadline,
                logged=log.place,
                watch=alerting.take if alerting is not None else None,
                view=view,
            )
            async with LiveXCom(view, self._find_task(), self.log.warning):
                has_started = not self.complete and await follower.wait_for_start()
                outcome = None if has_started else await follower.run()
                self._has_outcome = outcome is not None
            if outcome is None:
                event["started"] = True
            else:
                if alerting is not None:
                    await alerting.settle(ended=True)
                await log.settle(self.task_instance)
                if outcome.status.state is JobState.CANCELLED:
                    # Perhaps by the next try of a task that was cleared. Then Airflow is about to end this trigger, and
                    # where it gives its number to that try's (as on sqlite), our event would wake the wrong try.
                    await asyncio.sleep(_ENDED_BY_AIRFLOW_WITHIN)
                metrics.count_end(handle, outcome, in_triggerer=self._is_in_triggerer)
                event["outcome"] = outcome.to_json()
                if outcome.has_to_be_kept(tracked=tracked is not None):
                    # A worker keeps them: a triggerer has thousands of jobs, and no task's retries.
                    event["keep"] = {"executor": dict(self.executor), "run": self.run_data}
                elif self._ends_task(outcome):
                    yield TaskSuccessEvent()
                    return
        except NemoAirflowError as error:
            event["error"] = str(error)
            event["is_undefined"] = isinstance(error, NotDefinedError)
            event["run"] = self.run_data  # for a worker that knows whether another try follows it
            metrics.count_lost_trigger(handle, in_triggerer=self._is_in_triggerer)
        if self._is_in_triggerer:
            await asyncio.sleep(self._hold(time.monotonic() - begun))
        # What Airflow cannot send on would end the triggerer, and each that takes the trigger over.
        yield TriggerEvent(clean_value(event))  # type: ignore[no-untyped-call]  # Airflow's

    def _find_task(self) -> Mapping[str, Any] | None:
        if self.task_ids is None and self.task_instance is not None:  # deferred by an earlier version
            return ids_of(self.task_instance)
        return self.task_ids

    @property
    def _is_in_triggerer(self) -> bool:
        """Not inline, as by ``dag.test()``, which knows no races, and no events that end a task."""
        return self.trigger_id is not None

    def _ends_task(self, outcome: Outcome) -> bool:
        # An XCom that comes with such an event is stored as JSON in JSON: a task that pulls it would get a text.
        has_xcom = self.pushes_result and outcome.result is not None
        return self._is_in_triggerer and self.may_end_task and outcome.succeeded and not has_xcom

    def _hold(self, seconds: float) -> float:
        """Returns for how long to hold an event of a trigger that has run for some seconds."""
        since = time.time() - self.deferred_at if self.deferred_at is not None else 0.0
        return max(_NOT_BEFORE - max(since, seconds), 0.0)

    async def on_kill(self) -> None:
        """Cancels the job, and ends its run: a user marked the task failed or succeeded, or cleared it."""
        handle = JobHandle.from_json(self.handle)
        self.log.info("The task was ended by a user: cancelling job %s", handle.key)
        await JobService.shared(executor_from_json(self.executor)).driver.cancel([handle])
        if self.run_data is not None and not self._has_outcome:
            await record_end(TrackedRun.from_json(self.run_data), ENDED_BY_USER, self.log.warning)
