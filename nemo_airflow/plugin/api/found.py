"""Finds a job by its task instance or by its run in MLflow, and reads what Airflow and MLflow know of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from fastapi import Depends, HTTPException, Query
from sqlalchemy import select, tuple_
from sqlalchemy.orm import Session

from nemo_airflow import settings
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.plugin.api.answers import JobPlace, TrackerState
from nemo_airflow.plugin.api.rights import RightsDep
from nemo_airflow.tracking.mlflow.address import hide_login, resolve
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns
from nemo_airflow.tracking.mlflow.store import RUN_ID

RECORD, LIVE = "nemo_job", "nemo_live"
"""Keys of the XComs that a task leaves of its job: what it is, and how far it is."""


@dataclasses.dataclass(frozen=True)
class Source:
    """An MLflow that the pages may read.

    Attributes:
        tracking_uri: Its address; None for that of the connection or of the environment.
        conn_id: Its connection, or None.
    """

    tracking_uri: str | None = None
    conn_id: str | None = None

    def runs(self) -> JobRuns:
        """Returns its runs; see there for errors."""
        return JobRuns(self.tracking_uri, self.conn_id)


def default_source() -> Source:
    """Returns the MLflow whose runs are listed."""
    return Source(conn_id=settings.mlflow_connection() or None)


def source_of(record: Mapping[str, Any]) -> Source | None:
    """Returns the MLflow of a job's record; None where it has none, or one that the API server is not told of.

    A record is an XCom, which any task may write: an address in it is not followed, since logins would be sent there.
    It names one of Airflow's connections, or the address is the one that this server has anyway.
    """
    run = record.get("run")
    if not isinstance(run, Mapping):
        return None
    if conn_id := run.get("conn_id"):
        return Source(conn_id=str(conn_id))
    own = default_source()
    known = hide_login(resolve(own.tracking_uri, own.conn_id)[0])
    return own if run.get("uri") == known else None


@dataclasses.dataclass(frozen=True)
class FoundJob:
    """A job, as far as it is known.

    Attributes:
        place: Its task instance.
        record: What its task has left of it in Airflow; empty where that is gone, or of another attempt.
        live: How far it is, as its follower tells in Airflow; likewise.
        task: The task instance, or None.
        run: Its run in MLflow, or None.
        source: The MLflow that has it, or None.
        tracker: How that MLflow fares.
    """

    place: JobPlace
    record: Mapping[str, Any]
    live: Mapping[str, Any]
    task: TaskInstance | None
    run: JobRun | None
    source: Source | None
    tracker: TrackerState

    @property
    def key(self) -> str:
        """The job's key."""
        return str(self.record.get("key") or (self.run.key if self.run else ""))


def find_job(
    session: SessionDep,
    rights: RightsDep,
    dag_id: Annotated[str, Query()] = "",
    dag_run_id: Annotated[str, Query()] = "",
    task_id: Annotated[str, Query()] = "",
    map_index: Annotated[int, Query()] = -1,
    mlflow_run_id: Annotated[str, Query()] = "",
) -> FoundJob:
    """Returns the job of a request: the newest attempt of a task instance, or the one of a run in MLflow.

    Raises:
        HTTPException: 403 if the user may not see it, 404 if there is none.
    """
    if mlflow_run_id:
        return find_run(session, rights, mlflow_run_id)
    rights.need(bool(dag_id) and rights.may_read(dag_id))
    place = JobPlace(dag_id=dag_id, dag_run_id=dag_run_id, task_id=task_id, map_index=map_index)
    record = read_xcoms(session, RECORD, [place]).get(place)
    if record is None:
        raise HTTPException(404, _no_job(read_tasks(session, [place]).get(place)))
    run, source, tracker = None, source_of(record), TrackerState()
    if source is not None:
        run, tracker = _run(source, str(record["run"].get("run_id")))
        if run is not None and not rights.may_read(place_of(run).dag_id):
            # A record is an XCom: who may write one could name any run in it. A reused run may be of another DAG.
            run, tracker = None, TrackerState(uri=tracker.uri, away="its run there is of a DAG that you may not read")
    elif record.get("run"):
        uri = str(record["run"].get("uri") or "")
        tracker = TrackerState(uri=uri, away="this is not the MLflow that Airflow's API server is told of")
    return _gather(session, place, record, run, source, tracker)


