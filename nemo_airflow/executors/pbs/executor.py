"""Where and with what a job runs on a PBS cluster: data, and the job script that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from nemo_airflow.executors.batch.executor import BatchExecutor, seconds_allowed
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.pbs.scheduler import PBS
from nemo_airflow.job import Job

_STREAM = "the job's stream is read from its own log"
_ONCE = "it would undo that a job is submitted once"

_REFUSED = {
    **dict.fromkeys(("o", "e", "j", "k"), _STREAM),
    **dict.fromkeys(("J", "I", "X", "z", "f"), _ONCE),
    "N": "use job_name_prefix", "W": "use dependencies", "r": "use requeue", "S": "the script is bash",
    "v": "use env", "V": "use env", "l": "use select and resources", "q": "use queue",
}  # fmt: skip
"""Options of qsub that must stay as they are, and what to use instead."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PBSExecutor(BatchExecutor):
    """Submits a job with ``qsub`` to OpenPBS or PBS Professional.

    Attributes:
        queue: Queue, as ``qsub -q`` takes it.
        account: Account, as ``qsub -A`` takes it.
        project: Project, as ``qsub -P`` takes it.
        ncpus: Processors of the job's host.
        mem: Its memory, for example ``16gb``.
        select: Further resources of it, as ``qsub -l select`` takes them: ``{"host": "node7"}``.
        resources: Resources of the whole job, as ``qsub -l`` takes them: ``{"place": "excl"}``.
        dependency_type: How: ``afterok``, ``afterany``, ``afternotok``, ``after``.
    """

    kind: ClassVar[str] = "pbs"

    queue: str | None = None
    account: str | None = None
    project: str | None = None
    ncpus: int | None = None
    mem: str | None = None
    select: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dependency_type: str = "afterok"

    def __post_init__(self) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        super().__post_init__()
        self._refuse_parameters(_REFUSED)
        self._check_prefix()

    @property
    def placement(self) -> tuple[str | None, ...]:
        """See :attr:`BatchExecutor.placement`."""
        return (self.queue,)

    def scheduler(self) -> PBS:
        """See :meth:`BatchExecutor.scheduler`."""
        return PBS()

    def script(self, job: Job) -> str:
        """See :meth:`BatchExecutor.script`."""
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
        return "\n".join(lines) + "\n" + folders.watch_for_cancel(start)

    def _options(self, job: Job) -> Iterator[str]:
        yield f"-N {self.job_name(job)}"
        yield "-S /bin/bash"
        yield "-j oe"
        yield "-o pbs.out"
        yield f"-r {'y' if self.requeue else 'n'}"
        chunk = {"ncpus": self.ncpus, "ngpus": self.gpus_per_node, "mem": self.mem, **self.select}
        yield f"-l select=1{''.join(f':{self._pair(*each)}' for each in chunk.items() if each[1] is not None)}"
        for each in {"walltime": seconds_allowed(job), **self.resources}.items():
            if each[1] is not None:
                yield f"-l {self._pair(*each)}"
        if self.dependencies:
            yield f"-W depend={self._word(self.dependency_type)}:{':'.join(map(self._word, self.dependencies))}"
        for option, value in (("q", self.queue), ("A", self.account), ("P", self.project)):
            if value is not None:
                yield f"-{option} {self._word(value)}"
        for option, value in self.additional_parameters.items():
            yield f"-{self._word(option.lstrip('-'))}" + ("" if value is True else f" {self._word(value)}")
