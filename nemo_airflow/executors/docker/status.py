"""What a container says of its job. Pure: answers of the daemon in, a status out."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from nemo_airflow.job import FailureKind, JobState, JobStatus

_ALREADY_CLAIMED = 75
_CANNOT_START = (126, 127)
_BY_SIGTERM = 128 + 15
_BY_SIGKILL = 128 + 9
_VANISHED = 255
"""Exit code of a container that the daemon did not find any more when it came back."""


def state_of(status: str) -> JobState | None:
    """Returns the job's state for a container's status; None for one that has ended."""
    if status == "created":
        return JobState.PENDING
    return JobState.RUNNING if status in ("running", "paused", "restarting", "removing") else None


def end_status(container: Mapping[str, Any], *, cancelled: bool) -> JobStatus:
    """Returns the status of a container that has ended and whose runner left no end mark.

    Args:
        container: What the daemon says of it.
        cancelled: Whether it was told to end.
    """
    state = container["State"]
    code, said = int(state.get("ExitCode", 0)), " ".join(str(state.get("Error") or "").split())
    if cancelled and code in (_BY_SIGTERM, _BY_SIGKILL):
        return JobStatus(JobState.CANCELLED, code, FailureKind.CANCELLED)
    if state.get("OOMKilled"):
        limit = container["HostConfig"].get("Memory")
        of = f" of {limit / 2**20:.0f} MiB" if limit else ""
        text = f"OOMKilled: the container used more memory than its limit{of}"
        return JobStatus(JobState.FAILED, code, FailureKind.OUT_OF_MEMORY, text)
    if code == _ALREADY_CLAIMED:
        text = "the container was started a second time: what ran in the first is gone"
        return JobStatus(JobState.FAILED, code, FailureKind.NODE_FAILURE, text)
    if code in _CANNOT_START:
        command = (container["Config"].get("Entrypoint") or ["the command"])[0]
        text = said or f"image {container['Config']['Image']} has no {command} that can be started"
        return JobStatus(JobState.FAILED, code, FailureKind.IMAGE, text)
    if code in (_BY_SIGTERM, _BY_SIGKILL, _VANISHED):
        text = said or "the container was killed from outside: the daemon or its machine went down, or somebody did it"
        return JobStatus(JobState.FAILED, code, FailureKind.NODE_FAILURE, text)
    text = said or f"the runner ended with exit code {code} before it could say why: see the log"
    return JobStatus(JobState.FAILED, code, FailureKind.USER_ERROR, text)


def seconds(time: str) -> float:
    """Returns a time of the daemon as seconds since the epoch."""
    return datetime.datetime.fromisoformat(time).timestamp()
