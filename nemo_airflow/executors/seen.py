"""What one look at a back-end tells of a job: facts, each with where it comes from. What they mean is judged elsewhere.

A driver writes down what it was told, and concludes nothing: see :mod:`nemo_airflow.jobs.judge`.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from nemo_airflow.job import FailureKind, JobState, JobStatus


@dataclasses.dataclass(frozen=True)
class Fact:
    """What a back-end says of one job.

    Attributes:
        status: The word as a status; never UNKNOWN.
        may_restart: Whether the back-end may start the job again: after a preemption, or from its queue a second time.
        stuck: The kind of failure if the job would wait for ever; None if it may still start.
        held: Whether a stuck job is held by the back-end itself, which then changes nothing of its own accord.
        partial: Whether parts of a job that has ended, such as its other machines, still run.
        leftover: Whether something beside a job that has ended still runs, such as a sidecar.
        settling: Seconds for which the end of a job may not be all told: its process may still be ending.
    """

    status: JobStatus
    may_restart: bool = False
    stuck: FailureKind | None = None
    held: bool = False
    partial: bool = False
    leftover: bool = False
    settling: float = 0.0


class Accounting(enum.Enum):
    """Whether a back-end that keeps accounts of past jobs was asked for one, and answered."""

    NONE = "none"
    """It keeps none, or there was no need to ask."""
    AWAY = "away"
    ANSWERED = "answered"


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one look told of one job.

    Attributes:
        at: When the back-end was asked, by ``time.monotonic()``. An answer that was kept and is given again has the
            time of the first: it is no second answer.
        queue: The word of the back-end itself; None where it does not know the job.
        history: The word of its accounting; None where that does not know the job, or was not asked.
        accounting: Whether the accounting was asked, and answered.
        mark: The end mark of the job's runner, ``end.json``; None where there is none.
        mark_is_late: Whether a mark that is not seen may be there: on a disk that shows files late.
        cancelled_by_us: Whether somebody has cancelled the job through a driver.
        unread: Why the stream of a job that has ended cannot be read just now; empty where it can.
        unread_for_good: Whether it never will be.
        note: What to tell people of a job that nobody knows.
        trouble: Why this one job could not be looked at; empty where it could. All else then says nothing.
    """

    at: float
    queue: Fact | None = None
    history: Fact | None = None
    accounting: Accounting = Accounting.NONE
    mark: Mapping[str, Any] | None = None
    mark_is_late: bool = False
    cancelled_by_us: bool = False
    unread: str = ""
    unread_for_good: bool = False
    note: str = ""
    trouble: str = ""

    @property
    def word(self) -> Fact | None:
        """The word of the back-end, or that of its accounting where the back-end has none."""
        return self.queue or self.history

    @property
    def is_alive(self) -> bool:
        """Whether the job waits or runs, as far as this look tells; one that was told to end may be queued again."""
        word = self.word
        if word is None or (word.status.state.is_final and not word.partial):
            return False
        if self.mark is None:
            return True
        again = self.queue is not None and (self.queue.may_restart or self.queue.status.state is JobState.PENDING)
        return again and bool(self.mark.get("told_to_end"))

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended, as far as this look tells."""
        word = self.word
        ended = word is not None and word.status.state.is_final and not word.partial
        return (self.mark is not None or ended) and not self.is_alive


WAITING = Fact(JobStatus(JobState.PENDING))
RUNNING = Fact(JobStatus(JobState.RUNNING))
GONE = Fact(JobStatus(JobState.LOST, failure=FailureKind.LOST, reason="the runner is gone and left no end mark"))
"""Of a runner that ended without a mark, on the machine where it ran: nothing more will come."""
