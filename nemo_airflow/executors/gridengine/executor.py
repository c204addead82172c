"""Where and with what a job runs on a Grid Engine cluster: data, and the job script that follows from it."""

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
"""Seconds that Grid Engine's limit leaves the runner to end the job by itself, and to say so."""

_STREAM = "the job's stream is read from its own log"
_ONCE = "it would undo that a job is submitted once"

_REFUSED = {
    **dict.fromkeys(("o", "e", "j"), _STREAM),
    **dict.fromkeys(("t", "sync", "terse", "verify", "now", "b", "inherit"), _ONCE),
    "N": "use job_name_prefix", "hold_jid": "use dependencies", "cwd": "the job's folder is found from there",
    "wd": "the job's folder is found from there", "r": "use requeue", "S": "the script is bash", "notify": "use notify",
    "v": "use env", "V": "use env", "pe": "use pe and slots", "q": "use queue",
}  # fmt: skip
"""Options of qsub that must stay as they are, and what to use instead."""

_NAME = re.compile(r"[A-Za-z_][\w.+-]*", re.ASCII)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridEngineExecutor(Executor):
    """Submits a job with ``qsub`` to a Grid Engine: Sun's, Son of, Univa, Altair, Open Cluster Scheduler.

    Attributes:
        ssh_conn_id: Id of an Airflow connection of type ``ssh`` to a submit host, whose host key is checked; None where
            Airflow itself runs on one.
        settings: Path on that host of the cell's ``settings.sh``, which is sourced before each command; None where
            every login, also one that is not interactive, has ``SGE_ROOT`` and the commands.
        root: Folder on the cluster's shared disk for packages and jobs; ``~`` is the user's home.
        python: The job's interpreter, Python 3.9 or newer.
        setup_lines: Shell lines at the start of the job script, run by bash. One that fails fails the job; one that may
            fail ends with ``|| true``.
        queue: Queue, as ``qsub -q`` takes it.
        project: Project, as ``qsub -P`` takes it.
        priority: As ``qsub -p`` takes it; users may only lower it.
        pe: Name of a parallel environment of the site, for a job of several slots on one host.
        slots: How many slots of it.
        ntasks_per_node: Processes, where a launcher starts them; the slots when None.
        h_vmem: Memory of each slot, for example ``4G``: an ``ulimit``.
        resources: Further resources, of each slot, as ``qsub -l`` takes them: ``{"gpu": 1}``.
        requeue: Whether Grid Engine may start the job again when its host is lost.
        notify: Whether Grid Engine warns all processes of the job with SIGUSR1 before it suspends it, and SIGUSR2
            before it kills it; those without a handler go on. A handler may be called twice.
        dependencies: Ids or names of jobs that have to end first, in whatever way.
        verify: Whether to refuse at once what no queue could ever run; else it waits for ever.
        additional_parameters: Further options of ``qsub``, by name without the dash; ``True`` for one without a value.
        job_name_prefix: Stands before the job's key in the job's name, which has to begin with a letter.
        ttl: Seconds for which an ended job's folder is kept after the last file was written to it; None to keep it
            until it is removed.
    """

    kind: ClassVar[str] = "gridengine"

    ssh_conn_id: str | None = "ssh_default"
    settings: str | None = None
    root: str = "~/.nemo_airflow"
    python: str = "python3"
    setup_lines: str | None = None
    queue: str | None = None
    project: str | None = None
    priority: int | None = None
    pe: str | None = None
    slots: int = 1
    ntasks_per_node: int | None = None
    h_vmem: str | None = None
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    requeue: bool = True
    notify: bool = False
    dependencies: Sequence[str] = ()
    verify: bool = True
    additional_parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    job_name_prefix: str = "nemo-"
    ttl: float | None = 86400.0

    def __post_init__(self) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        super().__post_init__()
        names = [name.lstrip("-") for name in known_mapping(self.additional_parameters) if not is_deferred(name)]
        refuse("GridEngineExecutor", names, _REFUSED, "additional_parameters")
        prefix = self.job_name_prefix
        if not is_deferred(prefix) and not _NAME.fullmatch(prefix):
            raise ExecutorArgumentError(
                f"GridEngineExecutor: job_name_prefix={prefix!r}: a letter first, then letters, digits and . _ + - "
                "only: qstat could not find the job by its name"
            )
        if not is_deferred(self.slots) and self.slots != 1 and self.pe is None:
            raise ExecutorArgumentError(
                f"GridEngineExecutor: slots={self.slots} needs pe, the name of a parallel environment: qconf -spl "
                "lists them"
            )

    @property
    def zstd_mark(self) -> str:
        """See :attr:`Executor.zstd_mark`: the interpreter, the lines before it, and which hosts it may be on."""
        return folders.zstd_mark(self.python, self.setup_lines, self.queue)

    @property
    def processes_per_node(self) -> int:
        """See :attr:`Executor.processes_per_node`: one for each slot."""
        return self.ntasks_per_node or self.slots

    def render(self, job: Job) -> Request:
        """Returns the job script, and the other files of the job's folder.

        Raises:
            ExecutorArgumentError: A parameter cannot stand in one.
        """
        job = self.prepare(job)
        lines = [
            "#!/bin/bash",
            *(f"#$ {option}" for option in self._options(job)),
            "",
            f"export NEMO_AIRFLOW_KEY={job.key}",
            "# When its host is lost Grid Engine starts this job again, under the same id.",
            'export NEMO_AIRFLOW_OWNER="gridengine:$JOB_ID"',
        ]
        start = folders.start_lines(self.setup_lines, self.python, self.zstd_mark)
        # Exit codes of 99 and 100 would have Grid Engine start the job again, or hold it.
        script = "\n".join(lines) + "\n" + folders.watch_for_cancel(start, {99: 1, 100: 1})
        return Request(
            key=job.key,
            kind=self.kind,
            payload={
                "host": self.ssh_conn_id,
                "folder": f"{self.root}/jobs/{job.key}",
                "run": f"qsub -terse {folders.START}",
                "name": f"{self.job_name_prefix}{job.key}",
            },
            files={**folders.job_files(job, script, self.ttl), "grace": f"{self.grace:.0f}\n"},
            package=job.package,
        )

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder of one cluster."""
        return (self.kind, self.ssh_conn_id, self.root, self.settings)

    def connect(self) -> Driver:
        """Returns a driver; it connects when first used."""
        from nemo_airflow.executors.batch.driver import BatchDriver
        from nemo_airflow.executors.gridengine.scheduler import GridEngine

        return BatchDriver(GridEngine(self.settings), self.ssh_conn_id, self.root)

    def _options(self, job: Job) -> Iterator[str]:
        name = f"{self.job_name_prefix}{job.key}"
        yield f"-N {name}"
        # Of two jobs of one name only one runs at a time; the second then finds the work taken.
        yield f"-hold_jid {','.join([name, *map(_checked, self.dependencies)])}"
        yield "-S /bin/bash"
        yield "-cwd"
        yield "-j y"
        yield "-o log"
        yield f"-r {'y' if self.requeue else 'n'}"
        if self.notify:
            yield "-notify"
        if self.verify:
            yield "-w e"
        limit = None if job.time_limit is None else math.ceil(job.time_limit + job.grace + _SLACK)
        resources = {"h_rt": limit, "h_vmem": self.h_vmem, **self.resources}
        if given := [f"{_checked(key)}={_checked(value)}" for key, value in resources.items() if value is not None]:
            yield f"-l {','.join(given)}"
        for option, value in (("q", self.queue), ("P", self.project), ("p", self.priority)):
            if value is not None:
                yield f"-{option} {_checked(value)}"
        if self.pe is not None:
            yield f"-pe {_checked(self.pe)} {self.slots}"
        for option, value in self.additional_parameters.items():
            yield f"-{_checked(option.lstrip('-'))}" + ("" if value is True else f" {_checked(value)}")


def _checked(value: object) -> str:
    """Returns a value as it can stand on a line of options, which is split at spaces whatever is quoted."""
    text = str(value)
    if not text or re.search(r"[\s\x00-\x1f\x7f'\"\\]", text):
        raise ExecutorArgumentError(
            f"GridEngineExecutor: {text!r} has a space, a quote, a backslash or nothing: no option of qsub can have it"
        )
    return text
