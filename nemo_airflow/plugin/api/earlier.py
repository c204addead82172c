"""The runs that a job is compared with: the one before it of the same task, and the last of these that succeeded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, TypeVar

from fastapi import HTTPException

from nemo_airflow.exceptions import NemoAirflowError, TrackingError
from nemo_airflow.job import JobState
from nemo_airflow.plugin.api.answers import Answer
from nemo_airflow.plugin.api.found import FoundJob, Source
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.queries import RunQuery
from nemo_airflow.tracking.mlflow.store import NOT_FOUND

Against = Literal["", "last", "good"]
"""Which earlier run: none, the last one, or the last one that succeeded."""

_T = TypeVar("_T")


class EarlierRun(Answer):
    """The run that a job is compared with.

    Attributes:
        mlflow_run_id: Its id.
        key: Its job's key.
        dag_run_id: The DAG run; empty for a job of no task.
        state: How it ended.
        started: When it began, in seconds since the epoch.
    """

    mlflow_run_id: str
    key: str
    dag_run_id: str = ""
    state: str = ""
    started: float = 0.0


def earlier_run(found: FoundJob, against: Against) -> JobRun | None:
    """Returns the run that a job is to be compared with; None where there is none, or none is wanted.

    Raises:
        TrackingError: MLflow does not answer.
    """
    if found.run is None or found.source is None or not against:
        return None
    run = found.run
    query = RunQuery(
        dag=run.dag_id,
        task=run.task_id,
        name="" if run.dag_id else run.name,
        state=str(JobState.SUCCEEDED) if against == "good" else "",
        until=run.began,
    )
    if index := run.tags.get("airflow.map_index", ""):
        query = dataclasses.replace(query, tags={"airflow.map_index": index})
    runs, _ = found.source.runs().search(query, 1)
    return runs[0] if runs else None


def describe(run: JobRun | None) -> EarlierRun | None:
    """Returns an earlier run for an answer."""
    if run is None:
        return None
    return EarlierRun(
        mlflow_run_id=run.run_id,
        key=run.key,
        dag_run_id=run.tags.get("airflow.run_id", ""),
        state=run.state,
        started=run.began,
    )


def need_run(found: FoundJob) -> tuple[JobRun, Source]:
    """Returns the run of a job, and where it is.

    Raises:
        HTTPException: 404 if it has none, 503 if MLflow does not answer.
    """
    if found.tracker.away:
        raise HTTPException(503, f"MLflow does not answer: {found.tracker.away}")
    if found.run is None or found.source is None:
        raise HTTPException(404, "this job has no run in MLflow: it was not recorded there, or was deleted")
    return found.run, found.source


def ask(call: Callable[[], _T]) -> _T:
    """Returns what a call of MLflow or of the store gives.

    Raises:
        HTTPException: 503 if it does not answer, 404 if it does not have that, 502 if it refuses, 422 for a request
            that cannot be met.
    """
    try:
        return call()
    except TrackingError as error:
        status = 503 if error.transient else 404 if error.code in ("", NOT_FOUND) else 502
        raise HTTPException(status, str(error)) from error
    except NemoAirflowError as error:
        raise HTTPException(422, str(error)) from error
