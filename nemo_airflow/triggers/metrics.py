"""Counters and timers of jobs, through Airflow's own metrics: StatsD, Datadog or OpenTelemetry, as ``[metrics]`` says.

A worker and the triggerer have different copies of that part of Airflow: each names where it is.
"""

from __future__ import annotations

import importlib
from typing import Any

from nemo_airflow.follow import Outcome
from nemo_airflow.job import FailureKind, JobHandle

SUBMITTED = "nemo_airflow.job.submitted"
WAITED = "nemo_airflow.job.waited"
RAN = "nemo_airflow.job.ran"
SUCCEEDED = "nemo_airflow.job.succeeded"
FAILED = "nemo_airflow.job.failed"
KEPT = "nemo_airflow.outputs.kept"
LOST_TRIGGER = "nemo_airflow.trigger.lost"

METRICS = {
    SUBMITTED: ("counter", "a job was submitted, or found again by a later try"),
    WAITED: ("timer", "from the submission of a job to its start"),
    RAN: ("timer", "from the start of a job to its end"),
    SUCCEEDED: ("counter", "a job ended well"),
    f"{FAILED}.<kind of failure>": (
        "counter",
        "a job ended otherwise; one counter for each kind, such as `out_of_memory`",
    ),
    KEPT: ("timer", "what a worker took to keep the outputs of a job"),
    LOST_TRIGGER: ("counter", "a trigger could not follow its job any more"),
}
"""Each metric: its type, and what it tells. All have the tag ``kind``, the kind of executor."""


def count_submission(handle: JobHandle) -> None:
    """Counts a job that was submitted."""
    _stats(in_triggerer=False).incr(SUBMITTED, tags=_tags(handle))


def count_end(handle: JobHandle, outcome: Outcome, *, in_triggerer: bool) -> None:
    """Counts a job that has ended, and how long it waited and ran."""
    stats, tags = _stats(in_triggerer=in_triggerer), _tags(handle)
    if outcome.succeeded:
        stats.incr(SUCCEEDED, tags=tags)
    else:
        stats.incr(f"{FAILED}.{outcome.status.failure or FailureKind.USER_ERROR}", tags=tags)
    for name, begin, end in (
        (WAITED, handle.submitted_at, outcome.started_at),
        (RAN, outcome.started_at, outcome.ended_at),
    ):
        if begin and end:
            stats.timing(name, max(end - begin, 0.0) * 1000, tags=tags)


def time_keeping(handle: JobHandle) -> Any:
    """Returns a context manager that times how a worker keeps a job's outputs."""
    return _stats(in_triggerer=False).timer(KEPT, tags=_tags(handle))


def count_lost_trigger(handle: JobHandle, *, in_triggerer: bool) -> None:
    """Counts a trigger that cannot follow its job."""
    _stats(in_triggerer=in_triggerer).incr(LOST_TRIGGER, tags=_tags(handle))


def _stats(*, in_triggerer: bool) -> Any:
    return importlib.import_module("airflow.observability.stats" if in_triggerer else "airflow.sdk.observability.stats")


def _tags(handle: JobHandle) -> dict[str, str]:
    return {"kind": handle.kind}