FoundJobDep = Annotated[FoundJob, Depends(find_job)]


def find_run(session: Session, rights: RightsDep, run_id: str) -> FoundJob:
    """Returns the job of a run in MLflow.

    Raises:
        HTTPException: 403 if the user may not see it, 404 if there is none, 503 if MLflow does not answer.
    """
    source = default_source()
    run, tracker = _run(source, run_id) if RUN_ID.fullmatch(run_id) else (None, TrackerState())
    if tracker.away:
        raise HTTPException(503, f"MLflow does not answer: {tracker.away}")
    if run is None or not run.key:
        rights.need(rights.may_read(""))  # who may not see all jobs is not told which ones there are
        raise HTTPException(404, f"MLflow has no run {run_id}: it was deleted, or is in another MLflow")
    place = place_of(run)
    rights.need(rights.may_read(place.dag_id))
    record = read_xcoms(session, RECORD, [place]).get(place) or {}
    return _gather(session, place, record if record.get("key") == run.key else {}, run, source, tracker)


def place_of(run: JobRun) -> JobPlace:
    """Returns the task instance of a run in MLflow."""
    index = run.tags.get("airflow.map_index", "")
    return JobPlace(
        dag_id=run.dag_id,
        dag_run_id=run.tags.get("airflow.run_id", ""),
        task_id=run.task_id,
        map_index=int(index) if index.removeprefix("-").isdecimal() else -1,
    )


def read_xcoms(session: Session, key: str, places: Iterable[JobPlace]) -> dict[JobPlace, dict[str, Any]]:
    """Returns what the tasks have left under a key, by place."""
    wanted = {(place.dag_id, place.dag_run_id, place.task_id, place.map_index): place for place in places}
    columns = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
    rows = session.execute(
        select(*columns, XComModel.value).where(XComModel.key == key, tuple_(*columns).in_(list(wanted)))
    )
    found = {}
    for row in rows:
        value = XComModel.deserialize_value(row)
        if isinstance(value, dict):
            found[wanted[tuple(row[:4])]] = value
    return found


def read_tasks(session: Session, places: Iterable[JobPlace]) -> dict[JobPlace, TaskInstance]:
    """Returns the task instances by place."""
    wanted = {(place.dag_id, place.dag_run_id, place.task_id, place.map_index): place for place in places}
    columns = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    tasks = session.scalars(select(TaskInstance).where(tuple_(*columns).in_(list(wanted))))
    return {wanted[task.dag_id, task.run_id, task.task_id, task.map_index]: task for task in tasks}


def _no_job(task: TaskInstance | None) -> str:
    """Returns why a task instance has no job."""
    if task is None:
        return "There is no such task in this DAG run."
    if "nemo" not in str(task.operator or "").lower():
        return "This task has no job: those of NemoRunOperator and @task.nemo have one."
    if task.state in ("success", "failed", "upstream_failed", "skipped", "removed"):
        return "This task has submitted no job; its log tells why."
    return f"This task has not submitted its job yet: in Airflow it is {task.state or 'not scheduled'!s}."


def _gather(
    session: Session,
    place: JobPlace,
    record: Mapping[str, Any],
    run: JobRun | None,
    source: Source | None,
    tracker: TrackerState,
) -> FoundJob:
    key = record.get("key") or (run.key if run else "")
    live = read_xcoms(session, LIVE, [place]).get(place) or {}
    task = read_tasks(session, [place]).get(place) if place.dag_id else None
    return FoundJob(place, record, live if live.get("key") == key else {}, task, run, source, tracker)


def _run(source: Source, run_id: str) -> tuple[JobRun | None, TrackerState]:
    uri = ""
    try:
        runs = source.runs()
        uri = runs.uri
        return runs.get(run_id), TrackerState(uri=uri)
    except NemoAirflowError as error:
        return None, TrackerState(uri=uri, away=str(error))
