"""Ends the runs of jobs that nobody follows to their end any more."""

from __future__ import annotations

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking.base import ATTEMPTS, RunRef
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.jobs import JobRuns
from nemo_airflow.tracking.mlflow.tracker import MLflowTracker


def end_left_run(key: str, status: JobStatus, *, succeeded: bool, conn_id: str | None = None) -> None:
    """Ends the run of a job, if it is under way; one that has ended, or has gone on in a later job, stays. Blocks.

    Args:
        key: The job's key.
        status: How the job ended.
        succeeded: Whether its task did: then it makes no failure of the run of the whole DAG run.
        conn_id: An Airflow connection of the MLflow that has the run; that of tasks that name none when None.

    Raises:
        TrackingError: The store cannot be reached, or refuses.
    """
    jobs = JobRuns(conn_id=conn_id)
    run = jobs.of_key(key)
    if run is None or run.state != JobState.RUNNING or run.tags.get(ATTEMPTS, run.key).split(" ")[0] != key:
        return
    ref = RunRef(
        uri=jobs.uri,
        experiment_id=run.experiment_id,
        run_id=run.run_id,
        parent_id=run.tags.get(fields.PARENT, ""),
        attempt=key if key != run.key else "",
    )
    tracker = MLflowTracker(conn_id=conn_id)
    tracker.ended(ref, status)
    tracker.close_parent(ref, succeeded=succeeded)
