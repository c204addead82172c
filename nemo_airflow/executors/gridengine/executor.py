"""Where and with what a job runs on a Grid Engine cluster: data, and the job script that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.batch.executor import BatchExecutor, seconds_allowed
from nemo_airflow.executors.fields import is_deferred
from nemo_airflow.executors.gridengine.scheduler import GridEngine
from nemo_airflow.executors.host import folders
from nemo_airflow.job import Job

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridEngineExecutor(BatchExecutor):
    """Submits a job with ``qsub`` to a Grid Engine: Sun's, Son of, Univa, Altair, Open Cluster Scheduler.

    Attributes:
        settings: Path on the submit host of the cell's ``settings.sh``, which is sourced before each command; None
            where every login, also one that is not interactive, has ``SGE_ROOT`` and the commands.
        queue: Queue, as ``qsub -q`` takes it.
        project: Project, as ``qsub -P`` takes it.
        priority: As ``qsub -p`` takes it; users may only lower it.
        pe: Name of a parallel environment of the site, for a job of several slots on one host.
        slots: How many slots of it; a launcher starts as many processes where there are no GPUs.
        gpu_resource: What the site calls its GPUs, as a resource of each slot; see ``gpus_per_node``.
        h_vmem: Memory of each slot, for example ``4G``: an ``ulimit``.
        resources: Further resources, of each slot, as ``qsub -l`` takes them: ``{"gpu": 1}``.
        notify: Whether Grid Engine warns all processes of the job with SIGUSR1 before it suspends it, and SIGUSR2
            before it kills it; those without a handler go on. A handler may be called twice.
        dependencies: Ids or names of jobs that have to end first, in whatever way.
        verify: Whether to refuse at once what no queue could ever run; else it waits for ever.
    """

    kind: ClassVar[str] = "gridengine"

    settings: str | None = None
    queue: str | None = None
    project: str | None = None
    priority: int | None = None
    pe: str | None = None
    slots: int = 1
    gpu_resource: str = "gpu"
    h_vmem: str | None = None
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notify: bool = False
    verify: bool = True

    def __post_init__(self) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        super().__post_init__()
        self._refuse_parameters(_REFUSED)
        self._check_prefix()
        if not is_deferred(self.slots) and self.slots != 1 and self.pe is None:
            raise ExecutorArgumentError(
                f"GridEngineExecutor: slots={self.slots} needs pe, the name of a parallel environment: qconf -spl "
                "lists them"
            )

    @property
    def placement(self) -> tuple[str | None, ...]:
        """See :attr:`BatchExecutor.placement`."""
        return (self.queue,)

    def scheduler(self) -> GridEngine:
        """See :meth:`BatchExecutor.scheduler`."""
        return GridEngine(self.settings)

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder of one cell."""
        return (super().connection_key(), self.settings)

    @property
    def processes_per_node(self) -> int:
        """See :attr:`Executor.processes_per_node`: with a launcher one for each GPU, else one for each slot."""
        if self.ntasks_per_node is not None or self.launcher is None:
            return self.ntasks_per_node or 1
        return self.gpu_count or self.slots

    @property
    def _gpus_per_slot(self) -> int | None:
        """Grid Engine takes a request for that of each slot."""
        if self.gpu_count % self.slots:
            raise ExecutorArgumentError(
                f"GridEngineExecutor: gpus_per_node={self.gpu_count} cannot be divided among slots={self.slots}: each "
                "slot asks for the same number"
            )
        return self.gpu_count // self.slots or None

    def script(self, job: Job) -> str:
        """See :meth:`BatchExecutor.script`."""
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
        return "\n".join(lines) + "\n" + folders.watch_for_cancel(start, {99: 1, 100: 1})

    def _options(self, job: Job) -> Iterator[str]:
        name = self.job_name(job)
        yield f"-N {name}"
        # Of two jobs of one name only one runs at a time; the second then finds the work taken.
        yield f"-hold_jid {','.join([name, *map(self._word, self.dependencies)])}"
        yield "-S /bin/bash"
        yield "-cwd"
        yield "-j y"
        yield "-o log"
        yield f"-r {'y' if self.requeue else 'n'}"
        if self.notify:
            yield "-notify"
        if self.verify:
            yield "-w e"
        resources = {
            "h_rt": seconds_allowed(job),
            "h_vmem": self.h_vmem,
            self.gpu_resource: self._gpus_per_slot,
            **self.resources,
        }
        if given := [self._pair(key, value) for key, value in resources.items() if value is not None]:
            yield f"-l {','.join(given)}"
        for option, value in (("q", self.queue), ("P", self.project), ("p", self.priority)):
            if value is not None:
                yield f"-{option} {self._word(value)}"
        if self.pe is not None:
            yield f"-pe {self._word(self.pe)} {self.slots}"
        for option, value in self.additional_parameters.items():
            yield f"-{self._word(option.lstrip('-'))}" + ("" if value is True else f" {self._word(value)}")
