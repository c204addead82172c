"""What a job went through: queued, waiting, running, ended; each with its time and reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nemo_airflow.job import JobState
from nemo_airflow.plugin.api.answers import Answer
from nemo_airflow.plugin.api.found import FoundJob
from nemo_airflow.tracking.base import PHASES
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.jobs import JobRun

_AT_MOST = 100
_ENDED = "ended"
_OWN = frozenset((JobState.PENDING, JobState.RUNNING, _ENDED))
"""States of a job in its phases; others go on beside these."""

ACTIVE = ("running", "deferred", "queued", "scheduled", "restarting", "up_for_reschedule")
"""States of a task whose job may be under way."""

_OVER = {
    "success": "succeeded", "failed": "failed", "upstream_failed": "failed", "up_for_retry": "failed",
    "skipped": "cancelled", "removed": "cancelled",
}  # fmt: skip
"""The state of a job by that of a task which does not wait for it any more."""

BY_TASK = {**dict.fromkeys(ACTIVE, "running"), "queued": "pending", "scheduled": "pending", **_OVER}
"""The state of a job by that of its task, where nothing else tells of it."""

_FINAL = frozenset(str(state) for state in JobState if state.is_final)


class Phase(Answer):
    """A phase of a job.

    Attributes:
        state: ``queued`` for a task in Airflow's queue, ``preparing`` for one that has not submitted its job;
            ``pending``, ``running``, ``ended``; ``away`` while its back-end could not be reached, ``keeping`` while a
            worker keeps its outputs: these go on beside the others.
        why: Why it waited, or how it ended; or empty.
        at: When it began, in seconds since the epoch.
        until: When it ended; None for one that goes on, and for the end.
    """

    state: str
    why: str = ""
    at: float
    until: float | None = None


def phases_of(found: FoundJob, state: str) -> tuple[list[Phase], str]:
    """Returns the phases of a job, the first one first, and who tells of them.

    Args:
        found: The job.
        state: Its state.

    Returns:
        The phases; and ``follower``, ``tracker``, or ``airflow`` where only a few times are known.
    """
    told, by = _read(found.live), "follower"
    if not told and found.run is not None:
        told, by = _read(_loads(found.run.tags.get(PHASES, ""))), "tracker"
    if not told:
        told, by = list(_guess(found, state)), "airflow"
    return [*_in_airflow(found, told[0].at if told else math.inf), *told], by


def live_state(live: Mapping[str, Any]) -> str:
    """Returns the job's state as its follower tells it; empty where it tells none."""
    own = next((phase for phase in reversed(_read(live)) if phase.state in _OWN), None)
    state, why = (own.state, own.why) if own else (str(live.get("state") or ""), str(live.get("why") or ""))
    if state != _ENDED:
        return state if state in (JobState.PENDING, JobState.RUNNING) else ""
    word = why.partition(":")[0].split(" ")[0]
    return word if word in _FINAL else ""


def state_of(run: JobRun | None, live: Mapping[str, Any], task_state: str = "") -> str:
    """Returns a job's state: as MLflow has its end, as its follower tells, or else as its task is.

    Args:
        run: Its run in MLflow, or None.
        live: What its follower tells; empty where that is not known, or of another job.
        task_state: The state of its task instance; empty where that is not known, or has another job by now.
    """
    if run is not None and run.tags.get(fields.STATE):
        return run.state
    told = live_state(live)
    if told in _FINAL:
        return told
    if task_state in _OVER:  # a user has ended the task: nobody has followed the job to its end
        return _OVER[task_state]
    if told:
        return told
    if run is None:
        return BY_TASK.get(task_state, str(JobState.UNKNOWN))
    # The job tells of its host when it begins.
    return str(JobState.RUNNING if run.tags.get("nemo_airflow.host") else JobState.PENDING)


def _loads(text: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError:  # so long that the tag was cut
        return None


def _read(value: Any) -> list[Phase]:
    """Returns the phases of what was written; what is none is left out, since any task may write an XCom."""
    told = value.get("phases") if isinstance(value, Mapping) else None
    if not isinstance(told, Sequence) or isinstance(told, str):
        return []
    return sorted((phase for each in told[-_AT_MOST:] if (phase := _phase(each))), key=lambda phase: phase.at)


def _phase(value: Any) -> Phase | None:
    at = _time(value.get("at")) if isinstance(value, Mapping) else None
    if at is None or not isinstance(value.get("state"), str):
        return None
    until = _time(value.get("until"))
    return Phase(
        state=value["state"],
        why=" ".join(str(value.get("why") or "").split()),
        at=at,
        until=None if until is None else max(until, at),
    )


def _time(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _in_airflow(found: FoundJob, until: float) -> Iterator[Phase]:
    """Yields what the task waited for before its job was there, if that was in this try."""
    task = found.task
    if task is None or not found.record or task.start_date is None:
        return
    started = task.start_date.timestamp()
    queued = task.queued_dttm.timestamp() if task.queued_dttm else started
    if started >= until:  # the job is that of an earlier try
        return
    if queued < started:
        yield Phase(state="queued", at=queued, until=started)
    yield Phase(state="preparing", at=started, until=until if math.isfinite(until) else None)


def _guess(found: FoundJob, state: str) -> Iterator[Phase]:
    """Yields what record and run tell: when it was submitted, and when it ended."""
    run = found.run
    handle = found.record.get("handle")
    submitted = _time(handle.get("submitted_at")) if isinstance(handle, Mapping) else None
    at = submitted or (run.began if run is not None else None)
    if at is None:
        return
    ended = run.ended_at if run is not None and run.tags.get(fields.STATE) else None
    # When it began to run is not known: waiting and running are shown as one.
    waits = state in (JobState.PENDING, JobState.UNKNOWN)
    yield Phase(state=str(JobState.PENDING if waits else JobState.RUNNING), at=at, until=ended and max(ended, at))
    if run is not None and ended is not None:
        why = " ".join(run.reason.split())
        yield Phase(state=_ENDED, why=f"{run.state}{': ' if why else ''}{why}", at=max(ended, at))
