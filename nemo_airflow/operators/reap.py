"""The operator of a maintenance DAG: ends the jobs that no task waits for any more."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.api.client import ServerResponseError
from airflow.sdk.definitions.context import Context
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import DagRunResult, GetDagRun

from nemo_airflow import blocking
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.installation import run_labels
from nemo_airflow.reaping import MIN_AGE, Orphan, end_orphans, orphans_among, record_ends, survey


class NemoReapOperator(BaseOperator):
    """Finds the jobs of back-ends whose tasks have ended or were cleared, and cancels them.

    A hard kill at the wrong instant can leave such a job, and nothing else of this project does. Jobs of
    another Airflow, and of tasks that may still be retried, are not touched.

    Args:
        executors: The back-ends: executors, or their JSON form with a ``kind``; or a template of such a
            list, in a DAG with ``render_template_as_native_obj``.
        cancel: Whether to cancel them, and not only to say which they are.
        min_age: Seconds since its submission from which a job counts.
    """

    template_fields: Sequence[str] = ("executors", "cancel", "min_age")

    def __init__(
        self, *, executors: Sequence[Any] | str, cancel: bool = True, min_age: float = MIN_AGE, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.executors = executors if isinstance(executors, str) else [_as_json(executor) for executor in executors]
        self.cancel = cancel
        self.min_age = min_age

    def execute(self, context: Context) -> list[str]:
        """Returns what was found, a line for each job."""
        found: list[str] = []
        if isinstance(self.executors, str):
            raise ConfigError(
                f"executors is the text {self.executors!r}, not a list: give the DAG render_template_as_native_obj=True"
            )
        for data in map(_as_json, self.executors):
            executor = executor_from_json(data)
            jobs = blocking.run(survey(executor, float(self.min_age)))
            orphans = orphans_among(jobs, _States())
            self.log.info("%s: %d jobs run, %d of them are orphans", data["kind"], len(jobs), len(orphans))
            self._end(executor, orphans)
            found += map(str, orphans)
        return found

    def _end(self, executor: Executor, orphans: list[Orphan]) -> None:
        for orphan in orphans:
            self.log.warning("%s %s", "Cancelling" if self.cancel else "Found", orphan)
        if orphans and self.cancel:
            blocking.run(end_orphans(executor, orphans))
            if trouble := record_ends(orphans):
                self.log.warning("%s", trouble)


class _States:
    """States of tasks, as Airflow tells them to a task that runs."""

    def __call__(self, labels: Mapping[str, str]) -> str | None:
        run_after = _run_after(labels["dag_id"], labels["run_id"])
        if run_after is None or not run_labels(run_after).items() <= labels.items():
            return None
        states = self._of_run(labels["dag_id"], labels["run_id"])
        name = labels["task_id"]
        if int(labels.get("map_index", -1)) >= 0:
            name = f"{name}_{labels['map_index']}"
        return str(states[name] or "") if name in states else None

    @functools.cache  # noqa: B019 - lives no longer than one execution
    def _of_run(self, dag_id: str, run_id: str) -> Mapping[str, Any]:
        return dict(task_runner.RuntimeTaskInstance.get_task_states(dag_id, run_ids=[run_id]).get(run_id, {}))


def _run_after(dag_id: str, run_id: str) -> str | None:
    try:
        run = task_runner.SUPERVISOR_COMMS.send(GetDagRun(dag_id=dag_id, run_id=run_id))
    except (AirflowRuntimeError, ServerResponseError):  # no such run: it is another Airflow's, or was deleted
        return None
    return str(run.run_after) if isinstance(run, DagRunResult) else None


def _as_json(executor: Any) -> Mapping[str, Any]:
    if isinstance(executor, Executor):
        return executor.to_json()
    if isinstance(executor, Mapping) and "kind" in executor:
        return dict(executor)
    raise ConfigError(f"executors has {executor!r}, which is neither an executor nor its JSON form with a 'kind'")
