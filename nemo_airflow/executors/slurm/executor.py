"""Where and with what a job runs on a Slurm cluster: data, and the job script that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.batch.executor import BatchExecutor
from nemo_airflow.executors.launchers import RANK, gpus_in
from nemo_airflow.executors.slurm import script
from nemo_airflow.executors.slurm.scheduler import Slurm
from nemo_airflow.job import Job
from nemo_airflow.runner import array


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmExecutor(BatchExecutor):
    """Submits a job with ``sbatch``; the names of the parameters are those of its options.

    Attributes:
        account, partition, qos, reservation, comment, constraint, prefer, exclude, nodelist, gres, gpu_bind, signal,
            licenses, network, segment, switches, nice, begin, deadline, time_min, mail_type, mail_user,
            oversubscribe: As for ``sbatch``.
        gpus_per_node: GPUs of each node, as ``sbatch`` takes them: ``8``, ``a100:4``.
        cpus_per_task, cpus_per_gpu, gpus_per_task: Counts.
        mem, mem_per_cpu, mem_per_gpu: Memory as ``sbatch`` takes it, for example ``16G``.
        exclusive: Whether the nodes are shared with nobody; or ``user`` ...
        requeue: Whether Slurm starts the job again after a preemption or when a node is lost.
        heterogeneous: Further components of a heterogeneous job: each a mapping of the parameters above
            for one group of nodes.
        array: Numbers of the tasks of a job array, as ``sbatch`` takes them: ``0-7%2``. The config runs once for each,
            with the parameters above; which one it is stands in ``SLURM_ARRAY_TASK_ID``.
        dependency_type: How: ``afterok``, ``afterany``, ``afternotok``, ``after``, ``aftercorr``,
            ``afterburstbuffer``.
        container_image: Image to run in, for ``container_runtime``.
        container_mounts: Mounts ``from:to``, besides the job's folders.
        container_env: Names of variables that the container takes over from the job's environment.
        container_runtime: ``pyxis`` (``srun --container-image``, with Enroot) or ``apptainer``.
        srun_args: Further arguments of ``srun``.
    """

    kind: ClassVar[str] = "slurm"
    spans_nodes: ClassVar[bool] = True

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    reservation: str | None = None
    comment: str | None = None
    constraint: str | None = None
    prefer: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    gres: str | None = None
    gpu_bind: str | None = None
    signal: str | None = None
    licenses: str | None = None
    network: str | None = None
    segment: int | None = None
    switches: str | None = None
    nice: int | None = None
    begin: str | None = None
    deadline: str | None = None
    time_min: str | None = None
    mail_type: str | None = None
    mail_user: str | None = None
    oversubscribe: bool = False
    cpus_per_task: int | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | str | None = None
    mem: str | None = None
    mem_per_cpu: str | None = None
    mem_per_gpu: str | None = None
    exclusive: bool | str = False
    heterogeneous: Sequence[Mapping[str, Any]] = ()
    array: str | None = None
    dependency_type: str = "afterok"
    container_image: str | None = None
    container_mounts: Sequence[str] = ()
    container_env: Sequence[str] = ()
    container_runtime: str = "pyxis"
    srun_args: Sequence[str] = ()
    job_name_prefix: str = ""

    def __post_init__(self) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        super().__post_init__()
        script.check_options(self)

    @property
    def placement(self) -> tuple[str | None, ...]:
        """See :attr:`BatchExecutor.placement`."""
        return (self.partition, self.constraint, self.nodelist, self.reservation)

    def scheduler(self) -> Slurm:
        """See :meth:`BatchExecutor.scheduler`."""
        return Slurm()

    def script(self, job: Job) -> str:
        """See :meth:`BatchExecutor.script`."""
        return script.render(self, job)

    def more_files(self, job: Job) -> Mapping[str, str]:
        """See :meth:`BatchExecutor.more_files`: the script of the array that the job starts."""
        return {array.SCRIPT: script.render_array(self, job)} if self.array is not None else {}

    @property
    def gpu_count(self) -> int:
        """See :attr:`Executor.gpu_count`; of ``gpus_per_node``, else of ``gres``."""
        of_gres = [part for part in (self.gres or "").split(",") if part.removeprefix("gres/").startswith("gpu")]
        return gpus_in(self.gpus_per_node) or gpus_in(",".join(of_gres))

    def launch(self) -> tuple[str, ...]:
        """Returns the command that starts the job's processes; empty where the runner itself is the one."""
        if self.array is not None:
            return ("{python}", "{runner}", "--array", self._checked_array(), "{folder}")
        return self.step()

    def _checked_array(self) -> str:
        if self.nodes * self.processes_per_node > 1 or self.launcher is not None or self.heterogeneous:
            raise ExecutorArgumentError(
                "each task of an array is one process: leave out nodes, ntasks_per_node, launcher and heterogeneous"
            )
        try:
            array.numbers(str(self.array))
        except ValueError as error:
            raise ExecutorArgumentError(f"array: {error}") from None
        return str(self.array)

    @property
    def starts_a_launcher(self) -> bool:
        """Whether Slurm starts one launcher on each node, and not the processes themselves."""
        return self.launcher is not None and self.launcher.srun_options is None

    def step(self) -> tuple[str, ...]:
        """Returns the command that starts the processes of one allocation; empty where one needs no such command."""
        tasks = self.nodes * self.processes_per_node
        contained = self.container_image is not None
        if tasks == 1 and not contained and self.launcher is None and not self.heterogeneous:
            return ()
        python = self.python if contained else "{python}"
        if self.starts_a_launcher:
            # The launcher starts the processes of a node, and Slurm one launcher on each node.
            command = self.launcher.command(self.processes_per_node) if self.launcher else ()
            step = [f"--ntasks={self.nodes}", "--ntasks-per-node=1"]
        else:
            command = ("{python}", *RANK)
            step = [f"--ntasks={tasks}", f"--ntasks-per-node={self.processes_per_node}"]
            if self.launcher is not None:
                command = self.launcher.profiled(command)
                step += self.launcher.srun_options or ()
        if self.heterogeneous:
            step = [f"--het-group=0-{len(self.heterogeneous)}"]
        # Unbuffered, srun passes on each piece that it reads: of several tasks it would tear the lines apart.
        step.append("--label" if tasks > 1 or self.heterogeneous else "--unbuffered")
        inner = tuple(part.replace("{python}", python) for part in command)
        return ("srun", "--kill-on-bad-exit=1", *step, *self._contained(inner))

    def rank_label(self, rank: int) -> str | None:
        """See :attr:`Executor.rank_label`: of all machines, where ``srun`` itself starts the processes."""
        if self.launcher is None or self.launcher.srun_options is not None:
            return rf" *{rank}: "
        return None if self.nodes > 1 else super().rank_label(rank)

    def _contained(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the rest of srun's command line: the container's options, and the command in it."""
        extra = tuple(self.srun_args)
        if self.container_image is None:
            return (*extra, *command)
        # The package, the runner and the job are all under the root.
        mounts = ("{folder}/../..:{folder}/../..", *self.container_mounts)
        if self.container_runtime == "pyxis":
            env = (f"--container-env={','.join(self.container_env)}",) if self.container_env else ()
            options = (
                f"--container-image={self.container_image}", f"--container-mounts={','.join(mounts)}",
                "--container-workdir={folder}/work", *env,
            )  # fmt: skip
            return (*options, *extra, *command)
        if self.container_runtime == "apptainer":
            binds = tuple(part for mount in mounts for part in ("--bind", mount))
            gpus = ("--nv",) if self.gpus_per_node or self.gpus_per_task or self.gres else ()
            inside = ("apptainer", "exec", *gpus, *binds, "--pwd", "{folder}/work", self.container_image)
            return (*extra, *inside, *command)
        raise ExecutorArgumentError(
            f"container_runtime={self.container_runtime!r} is not known: it is 'pyxis' or 'apptainer'"
        )
