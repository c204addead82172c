"""Finds running jobs that no task waits for any more, left by processes that were killed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from nemo_airflow import settings
from nemo_airflow.exceptions import NemoAirflowError, TrackingError
from nemo_airflow.executors.base import Driver, Executor
from nemo_airflow.installation import run_labels
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

WAITED_FOR = frozenset({
    "running", "deferred", "queued", "scheduled", "restarting", "up_for_retry", "up_for_reschedule", "awaiting_input",
})  # fmt: skip
"""States of a task in which it, or its next try, follows its job."""

MIN_AGE = 300.0
"""Seconds after submission during which a job is never an orphan: its task's state may be about to change."""


_BATCH = 200


@dataclasses.dataclass(frozen=True)
class Orphan:
    """A job that no task waits for.

    Attributes:
        handle: The job.
        labels: Its labels: the task that submitted it.
        state: The state of its task; empty if the task was cleared.
    """

    handle: JobHandle
    labels: Mapping[str, str]
    state: str

    def __str__(self) -> str:
        where = ".".join(self.labels.get(name, "?") for name in ("dag_id", "run_id", "task_id"))
        return f"{self.handle.kind} {self.handle.id} {self.handle.key}: {where} is {self.state or 'cleared'}"


StateOf: TypeAlias = Callable[[Mapping[str, str]], str | None]
"""Returns the state of the task with these labels, empty for a cleared one; None for a task of another
Airflow, whose jobs must not be ended here."""


@dataclasses.dataclass(frozen=True)
class Surveyed:
    """A job that a back-end runs, or has queued.

    Attributes:
        handle: The job.
        labels: Where it comes from; without a ``dag_id`` no task has submitted it.
        status: How it fares there, as far as the back-end tells.
    """

    handle: JobHandle
    labels: Mapping[str, str]
    status: JobStatus | None


async def survey_all(executor: Executor) -> list[Surveyed]:
    """Returns all running and queued jobs of a back-end, whoever has submitted them, and how they fare.

    Raises:
        BackendUnavailable: The back-end cannot be reached.
    """
    driver = executor.connect()
    try:
        found: list[Surveyed] = []
        jobs = await driver.survey()
        for start in range(0, len(jobs), _BATCH):
            batch = jobs[start : start + _BATCH]
            labels, seen = await driver.labels(batch), await driver.look(batch)
            words = {key: each.word for key, each in seen.items()}
            found += [
                Surveyed(job, labels.get(job.key, {}), word.status if (word := words.get(job.key)) else None)
                for job in batch
            ]
        return found
    finally:
        await driver.close()


def state_in_database(database: Session, labels: Mapping[str, str]) -> str | None:
    """Returns the state of the task with these labels from Airflow's database; see :data:`StateOf`."""
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

    run = database.query(DagRun).filter_by(dag_id=labels["dag_id"], run_id=labels["run_id"]).one_or_none()
    if run is None or not run_labels(run.run_after).items() <= labels.items():
        return None
    task = (
        database.query(TaskInstance)
        .filter_by(**{name: labels[name] for name in ("dag_id", "run_id", "task_id")})
        .filter_by(map_index=int(labels["map_index"]))
        .one_or_none()
    )
    return None if task is None else str(task.state or "")


async def survey(executor: Executor, min_age: float = MIN_AGE) -> list[tuple[JobHandle, Mapping[str, str]]]:
    """Returns the running and queued jobs of a back-end, each with its labels.

    Args:
        executor: The back-end, and the owner of the jobs.
        min_age: Least seconds since a job's submission.

    Raises:
        BackendUnavailable: The back-end cannot be reached.
    """
    driver = executor.connect()
    try:
        jobs = [job for job in await driver.survey() if time.time() - job.submitted_at >= min_age]
        return await _labelled(driver, jobs)
    finally:
        await driver.close()


async def survey_folders(executor: Executor, older_than: float) -> list[tuple[JobHandle, Mapping[str, str]]]:
    """Returns the ended jobs whose folders were not written to for some seconds, each with its labels.

    Raises:
        BackendUnavailable: The back-end cannot be reached.
        ExecutorError: The executor has no folders.
    """
    driver = executor.connect()
    try:
        return await _labelled(driver, await driver.old_folders(older_than))
    finally:
        await driver.close()


async def _labelled(driver: Driver, jobs: list[JobHandle]) -> list[tuple[JobHandle, Mapping[str, str]]]:
    labels: dict[str, Mapping[str, str]] = {}
    for start in range(0, len(jobs), _BATCH):
        labels |= await driver.labels(jobs[start : start + _BATCH])
    return [(job, labels[job.key]) for job in jobs if labels.get(job.key, {}).get("dag_id")]


def orphans_among(jobs: Iterable[tuple[JobHandle, Mapping[str, str]]], state_of: StateOf) -> list[Orphan]:
    """Returns the jobs whose tasks have ended or were cleared."""
    states = ((job, labels, state_of(labels)) for job, labels in jobs)
    return [
        Orphan(job, labels, state) for job, labels, state in states if state is not None and state not in WAITED_FOR
    ]


async def end_orphans(executor: Executor, orphans: list[Orphan]) -> None:
    """Cancels orphans.

    Raises:
        BackendUnavailable: The back-end cannot be reached.
    """
    driver = executor.connect()
    try:
        await driver.cancel([orphan.handle for orphan in orphans])
    finally:
        await driver.close()


def record_ends(orphans: Iterable[Orphan]) -> str:
    """Ends the runs of orphans that were cancelled: nobody else would. Blocks.

    Their runs are looked for in the MLflow of the setting ``mlflow_connection``, else in that of tasks that name none.

    Returns:
        Which runs could not be ended, and why, in one line; empty if all were.
    """
    from nemo_airflow.tracking.mlflow.left_runs import end_left_run

    conn_id = settings.mlflow_connection() or None
    left, away = [], ""
    for orphan in orphans:
        key, trouble = orphan.handle.key, away
        if not away:
            reason = f"it was ended as an orphan: its task is {orphan.state or 'cleared'}"
            status = JobStatus(JobState.CANCELLED, failure=FailureKind.CANCELLED, reason=reason)
            try:
                end_left_run(key, status, succeeded=orphan.state != "failed", conn_id=conn_id)
            except NemoAirflowError as error:
                trouble = str(error)
                is_of_this_run = isinstance(error, TrackingError) and not error.transient
                away = "" if is_of_this_run else trouble  # then it is not asked again for each of the others
        if trouble:
            left.append(key)
            said = trouble
    if not left:
        return ""
    return f"runs of these jobs are still under way in MLflow, end them there by hand: {', '.join(left)}: {said}"


async def remove_folders(executor: Executor, orphans: list[Orphan]) -> None:
    """Deletes the folders of ended jobs that no task waits for.

    Raises:
        BackendUnavailable: The back-end cannot be reached.
        ExecutorError: A folder cannot be deleted, or its job runs.
    """
    driver = executor.connect()
    try:
        for start in range(0, len(orphans), _BATCH):
            await driver.remove([orphan.handle for orphan in orphans[start : start + _BATCH]])
    finally:
        await driver.close()
