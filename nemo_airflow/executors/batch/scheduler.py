"""What one batch scheduler is to the driver of all: the commands to run there, and how their answers read. Pure."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Collection, Sequence
from typing import ClassVar

from nemo_airflow.executors.batch.probe import Probe
from nemo_airflow.executors.seen import Fact
from nemo_airflow.job import FailureKind, JobState


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a scheduler says of one job.

    Attributes:
        id: The job's id.
        name: The job's name, which ends with its key.
        word: The scheduler's own word for the job's state.
        fact: What that means; None for a word that this release does not know.
    """

    id: str
    name: str
    word: str
    fact: Fact | None

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended, for good or to be started again."""
        return self.fact is not None and self.fact.status.state.is_final

    @property
    def waits(self) -> bool:
        """Whether the job is queued."""
        return self.fact is not None and self.fact.status.state is JobState.PENDING


class Scheduler(abc.ABC):
    """A batch scheduler: text in, facts out, no I/O. Commands are POSIX shell, run in the user's home unless said.

    Attributes:
        kind: Names the back-end in handles.
        title: What people call it.
        id_of_answer: A ``sed`` expression that makes the job's id of what :meth:`submit` prints.
        transient: What commands say, in lower case, when the scheduler is away or overloaded.
        signals: Whether :meth:`terminate` reaches the runner; else the start script has to watch for the mark of a
            cancelled job (:func:`nemo_airflow.executors.host.folders.watch_for_cancel`).
    """

    kind: ClassVar[str]
    title: ClassVar[str]
    id_of_answer: ClassVar[str] = ""
    transient: ClassVar[Sequence[str]] = ()
    signals: ClassVar[bool] = True

    @abc.abstractmethod
    def submit(self, name: str) -> str:
        """Returns the command that submits ``start.sh`` of the current folder under a name, and prints the job's id."""

    def enter(self, job_id: str, script: str, *, has_terminal: bool) -> str:
        """Returns the command that runs a script beside a running job, on the first of its nodes; empty if none does.

        Args:
            job_id: The job.
            script: The script, POSIX shell.
            has_terminal: Whether a terminal is there that the script is to have.
        """
        return ""

    @abc.abstractmethod
    def list_named(self, name: str) -> str:
        """Returns a command that prints the ids of this user's jobs of a name, one a line, the first submitted first.

        It closes the window in which a job was accepted and the answer was lost.
        """

    @abc.abstractmethod
    def list_queue(self) -> str:
        """Returns one command that prints all of this user's jobs; it fails where the scheduler does not answer."""

    @abc.abstractmethod
    def parse_queue(self, text: str) -> dict[str, Entry]:
        """Reads what that printed, by job id.

        Raises:
            ValueError: It is cut off, or no answer.
        """

    def list_history(self, ids: Collection[str], since: float) -> str:
        """Returns a command that prints what the accounting has of jobs; empty for a scheduler without one.

        Args:
            ids: The jobs.
            since: When the first of them was submitted, in seconds since the epoch by the host's clock.
        """
        return ""

    def parse_history(self, text: str) -> dict[str, Entry]:
        """Reads what that printed, by job id."""
        return {}

    def has_no_accounting(self, code: int, complaint: str) -> bool:
        """Returns whether that command failed because this site keeps no accounts."""
        return False

    @abc.abstractmethod
    def withdraw(self, ids: Sequence[str]) -> str:
        """Returns a command that takes jobs out of the queue, if they still wait there."""

    def terminate(self, ids: Sequence[str]) -> str:
        """Returns a command that sends SIGTERM to the runners of jobs, and to nothing else."""
        return "true"

    @abc.abstractmethod
    def kill(self, entry: Entry) -> str:
        """Returns a command that ends a running job for good, unless its id is another's by then."""

    def probes(self) -> Sequence[Probe]:
        """Returns what to try where one wants to know whether jobs can run; each submits nothing."""
        return ()

    def is_transient(self, complaint: str) -> bool:
        """Returns whether a command failed for a reason that passes: the scheduler away, or overloaded."""
        return any(words in complaint.lower() for words in self.transient)

    def explain_refusal(self, complaint: str) -> tuple[FailureKind, str]:
        """Returns why the scheduler refused a job: the kind of failure, and its own words in one line."""
        lines = [line.strip() for line in complaint.splitlines() if line.strip()]
        return FailureKind.USER_ERROR, lines[-1] if lines else ""
