"""Slurm's commands, and what their answers say of jobs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from typing import ClassVar

from nemo_airflow.executors.batch.probe import Probe
from nemo_airflow.executors.batch.scheduler import Entry, Scheduler
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.seen import Fact
from nemo_airflow.job import FailureKind, JobState, JobStatus

QUEUE_FORMAT = "%A|%T|%r|%S|%j"
"""Of ``squeue``: id, state, reason, (expected) start, name."""

HISTORY_FORMAT = "JobIDRaw,State,ExitCode,JobName%200"
"""Of ``sacct``."""

_FORGOTTEN = "FORGOTTEN"
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
    _FORGOTTEN: (JobState.LOST, FailureKind.LOST),
}

_RESTARTED = frozenset({FailureKind.PREEMPTED, FailureKind.NODE_FAILURE})
"""After these Slurm may put the job into the queue again: they are final only if it does not."""

_HOPELESS = frozenset({"BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS", "PartitionConfig",
                       "PartitionNodeLimit", "PartitionTimeLimit"})  # fmt: skip
"""Reasons for which a queued job would wait for ever."""

_HELD_BY_SLURM = ("launch fail", "jobholdmaxrequeue")
"""How reasons begin for which Slurm holds a job that its nodes could not start: an administrator may let it go."""

_LIMITS = (
    "qos", "limit", "accounting/qos policy", "more processors", "more nodes", "node configuration",
    "memory specification", "exceeds",
)  # fmt: skip

_NO_PROGRAM = 127


class Slurm(Scheduler):
    """``sbatch``, ``squeue``, ``sacct`` and ``scancel``."""

    kind = "slurm"
    title = "Slurm"
    id_of_answer: ClassVar[str] = "s/;.*//"
    transient = (
        "unable to contact", "socket timed out", "connection refused", "try again", "connection timed out",
        "zero bytes were transmitted", "slurmctld is not responding", "communication connection failure",
    )  # fmt: skip

    def submit(self, name: str) -> str:
        """See :meth:`Scheduler.submit`; the name stands in the script."""
        return f"sbatch --parsable {folders.START}"

    def enter(self, job_id: str, script: str, *, has_terminal: bool) -> str:
        """See :meth:`Scheduler.enter`: a step that shares what the job has."""
        step = ["srun", "--overlap", f"--jobid={job_id}", "--nodes=1", "--ntasks=1", "--quiet"]
        return shlex.join([*step, *(["--pty"] if has_terminal else []), "sh", "-c", script])

    def list_named(self, name: str) -> str:
        """See :meth:`Scheduler.list_named`. What sbatch refuses for its resources is in the queue too."""
        return (
            f"squeue -h -u \"$(id -un)\" -t all -n {shlex.quote(name)} -o '%A %r' | grep -v BadConstraints | sort -n | "
            "cut -d ' ' -f 1"
        )

    def list_queue(self) -> str:
        """See :meth:`Scheduler.list_queue`."""
        return f"squeue -h -u \"$(id -un)\" -t all -o '{QUEUE_FORMAT}'"

    def parse_queue(self, text: str) -> dict[str, Entry]:
        """See :meth:`Scheduler.parse_queue`."""
        entries = {}
        for line in text.splitlines():
            job_id, word, reason, start, name = [*line.split("|", 4), "", "", "", ""][:5]
            if name:
                entries[job_id] = Entry(job_id, name, word, _fact(word, reason, start))
        return entries

    def list_history(self, ids: Collection[str], since: float) -> str:
        """See :meth:`Scheduler.list_history`."""
        numbers = ",".join(each for each in ids if each.isdigit())
        # A window that begins with the first of them, and before that where clocks differ: without it, at midnight.
        begin = int(since) - 3600
        return f"sacct -n -P -X -S \"$(date -d @{begin} +%FT%T)\" -j {numbers} -o '{HISTORY_FORMAT}'" if numbers else ""

    def parse_history(self, text: str) -> dict[str, Entry]:
        """See :meth:`Scheduler.parse_history`.

        Jobs of a controller that lost its last seconds in a crash may stay there as running for ever.
        """
        entries = {}
        for line in text.splitlines():
            job_id, state, code, name = [*line.split("|", 3), "", "", ""][:4]
            if name and state:
                # Who cancels a job is named, as in "CANCELLED by 1000": nobody has.
                word = _FORGOTTEN if state == "CANCELLED" else state.split()[0]
                entries[job_id] = Entry(job_id, name, word, _fact(word, exit_code=_exit_code(code)))
        return entries

    def has_no_accounting(self, code: int, complaint: str) -> bool:
        """See :meth:`Scheduler.has_no_accounting`."""
        return "accounting storage is disabled" in complaint or code == _NO_PROGRAM

    def withdraw(self, ids: Sequence[str]) -> str:
        """See :meth:`Scheduler.withdraw`."""
        return f"scancel --state=PENDING {' '.join(ids)}"

    def terminate(self, ids: Sequence[str]) -> str:
        """See :meth:`Scheduler.terminate`: the batch shell has become the runner."""
        return f"scancel --signal=TERM --batch {' '.join(ids)}"

    def kill(self, entry: Entry) -> str:
        """See :meth:`Scheduler.kill`."""
        return f"scancel --name={shlex.quote(entry.name)} {entry.id}"

    def probes(self) -> Sequence[Probe]:
        """See :meth:`Scheduler.probes`."""
        return (
            Probe("sbatch", "sbatch --version", "have ~/.bashrc there load Slurm, or name a login node that has it"),
            Probe(
                "queue",
                'echo "$(squeue -h -u "$(id -un)" | wc -l) jobs of this user"; squeue -h -u "$(id -un)" >/dev/null',
                "ask the administrators why slurmctld does not answer",
            ),
            Probe(
                "accounting",
                "sacct -n -X -S now-1hours -o JobIDRaw >/dev/null && echo here",
                "none is needed, but how a job ended that left no mark is then not known",
                needed=False,
            ),
            Probe(
                "partition, account and resources",
                "sbatch --test-only $script 2>&1",
                "'sinfo -s' lists partitions, 'sacctmgr show assoc user=$USER' accounts: change the executor's fields",
                gets_script=True,
            ),
        )

    def explain_refusal(self, complaint: str) -> tuple[FailureKind, str]:
        """See :meth:`Scheduler.explain_refusal`."""
        limited = any(words in complaint.lower() for words in _LIMITS)
        lines = [line for line in complaint.splitlines() if not line.startswith("Try ")]
        errors = [line for line in lines if "error" in line.lower()]
        reason = (errors or lines or [""])[-1].removeprefix("sbatch: ").removeprefix("error: ").strip()
        return FailureKind.QUOTA if limited else FailureKind.USER_ERROR, reason


def _fact(word: str, reason: str = "", start: str = "", exit_code: int | None = None) -> Fact | None:
    """Returns what Slurm's word for a job's state means, with its reason and (expected) start."""
    if word not in _STATES:
        return None
    state, failure = _STATES[word]
    again = reason in ("None", "BeginTime") or "requeued" in reason.lower()
    requeued = word.startswith(("REQUEUE", "SPECIAL")) or (word == "PENDING" and again)
    held = reason.lower().replace("_", " ").startswith(_HELD_BY_SLURM)
    stuck = None
    if word == "PENDING" and reason in _HOPELESS:
        stuck = FailureKind.QUOTA
    elif word == "PENDING" and held:
        stuck = FailureKind.NODE_FAILURE
    return Fact(
        JobStatus(state, exit_code, failure, _reason(word, state, reason, start)),
        may_restart=requeued or failure in _RESTARTED,
        stuck=stuck,
        held=held,
    )


def _reason(word: str, state: JobState, reason: str, start: str) -> str:
    if state is JobState.PENDING:
        expected = f", expected to start at {start}" if start not in ("", "N/A") else ""
        why = f" ({reason})" if reason not in ("", "None") else ""
        return f"Slurm: {word}{why}{expected}"
    if state is JobState.LOST:
        return "a controller that knew nothing of the job has had its node end it"
    if state.is_final and state is not JobState.SUCCEEDED:
        why = f" ({reason})" if reason not in ("", "None") else ""
        return f"Slurm: {word}{why}"
    return ""


def _exit_code(text: str) -> int | None:
    """Reads ``code:signal``."""
    code, _, number = text.partition(":")
    if not code.isdigit():
        return None
    return 128 + int(number) if number.isdigit() and int(number) else int(code)
