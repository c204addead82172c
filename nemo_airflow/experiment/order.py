"""Which jobs of an experiment may be submitted, and which will never be: decided from how the others stand."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence

from nemo_airflow.experiment.records import RecordedJob
from nemo_airflow.job import JobState


class Standing(enum.StrEnum):
    """How a job of an experiment stands, or a group of jobs as a whole."""

    WAITING = "waiting"
    """It is not submitted yet."""
    ACTIVE = "running"
    """It is submitted, and has not ended."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    NOT_STARTED = "not started"
    """It never will be."""

    @property
    def is_final(self) -> bool:
        """Whether it cannot change any more."""
        return self not in (Standing.WAITING, Standing.ACTIVE)


@dataclasses.dataclass(frozen=True)
class Steps:
    """What to do next.

    Attributes:
        start: Ids of the jobs that are to be submitted.
        refuse: The ids of those that never will be, each with the reason.
    """

    start: tuple[str, ...]
    refuse: Mapping[str, str]


def next_steps(jobs: Sequence[RecordedJob], standings: Mapping[str, Standing], errors: Mapping[str, str]) -> Steps:
    """Returns what to do next with the jobs that wait.

    Args:
        jobs: All jobs, each after those on which it depends.
        standings: How each stands, by its id.
        errors: Why those failed that did, in one line, by their ids.
    """
    now, start, refuse = dict(standings), [], {}
    for job in jobs:
        if now[job.id] is not Standing.WAITING:
            continue
        obstacle = next((each for each in job.dependencies if _is_obstacle(now[each])), None)
        if job.is_cancelled:
            refuse[job.id] = "it was cancelled before it was started"
        elif obstacle is not None:
            why = f": {errors[obstacle]}" if errors.get(obstacle) else ""
            refuse[job.id] = f"it waits for {obstacle}, which {_describe(now[obstacle])}{why}"
        elif all(now[each] is Standing.SUCCEEDED for each in job.dependencies):
            start.append(job.id)
        if job.id in refuse:
            now[job.id] = Standing.NOT_STARTED
    return Steps(tuple(start), refuse)


def standing_of_group(states: Iterable[JobState | None]) -> Standing:
    """Returns how a group of jobs stands.

    Args:
        states: The state of each; None for one that is not submitted.
    """
    found = list(states)
    if any(state is None for state in found):
        return Standing.WAITING if not any(found) else Standing.ACTIVE
    if not all(state is not None and state.is_final for state in found):
        return Standing.ACTIVE
    for state in (JobState.FAILED, JobState.LOST, JobState.CANCELLED):
        if state in found:
            return Standing(state.value)
    return Standing.SUCCEEDED


def _is_obstacle(standing: Standing) -> bool:
    return standing.is_final and standing is not Standing.SUCCEEDED


def _describe(standing: Standing) -> str:
    verbs = {Standing.FAILED: "has failed", Standing.CANCELLED: "was cancelled", Standing.LOST: "was lost"}
    return verbs.get(standing, "was not started")
