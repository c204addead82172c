"""The jobs of a DAG run: as a graph, what they have used, why some have failed, and the models that came of them."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from fastapi import APIRouter, Depends, HTTPException
from sqlalchemy import select
from sqlalchemy.orm import Session

from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.executors.machines import Machines
from nemo_airflow.job import JobState
from nemo_airflow.plugin.api.answers import Answer, JobPlace, TrackerState
from nemo_airflow.plugin.api.found import LIVE, RECORD, Source, default_source, place_of, source_of
from nemo_airflow.plugin.api.phases import state_of
from nemo_airflow.plugin.api.rights import RightsDep
from nemo_airflow.plugin.api.task_graph import graph_of
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.usage import machines_of_run, seconds_of_run, seconds_running

router = APIRouter(tags=["DAG run"])

_MOST_JOBS = 2000
"""Jobs of which the page tells; of a DAG run with more it says how many are left out."""

_STATES = {
    "success": "succeeded", "failed": "failed", "running": "running", "deferred": "running", "queued": "pending",
    "scheduled": "pending", "restarting": "pending", "up_for_retry": "pending", "up_for_reschedule": "pending",
    "removed": "cancelled", "skipped": "skipped", "upstream_failed": "upstream_failed",
}  # fmt: skip
"""What the state of a task says of its job, where nothing else does; of others it is ``none`` yet."""

_Places = tuple[str, int]
"""A task and its number where it is mapped, else -1."""


class DagRunJob(Answer):
    """A job of a DAG run, or a task that has none yet.

    Attributes:
        place: Its task instance.
        key: The job's key; empty for a task that has none yet.
        mlflow_run_id: Its run in MLflow, or empty.
        state: How it fares: a state of jobs, or ``none``, ``skipped`` or ``upstream_failed``.
        task_state: The state of its task instance in Airflow; empty where that has none.
        why: Why it waits, or why it failed, in one line.
        failure: The kind of its failure, or empty.
        back_end: The kind of its executor.
        cluster: Which back-end of this kind.
        job_id: Its id there.
        started: When it was submitted, in seconds since the epoch; 0 if it was not.
        seconds: How long its jobs have had machines, all attempts together.
        nodes: Its machines.
        gpus: The GPUs of all of them.
        node_hours: What it has used, all attempts together.
        gpu_hours: Likewise.
        attempts: How many jobs this task instance has had, with runs in MLflow.
        is_reused: Whether the task has taken over what an earlier run came to, and used nothing.
    """

    place: JobPlace
    key: str = ""
    mlflow_run_id: str = ""
    state: str
    task_state: str = ""
    why: str = ""
    failure: str = ""
    back_end: str = ""
    cluster: str = ""
    job_id: str = ""
    started: float = 0.0
    seconds: float = 0.0
    nodes: int = 0
    gpus: int = 0
    node_hours: float = 0.0
    gpu_hours: float = 0.0
    attempts: int = 0
    is_reused: bool = False


class GraphTask(Answer):
    """A task in the graph.

    Attributes:
        task_id: Its id.
        is_job: Whether it runs jobs; others only connect those that do.
        is_mapped: Whether it is one of several alike.
        downstream: The tasks of the graph that come right after it.
        states: How many of its jobs are in each state; of a task without jobs how many of its instances.
    """

    task_id: str
    is_job: bool
    is_mapped: bool
    downstream: list[str]
    states: dict[str, int]


class DagRunJobs(Answer):
    """The jobs of a DAG run.

    Attributes:
        tasks: The graph.
        jobs: All jobs, in the order of the graph.
        left_out: How many jobs are left out, since there are too many.
        node_hours: What all of them have used.
        gpu_hours: Likewise.
        is_over: Whether the DAG run has ended.
        tracker: The MLflow that they are from.
    """

    tasks: list[GraphTask]
    jobs: list[DagRunJob]
    left_out: int = 0
    node_hours: float = 0.0
    gpu_hours: float = 0.0
    is_over: bool
    tracker: TrackerState


@dataclasses.dataclass(frozen=True)
class JobsOfRun:
    """What Airflow and MLflow know of the jobs of a DAG run.

    Attributes:
        dag_run: The DAG run.
        records: What the tasks have left of their jobs.
        lives: How far those are.
        tasks: State, begin and end of the task instances.
        runs: The runs in MLflow, the newest first.
        sources: The MLflow of each run, by its id.
        tracker: How MLflow fares.
    """

    dag_run: DagRun
    records: Mapping[_Places, Mapping[str, Any]]
    lives: Mapping[_Places, Mapping[str, Any]]
    tasks: Mapping[_Places, Any]
    runs: Mapping[_Places, Sequence[JobRun]]
    sources: Mapping[str, Source]
    tracker: TrackerState


def find_jobs(session: SessionDep, rights: RightsDep, dag_id: str, dag_run_id: str) -> JobsOfRun:
    """Returns the jobs of the DAG run of a request.

    Raises:
        HTTPException: 403 if the user may not see them, 404 if there is no such DAG run.
    """
    rights.need(bool(dag_id) and rights.may_read(dag_id))
    dag_run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == dag_run_id))
    if dag_run is None:
        raise HTTPException(404, f"DAG {dag_id} has no run {dag_run_id}")
    records = _xcoms(session, dag_run, RECORD)
    columns = (TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state)
    times = (TaskInstance.start_date, TaskInstance.end_date)
    rows = session.execute(
        select(*columns, *times).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == dag_run_id)
    )
    tasks = {(row.task_id, row.map_index): row for row in rows}
    runs, sources, tracker = _runs(dag_run, records.values())
    return JobsOfRun(dag_run, records, _xcoms(session, dag_run, LIVE), tasks, runs, sources, tracker)


FoundJobsDep = Annotated[JobsOfRun, Depends(find_jobs)]


@router.get("/dag-run")
def show_dag_run(session: SessionDep, found: FoundJobsDep) -> DagRunJobs:
    """Returns the jobs of a DAG run."""
    graph = graph_of(session, found.dag_run)
    places = _places_by_task(found)
    with_jobs = {task for task, _ in (*found.records, *found.runs)}
    drawn = graph.between(with_jobs | (graph.jobs & {*graph.downstream}))
    now = time.time()
    jobs: list[DagRunJob] = []
    tasks = []
    for task_id, downstream in drawn.items():
        is_job = task_id in with_jobs or task_id in graph.jobs
        indexes = places.get(task_id) or [-1]
        if is_job:
            own = [_job(found, (task_id, index), now) for index in indexes]
            jobs += own
            states = Counter(job.state for job in own)
        else:
            states = Counter(_state_of_task(found.tasks.get((task_id, index))) for index in indexes)
        is_mapped = task_id in graph.mapped or len(indexes) > 1 or indexes[0] >= 0
        tasks.append(
            GraphTask(
                task_id=task_id, is_job=is_job, is_mapped=is_mapped, downstream=list(downstream), states=dict(states)
            )
        )
    return DagRunJobs(
        tasks=tasks,
        jobs=jobs[:_MOST_JOBS],
        left_out=max(0, len(jobs) - _MOST_JOBS),
        node_hours=math.fsum(job.node_hours for job in jobs),
        gpu_hours=math.fsum(job.gpu_hours for job in jobs),
        is_over=str(found.dag_run.state) in ("success", "failed"),
        tracker=found.tracker,
    )


def _places_by_task(found: JobsOfRun) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for task_id, index in sorted({*found.tasks, *found.records, *found.runs}):
        places.setdefault(task_id, []).append(index)
    # The instance of a task that was not expanded yet stays beside those that were.
    return {task: [each for each in own if each >= 0] or own for task, own in places.items()}


def _xcoms(session: Session, dag_run: DagRun, key: str) -> dict[_Places, dict[str, Any]]:
    found = {}
    rows = session.execute(
        select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
            XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == key
        )
    )
    for row in rows:
        value = XComModel.deserialize_value(row)
        if isinstance(value, dict):
            found[row.task_id, row.map_index] = value
    return found


def _runs(
    dag_run: DagRun, records: Iterable[Mapping[str, Any]]
) -> tuple[dict[_Places, list[JobRun]], dict[str, Source], TrackerState]:
    """Returns the runs in each MLflow that a record names, and in the one whose runs are listed."""
    found: dict[_Places, list[JobRun]] = {}
    origins: dict[str, Source] = {}
    tracker = TrackerState()
    for source in dict.fromkeys((default_source(), *filter(None, map(source_of, records)))):
        uri = ""
        try:
            runs = source.runs()
            uri = runs.uri
            tracker = TrackerState(uri=tracker.uri or uri, away=tracker.away)
            for run in runs.of_dag_run(dag_run.dag_id, dag_run.run_id):
                if run.run_id not in origins:
                    place = place_of(run)
                    found.setdefault((place.task_id, place.map_index), []).append(run)
                    origins[run.run_id] = source
        except NemoAirflowError as error:
            tracker = TrackerState(uri=uri or tracker.uri, away=str(error))
    return found, origins, tracker


def _job(found: JobsOfRun, at: _Places, now: float) -> DagRunJob:
    """Returns the newest job of a task instance, with what all its jobs have used."""
    record, task = found.records.get(at) or {}, found.tasks.get(at)
    runs = found.runs.get(at) or ()
    key = str(record.get("key") or (runs[0].key if runs else ""))
    run = next((each for each in runs if each.key == key), None)
    live = found.lives.get(at) or {}
    live = live if key and live.get("key") == key else {}
    handle = record.get("handle") or {}
    is_reused = bool(record.get("reused_at"))
    state, why = _state(run, live, task)
    used = [] if is_reused else list(_used(record, live, task, run, runs, now))
    return DagRunJob(
        place=JobPlace(
            dag_id=found.dag_run.dag_id, dag_run_id=found.dag_run.run_id, task_id=at[0], map_index=at[1]
        ),
        key=key,
        mlflow_run_id=run.run_id if run else str((record.get("run") or {}).get("run_id") or ""),
        state=state,
        task_state=str(task.state or "") if task is not None else "",
        why=why,
        failure=run.failure if run else "",
        back_end=str(handle.get("kind") or (run.kind if run else "")),
        cluster=str(handle.get("cluster") or (run.cluster if run else "")),
        job_id=str(handle.get("id") or (run.job_id if run else "")),
        started=run.began if run else float(handle.get("submitted_at") or 0.0),
        seconds=math.fsum(seconds for _, seconds in used),
        nodes=used[0][0].nodes if used else 0,
        gpus=used[0][0].gpus if used else 0,
        node_hours=math.fsum(machines.nodes * seconds for machines, seconds in used) / 3600,
        gpu_hours=math.fsum(machines.gpus * seconds for machines, seconds in used) / 3600,
        attempts=len(runs),
        is_reused=is_reused,
    )  # fmt: skip


def _used(
    record: Mapping[str, Any],
    live: Mapping[str, Any],
    task: Any,
    run: JobRun | None,
    runs: Sequence[JobRun],
    now: float,
) -> Iterator[tuple[Machines, float]]:
    """Yields what the jobs of a task instance have used, the newest first: machines, and for how many seconds."""
    running = seconds_running(live.get("phases") or (), now)
    if record and run is None:
        # MLflow does not have it: from what Airflow knows.
        submitted = float((record.get("handle") or {}).get("submitted_at") or 0.0)
        end = task.end_date.timestamp() if task is not None and task.end_date else now
        begun = max(0.0, end - submitted) if submitted else 0.0
        yield Machines.from_json(record.get("machines")) or Machines(), begun if running is None else running
    for each in runs:
        is_live = each is run and running is not None and not each.ended
        yield machines_of_run(each), running if is_live and running is not None else seconds_of_run(each, now)


def _state(run: JobRun | None, live: Mapping[str, Any], task: Any) -> tuple[str, str]:
    """Returns how a job fares, and why it waits or has failed; of a task without a job, how that fares."""
    state = state_of(run, live, str(task.state or "") if task is not None else "")
    if state == JobState.UNKNOWN or (run is None and not live):
        state = _state_of_task(task)
    why = run.reason if run is not None and run.ended else str(live.get("why") or "")
    return state, next((line.strip() for line in why.splitlines() if line.strip()), "")


def _state_of_task(task: Any) -> str:
    return _STATES.get(str(task.state or ""), "none") if task is not None else "none"
