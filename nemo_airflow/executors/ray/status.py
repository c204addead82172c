"""Turns what Ray says of a job into its status."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from nemo_airflow.job import FailureKind, JobState, JobStatus

_KINDS = {
    "RUNTIME_ENV_SETUP_FAILURE": FailureKind.IMAGE,
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT": FailureKind.QUOTA,
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE": FailureKind.NODE_FAILURE,
    "JOB_SUPERVISOR_ACTOR_DIED": FailureKind.NODE_FAILURE,
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE": FailureKind.NODE_FAILURE,
    "JOB_SUPERVISOR_ACTOR_START_FAILURE": FailureKind.NODE_FAILURE,
}
"""By Ray's ``JobErrorType``: all but a failure of the job's own command, which is the user's."""

_OUT_OF_MEMORY = re.compile(r"OutOfMemory|\bOOM\b|low on memory|memory pressure|memory usage threshold", re.IGNORECASE)
_RAISED = re.compile(r"[A-Za-z_.]+(Error|Exception): ")

_USUAL_START = 10.0
"""Seconds that Ray may take to start a job before it is worth a word."""

_REFUSED = "Failed to start supervisor actor"
"""How Ray begins when it did not understand the resources or the runtime environment."""


def status_of(details: Mapping[str, Any]) -> JobStatus:
    """Returns the status of a job.

    Args:
        details: Ray's ``JobDetails``.
    """
    state = details["status"]
    message = str(details.get("message") or "")
    if state == "PENDING":
        waits = time.time() - (details.get("start_time") or 0) / 1000 > _USUAL_START
        return JobStatus(JobState.PENDING, reason=_one_line(message) if waits else "")
    if state == "RUNNING":
        return JobStatus(JobState.RUNNING)
    code = details.get("driver_exit_code")
    if state == "SUCCEEDED":
        return JobStatus(JobState.SUCCEEDED, exit_code=code)
    if state == "STOPPED":
        return JobStatus(JobState.CANCELLED, code, FailureKind.CANCELLED, _one_line(message))
    return JobStatus(JobState.FAILED, code, _failure(details, message), _one_line(message))


def _failure(details: Mapping[str, Any], message: str) -> FailureKind:
    kind = _KINDS.get(str(details.get("error_type")), FailureKind.USER_ERROR)
    if kind is FailureKind.NODE_FAILURE:
        if _OUT_OF_MEMORY.search(message):
            return FailureKind.OUT_OF_MEMORY
        if message.startswith(_REFUSED):
            return FailureKind.USER_ERROR
    return kind


def _one_line(message: str) -> str:
    """Returns what a message says, in one line: its first, and of a traceback the error, of pip what it missed."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    first = lines[0].partition(". Full traceback")[0]
    if len(lines) == 1 or first != lines[0] or "last available logs" in first:
        return first.partition(", last available logs")[0]
    errors = [line for line in lines if line.startswith("ERROR:")][:1] or [
        line for line in lines if _RAISED.match(line)
    ]
    return f"{first} {errors[-1]}" if errors else first


def node_is_gone(details: Mapping[str, Any]) -> JobStatus:
    """Returns the status of a job that Ray calls running on a node that it does not have any more."""
    reason = f"node {details['driver_node_id']} has left the Ray cluster, so the job is lost"
    return JobStatus(JobState.LOST, failure=FailureKind.NODE_FAILURE, reason=reason)
