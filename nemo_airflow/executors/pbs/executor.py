"""Where and with what a job runs on a PBS cluster: data, and the job script that follows from it."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.fields import is_deferred, known_mapping, refuse
from nemo_airflow.executors.host import folders
from nemo_airflow.job import Job

_SLACK = 60.0
"""Seconds that PBS's limit leaves the runner to end the job by itself, and to say so."""

_STREAM = "the job's stream is read from its own log"
_ONCE = "it would undo that a job is submitted once"

_REFUSED = {
    **dict.fromkeys(("o", "e", "j", "k"), _STREAM),
    **dict.fromkeys(("J", "I", "X", "z", "f"), _ONCE),
    "N": "use job_name_prefix", "W": "use dependencies", "r": "use requeue", "S": "the script is bash",
    "v": "use env", "V": "use env", "l": "use select and resources", "q": "use queue",
}  # fmt: skip
"""Options of qsub that must stay as they are, and what to use instead."""

_NAME = re.compile(r"[A-Za-z][\w.+-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PBSExecutor(Executor):
    """Submits a job with ``qsub`` to OpenPBS or PBS Professional.

    Attributes:
        ssh_conn_id: Id of an Airflow connection of type ``ssh`` to a login node, whose host key is checked; None where
            Airflow itself runs on one.
        root: Folder on the cluster's shared disk for packages and jobs; ``~`` is the user's home.
        python: The job's interpreter, Python 3.9 or newer.
        setup_lines: Shell lines at the start of the job script, run by bash. One that fails fails the job; one that may
            fail ends with ``|| true``.
        queue: Queue, as ``qsub -q`` takes it.
        account: Account, as ``qsub -A`` takes it.
        project: Project, as ``qsub -P`` takes it.
        ncpus: Processors of the job's host.
        gpus_per_node: GPUs of it.
        mem: Its memory, for example ``16gb``.
        select: Further resources of it, as ``qsub -l select`` takes them: ``{"host": "node7"}``.
        resources: Resources of the whole job, as ``qsub -l`` takes them: ``{"place": "excl"}``.
        ntasks_per_node: Processes, where a launcher starts them; one for each GPU when None, else one.
        requeue: Whether PBS may start the job again when its host is lost.
        dependencies: Ids of jobs to wait for.
        dependency_type: How: ``afterok``, ``afterany``, ``afternotok``, ``after``.
        additional_parameters: Further options of ``qsub``, by their letter; ``True`` for one without a value.
        job_name_prefix: Stands before the job's key in the job's name, which has to begin with a letter.
        ttl: Seconds for which an ended job's folder is kept after the last file was written to it; None to keep it
            until it is removed.
    """

    kind: ClassVar[str] = "pbs"

    ssh_conn_id: str | None = "ssh_default"
    root: str = "~/.nemo_airflow"
    python: str = "python3"
    setup_lines: str | None = None
    queue: str | None = None
    account: str | None = None
    project: str | None = None
    ncpus: int | None = None
    gpus_per_node: int | None = None
    mem: str | None = None
    select: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ntasks_per_node: int | None = None
    requeue: bool = True
    dependencies: Sequence[str] = ()
    dependency_type: str = "afterok"
    additional_parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    job_name_prefix: str = "nemo-"
    ttl: float | None = 86400.0

    def __post_init__(self) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        super().__post_init__()
        names = [name.lstrip("-") for name in known_mapping(self.additional_parameters) if not is_deferred(name)]
        refuse("PBSExecutor", names, _REFUSED, "additional_parameters")
        prefix = self.job_name_prefix
        if not is_deferred(prefix) and not _NAME.fullmatch(prefix):
            raise ExecutorArgumentError(
                f"PBSExecutor: job_name_prefix={prefix!r}: a letter first, then letters, digits and . _ + - only: "
                "qselect could not find the job by its name"
            )

    @property
    def zstd_mark(self) -> str:
        """See :attr:`Executor.zstd_mark`: the interpreter, the lines before it, and which hosts it may be on."""
        return folders.zstd_mark(self.python, self.setup_lines, self.queue)

    @property
    def processes_per_node(self) -> int:
        """See :attr:`Executor.processes_per_node`: one for each GPU."""
        return self.ntasks_per_node or self.gpus_per_node or 1

    def render(self, job: Job) -> Request:
        """Returns the job script, and the other files of the job's folder.

        Raises:
            ExecutorArgumentError: A parameter cannot stand in one.
        """
        job = self.prepare(job)
        lines = [
            "#!/bin/bash",
            *(f"#PBS {option}" for option in self._options(job)),
            "",
            'cd "$PBS_O_WORKDIR" || exit 1',
            "# PBS would keep what is written to itself until the job has ended.",
            "exec >>log 2>&1",
            f"export NEMO_AIRFLOW_KEY={job.key}",
            "# When its host is lost PBS starts this job again, under the same id.",
            'export NEMO_AIRFLOW_OWNER="pbs:$PBS_JOBID"',
        ]
        start = folders.start_lines(self.setup_lines, self.python, self.zstd_mark)
        return Request(
            key=job.key,
            kind=self.kind,
            payload={
                "host": self.ssh_conn_id,
                "folder": f"{self.root}/jobs/{job.key}",
                "run": f"qsub {folders.START}",
                "name": f"{self.job_name_prefix}{job.key}",
            },
            files={
                **folders.job_files(job, "\n".join(lines) + "\n" + folders.watch_for_cancel(start), self.ttl),
                "grace": f"{self.grace:.0f}\n",
            },
            package=job.package,
        )

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder of one cluster."""
        return (self.kind, self.ssh_conn_id, self.root)

    def connect(self) -> Driver:
        """Returns a driver; it connects when first used."""
        from nemo_airflow.executors.batch.driver import BatchDriver
        from nemo_airflow.executors.pbs.scheduler import PBS

        return BatchDriver(PBS(), self.ssh_conn_id, self.root)

    def _options(self, job: Job) -> Iterator[str]:
        yield f"-N {self.job_name_prefix}{job.key}"
        yield "-S /bin/bash"
        yield "-j oe"
        yield "-o pbs.out"
        yield f"-r {'y' if self.requeue else 'n'}"
        chunk = {"ncpus": self.ncpus, "ngpus": self.gpus_per_node, "mem": self.mem, **self.select}
        yield f"-l select=1{''.join(f':{_pair(*each)}' for each in chunk.items() if each[1] is not None)}"
        limit = None if job.time_limit is None else math.ceil(job.time_limit + job.grace + _SLACK)
        for each in {"walltime": limit, **self.resources}.items():
            if each[1] is not None:
                yield f"-l {_pair(*each)}"
        if self.dependencies:
            yield f"-W depend={_checked(self.dependency_type)}:{':'.join(map(_checked, self.dependencies))}"
        for option, value in (("q", self.queue), ("A", self.account), ("P", self.project)):
            if value is not None:
                yield f"-{option} {_checked(value)}"
        for option, value in self.additional_parameters.items():
            yield f"-{_checked(option.lstrip('-'))}" + ("" if value is True else f" {_checked(value)}")


def _pair(name: str, value: object) -> str:
    return f"{_checked(name)}={_checked(value)}"


def _checked(value: object) -> str:
    """Returns a value as it can stand on a line of options without quotes."""
    text = str(value)
    if not text or re.search(r"[\s\x00-\x1f\x7f'\"\\]", text):
        raise ExecutorArgumentError(
            f"PBSExecutor: {text!r} has a space, a quote, a backslash or nothing: no option of qsub can have it"
        )
    return text
