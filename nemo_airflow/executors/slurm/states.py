"""Reads what Slurm's commands say of jobs. Pure."""

from __future__ import annotations

import dataclasses
import functools

from nemo_airflow.executors.seen import Fact
from nemo_airflow.job import FailureKind, JobState, JobStatus

QUEUE_FORMAT = "%A|%T|%r|%S|%j"
"""Of ``squeue``: id, state, reason, (expected) start, name."""

HISTORY_FORMAT = "JobIDRaw,State,ExitCode,JobName%200"
"""Of ``sacct``."""

FORGOTTEN = "FORGOTTEN"
"""Our own word for a job that a controller knew nothing of when it started: it has accounting end all such jobs."""

_STATES: dict[str, tuple[JobState, FailureKind | None]] = {
    "PENDING": (JobState.PENDING, None),
    "CONFIGURING": (JobState.PENDING, None),
    "REQUEUED": (JobState.PENDING, None),
    "REQUEUE_FED": (JobState.PENDING, None),
    "REQUEUE_HOLD": (JobState.PENDING, None),
    "SPECIAL_EXIT": (JobState.PENDING, None),
    "RUNNING": (JobState.RUNNING, None),
    "COMPLETING": (JobState.RUNNING, None),
    "RESIZING": (JobState.RUNNING, None),
    "SIGNALING": (JobState.RUNNING, None),
    "STAGE_OUT": (JobState.RUNNING, None),
    "STOPPED": (JobState.RUNNING, None),
    "SUSPENDED": (JobState.RUNNING, None),
    "COMPLETED": (JobState.SUCCEEDED, None),
    "FAILED": (JobState.FAILED, FailureKind.USER_ERROR),
    "TIMEOUT": (JobState.FAILED, FailureKind.TIMEOUT),
    "DEADLINE": (JobState.FAILED, FailureKind.TIMEOUT),
    "OUT_OF_MEMORY": (JobState.FAILED, FailureKind.OUT_OF_MEMORY),
    "BOOT_FAIL": (JobState.FAILED, FailureKind.NODE_FAILURE),
    "NODE_FAIL": (JobState.FAILED, FailureKind.NODE_FAILURE),
    "PREEMPTED": (JobState.FAILED, FailureKind.PREEMPTED),
    "CANCELLED": (JobState.CANCELLED, FailureKind.CANCELLED),
    "REVOKED": (JobState.CANCELLED, FailureKind.CANCELLED),
    FORGOTTEN: (JobState.LOST, FailureKind.LOST),
}

RESTARTED = frozenset({FailureKind.PREEMPTED, FailureKind.NODE_FAILURE})
"""After these Slurm may put the job into the queue again: they are final only if it does not."""

HOPELESS = frozenset({"BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS", "PartitionConfig",
                      "PartitionNodeLimit", "PartitionTimeLimit"})  # fmt: skip
"""Reasons for which a queued job would wait for ever."""

_HELD_BY_SLURM = ("launch fail", "jobholdmaxrequeue")
"""How reasons begin for which Slurm holds a job that its nodes could not start: an administrator may let it go."""

UNREACHABLE = (
    "unable to contact", "socket timed out", "connection refused", "try again", "connection timed out",
    "zero bytes were transmitted", "slurmctld is not responding", "communication connection failure",
)  # fmt: skip
"""What commands say when the controller is away or overloaded."""

_LIMITS = (
    "qos", "limit", "accounting/qos policy", "more processors", "more nodes", "node configuration",
    "memory specification", "exceeds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Entry:
    """What Slurm says of one job.

    Attributes:
        id: The job's id.
        name: The job's name.
        word: Slurm's own word for its state.
        reason: Why it waits or has ended, in Slurm's words; may be empty.
        start: When it began or is expected to, as Slurm writes it; may be empty.
        exit_code: As :class:`JobStatus` has it.
    """

    id: str
    name: str
    word: str
    reason: str = ""
    start: str = ""
    exit_code: int | None = None

    @property
    def hopeless(self) -> FailureKind | None:
        """What it is a failure of to wait for what will not come; None while there is hope."""
        if self.word != "PENDING":
            return None
        if self.reason in HOPELESS:
            return FailureKind.QUOTA
        return FailureKind.NODE_FAILURE if self.is_held else None

    @property
    def is_held(self) -> bool:
        """Whether Slurm itself will not start it again: there is nothing to wait for."""
        return self.reason.lower().replace("_", " ").startswith(_HELD_BY_SLURM)

    @property
    def may_be_requeued(self) -> bool:
        """Whether it may be in the queue for another time."""
        again = self.reason in ("None", "BeginTime") or "requeued" in self.reason.lower()
        return self.word.startswith(("REQUEUE", "SPECIAL")) or (self.word == "PENDING" and again)

    @functools.cached_property
    def fact(self) -> Fact | None:
        """The entry as a fact; None of one in a state that this release does not know."""
        if self.status.state is JobState.UNKNOWN:
            return None
        return Fact(
            self.status,
            may_restart=self.may_be_requeued or self.status.failure in RESTARTED,
            stuck=self.hopeless,
            held=self.is_held,
        )

    @functools.cached_property
    def status(self) -> JobStatus:
        """The entry as a status."""
        state, failure = _STATES.get(self.word, (JobState.UNKNOWN, None))
        return JobStatus(state, self.exit_code, failure, self._words(state))

    def _words(self, state: JobState) -> str:
        if state is JobState.PENDING:
            expected = f", expected to start at {self.start}" if self.start not in ("", "N/A") else ""
            return f"Slurm: {self.word} ({self.reason}){expected}"
        if state is JobState.LOST:
            return "a controller that knew nothing of the job has had its node end it"
        if state.is_final and state is not JobState.SUCCEEDED:
            why = f" ({self.reason})" if self.reason not in ("", "None") else ""
            return f"Slurm: {self.word}{why}"
        return ""


def parse_queue(text: str) -> dict[str, Entry]:
    """Reads the lines of ``squeue`` in :data:`QUEUE_FORMAT`, by job id."""
    entries = {}
    for line in text.splitlines():
        job_id, word, reason, start, name = [*line.split("|", 4), "", "", "", ""][:5]
        if name:
            entries[job_id] = Entry(job_id, name, word, reason, start)
    return entries


def parse_history(text: str) -> dict[str, Entry]:
    """Reads the lines of ``sacct --parsable2`` in :data:`HISTORY_FORMAT`, by job id.

    A controller that lost its last seconds leaves jobs there as running for ever.
    """
    entries = {}
    for line in text.splitlines():
        job_id, state, code, name = [*line.split("|", 3), "", "", ""][:4]
        if name and state:
            # Who cancels a job is named, as in "CANCELLED by 1000": nobody has.
            word = FORGOTTEN if state == "CANCELLED" else state.split()[0]
            entries[job_id] = Entry(job_id, name, word, exit_code=_exit_code(code))
    return entries


def is_transient(complaint: str) -> bool:
    """Returns whether a command failed for a reason that passes: the controller away, or overloaded."""
    return any(words in complaint.lower() for words in UNREACHABLE)


def kind_of_refusal(complaint: str) -> FailureKind:
    """Returns why ``sbatch`` refused a job."""
    limited = any(words in complaint.lower() for words in _LIMITS)
    return FailureKind.QUOTA if limited else FailureKind.USER_ERROR


def _exit_code(text: str) -> int | None:
    """Reads ``code:signal``."""
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    return 128 + int(number) if number.isdigit() and int(number) else int(code)
