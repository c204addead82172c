"""What jobs have used: machines and GPUs, and for how long."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any

from nemo_airflow.executors.machines import Machines
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns

_RUNS = 50_000
"""As many as MLflow returns at once."""

_PHASES = "nemo_airflow.phases"
"""Tag of a run with the phases of its job."""


def count_gpus(run: JobRun) -> int:
    """Returns the GPUs that a job has found where its first process ran."""
    return len([name for name in run.tags.get("nemo_airflow.gpus", "").split(", ") if name])


def machines_of_run(run: JobRun) -> Machines:
    """Returns what a job has asked for; GPUs that it has not asked for, and has found on its first machine, count."""
    nodes = _number(run.tags.get(fields.NODES, "")) or 1
    return Machines(nodes, _number(run.tags.get(fields.GPUS, "")) or nodes * count_gpus(run))


def seconds_of_run(run: JobRun, now: float) -> float:
    """Returns how long a job has had its machines: since it was submitted, where it is not known how long it waited."""
    try:
        phases = json.loads(run.tags.get(_PHASES, "") or "[]")
    except ValueError:  # so long that the tag was cut
        phases = []
    seconds = seconds_running(phases.get("phases", ()) if isinstance(phases, Mapping) else phases, now)
    return max(0.0, (run.ended_at or now) - run.began) if seconds is None else seconds


def seconds_running(phases: Iterable[Mapping[str, Any]], now: float) -> float | None:
    """Returns for how many seconds a job ran, by its phases; None where there are none.

    Args:
        phases: Each with ``state``, ``at`` and, unless it is the last one, ``until``.
        now: The current time, in seconds since the epoch.
    """
    try:
        known = list(phases)
        ran = [each for each in known if each["state"] == "running"]
        return sum(max(0.0, float(each.get("until") or now) - float(each["at"])) for each in ran) if known else None
    except (KeyError, TypeError, ValueError):  # of another release
        return None


def gpu_hours(dag_id: str, days: float, tracking_uri: str | None = None, conn_id: str | None = None) -> float:
    """Returns the GPU hours of the jobs that a DAG's tasks have begun within some days; running ones count until now.

    Args:
        dag_id: The DAG.
        days: How far back.
        tracking_uri: MLflow's address, or None for that of a tracker.
        conn_id: An Airflow connection with MLflow's address and login, or None.

    Raises:
        TrackingError: MLflow cannot be reached.
    """
    now = time.time()
    which = f"tags.`airflow.dag_id` = '{dag_id}' AND attributes.start_time > {round((now - days * 86_400) * 1000)}"
    runs = JobRuns(tracking_uri, conn_id).matching(which, _RUNS)
    return sum(machines_of_run(run).gpus * seconds_of_run(run, now) for run in runs) / 3600


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
