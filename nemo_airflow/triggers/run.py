"""Follows a job in the triggerer: its lines to the task's log, its records to the tracker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from nemo_airflow.clean import clean_value
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.jobs.service import JobService
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.triggers.task_log import TaskLog

# Seconds. Airflow looks once a second for triggers to end.
_ENDED_BY_AIRFLOW_WITHIN = 3

_NOT_BEFORE = 10.0
"""Seconds from the start of a trigger to its event.

Where a trigger fires before the scheduler has noted that the task's first process ended with a deferral, the scheduler
takes the second process for the first, and fails the task (apache/airflow#67287). A busy one needs several seconds.
"""


class NemoRunTrigger(BaseTrigger):
    """Fires once, when the job has ended.

    A triggerer that is killed leaves the job alone; the next one follows it anew from the
    beginning of its stream, and passes over the lines that the task's log has already.

    Args:
        executor: JSON form of the executor.
        handle: JSON form of the job's handle.
        run: JSON form of the :class:`~nemo_airflow.tracking.run.TrackedRun`, or None.
        deadline: Seconds since the epoch after which the job is cancelled, or None.
        attached: Whether an earlier try of the task submitted the job; handed on in the event.
    """

    def __init__(
        self,
        executor: Mapping[str, Any],
        handle: Mapping[str, Any],
        run: Mapping[str, Any] | None = None,
        deadline: float | None = None,
        attached: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.executor = executor
        self.handle = handle
        self.run_data = run
        self.deadline = deadline
        self.attached = attached

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments, all plain JSON types."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "executor": dict(self.executor),
            "handle": dict(self.handle),
            "run": self.run_data,
            "deadline": self.deadline,
            "attached": self.attached,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields one event with the job's outcome, or with an error when it cannot be followed."""
        begun = time.monotonic()
        log = await TaskLog.reopen(self.task_instance)
        tracked = TrackedRun.from_json(self.run_data) if self.run_data else None
        event: dict[str, Any] = {"handle": dict(self.handle), "attached": self.attached}
        try:
            follower = Follower(
                executor_from_json(self.executor),
                JobHandle.from_json(self.handle),
                on_line=log.write,
                warn=self.log.warning,
                inform=self.log.info,
                sink=tracked.sink(self.log.warning) if tracked else None,
                deadline=self.deadline,
            )
            outcome = await follower.run()
            if outcome.status.state is JobState.CANCELLED:
                # Perhaps by the next try of a task that was cleared. Then Airflow is about to end this trigger, and
                # where it gives its number to that try's (as on sqlite), our event would wake the wrong try.
                await asyncio.sleep(_ENDED_BY_AIRFLOW_WITHIN)
            event["outcome"] = outcome.to_json()
        except NemoAirflowError as error:
            event["error"] = str(error)
        if self.trigger_id is not None:  # in a triggerer, and not inline, as by dag.test()
            await asyncio.sleep(max(begun + _NOT_BEFORE - time.monotonic(), 0))
        # What Airflow cannot send on would end the triggerer, and each that takes the trigger over.
        yield TriggerEvent(clean_value(event))  # type: ignore[no-untyped-call]  # Airflow's

    async def on_kill(self) -> None:
        """Cancels the job: a user marked the task failed or succeeded, or cleared it."""
        handle = JobHandle.from_json(self.handle)
        self.log.info("The task was ended by a user: cancelling job %s", handle.key)
        await JobService.shared(executor_from_json(self.executor)).driver.cancel([handle])
