"""What jobs have used: GPU hours."""

from __future__ import annotations

import time

from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns

_RUNS = 50_000
"""As many as MLflow returns at once."""


def count_gpus(run: JobRun) -> int:
    """Returns the GPUs that a job has found where its first process ran."""
    return len([name for name in run.tags.get("nemo_airflow.gpus", "").split(", ") if name])


def gpu_hours(dag_id: str, days: float, tracking_uri: str | None = None, conn_id: str | None = None) -> float:
    """Returns the GPU hours of the jobs that a DAG's tasks have begun within some days; running ones count until now.

    Of a job on several nodes the GPUs of the first one are known.

    Args:
        dag_id: The DAG.
        days: How far back.
        tracking_uri: MLflow's address, or None for that of a tracker.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    since = round((time.time() - days * 86_400) * 1000)
    which = f"tags.`airflow.dag_id` = '{dag_id}' AND attributes.start_time > {since}"
    runs = JobRuns(tracking_uri, conn_id).matching(which, _RUNS)
    return sum(count_gpus(run) * ((run.ended_at or time.time()) - run.began) for run in runs) / 3600
