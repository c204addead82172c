"""What the executors of all batch schedulers have in common: where the commands are, and the request."""

from __future__ import annotations

import abc
import dataclasses
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.batch.scheduler import Scheduler
from nemo_airflow.executors.fields import is_deferred, known_mapping, refuse
from nemo_airflow.executors.host import folders
from nemo_airflow.job import Job

_SLACK = 60.0
"""Seconds that the scheduler's limit leaves the runner to end the job by itself, and to say so."""

_NAME = re.compile(r"[A-Za-z][\w.+-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchExecutor(Executor):
    """Submits a job to a batch scheduler whose commands run in a shell, on another machine or on this one.

    Attributes:
        ssh_conn_id: Id of an Airflow connection of type ``ssh`` to a host with the scheduler's commands, whose host key
            is checked; None where Airflow itself runs on one.
        root: Folder on the cluster's shared disk for packages and jobs; ``~`` is the user's home.
        python: The job's interpreter, Python 3.9 or newer.
        setup_lines: Shell lines at the start of the job script: ``module load`` ... One that fails fails the job; one
            that may fail ends with ``|| true``. The shell is no login shell: ``module`` may need
            ``source /etc/profile`` first.
        requeue: Whether the scheduler may start the job again: after a preemption, or when its machine is lost.
        dependencies: Jobs to wait for, by their ids.
        additional_parameters: Further options of the command that submits, by name without dashes; ``True`` for one
            without a value.
        job_name_prefix: Stands before the job's key in the job's name.
        ttl: Seconds for which an ended job's folder is kept after the last file was written to it; None to keep it
            until it is removed.
    """

    takes_secrets: ClassVar[bool] = True
    keeps_attempts_together: ClassVar[bool] = True

    ssh_conn_id: str | None = "ssh_default"
    root: str = "~/.nemo_airflow"
    python: str = "python3"
    setup_lines: str | None = None
    requeue: bool = True
    dependencies: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    job_name_prefix: str = "nemo-"
    ttl: float | None = 86400.0

    @abc.abstractmethod
    def scheduler(self) -> Scheduler:
        """Returns what is particular to the scheduler."""

    @abc.abstractmethod
    def script(self, job: Job) -> str:
        """Returns the job's start script: the scheduler's directives, then :func:`folders.start_lines`.

        Raises:
            ExecutorArgumentError: A parameter cannot stand in one.
        """

    def more_files(self, job: Job) -> Mapping[str, str]:
        """Returns further files of the job's folder."""
        return {}

    @property
    def placement(self) -> tuple[str | None, ...]:
        """What decides on which machines a job may run: those may not all read the same packages."""
        return ()

    @property
    def zstd_mark(self) -> str:
        """See :attr:`Executor.zstd_mark`: the interpreter, the lines before it, and which machines it may be on."""
        return folders.zstd_mark(self.python, self.setup_lines, *self.placement)

    def job_name(self, job: Job) -> str:
        """Returns what the scheduler calls a job."""
        return f"{self.job_name_prefix}{job.key}"

    def render(self, job: Job) -> Request:
        """Returns the job script, and the other files of the job's folder.

        Raises:
            ExecutorArgumentError: A parameter cannot stand in one.
        """
        job = self.prepare(job)
        name = self.job_name(job)
        folder = f"{self.root}/jobs/{job.key}"
        return Request(
            key=job.key,
            kind=self.kind,
            payload={"host": self.ssh_conn_id, "folder": folder, "run": self.scheduler().submit(name), "name": name},
            files={
                **folders.job_files(job, self.script(job), self.ttl),
                "grace": f"{self.grace:.0f}\n",
                **self.more_files(job),
            },
            package=job.package,
            secrets=job.secret_env,
            inputs=job.inputs,
        )

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder of one cluster."""
        return (self.kind, self.ssh_conn_id, self.root)

    def connect(self) -> Driver:
        """Returns a driver; it connects when first used."""
        from nemo_airflow.executors.batch.driver import BatchDriver

        return BatchDriver(self.scheduler(), self.ssh_conn_id, self.root)

    def _refuse_parameters(self, refused: Mapping[str, str]) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        names = [name.lstrip("-") for name in known_mapping(self.additional_parameters) if not is_deferred(name)]
        refuse(type(self).__name__, names, refused, "additional_parameters")

    def _check_prefix(self) -> None:
        """Refuses a name for which schedulers that know names by a pattern could not be asked."""
        prefix = self.job_name_prefix
        if not is_deferred(prefix) and not _NAME.fullmatch(prefix):
            raise ExecutorArgumentError(
                f"{type(self).__name__}: job_name_prefix={prefix!r} is not a letter and then letters, digits and "
                ". _ + - only: the scheduler could not find the job by its name"
            )

    def _word(self, value: object) -> str:
        """Returns a value for a line of options, which the scheduler splits at spaces even within quotes.

        Raises:
            ExecutorArgumentError: It cannot.
        """
        text = str(value)
        if not text or re.search(r"[\s\x00-\x1f\x7f'\"\\]", text):
            raise ExecutorArgumentError(
                f"{type(self).__name__}: {text!r} is empty, or has a space, a quote or a backslash: no option of the "
                "scheduler can have such a value"
            )
        return text

    def _pair(self, name: str, value: object) -> str:
        return f"{self._word(name)}={self._word(value)}"


def seconds_allowed(job: Job) -> int | None:
    """Returns after how many seconds the scheduler may end a job, which its runner ends before; None for never."""
    return None if job.time_limit is None else math.ceil(job.time_limit + job.grace + _SLACK)
