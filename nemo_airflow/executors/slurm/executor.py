"""Where and with what a job runs on a Slurm cluster: data, and the job script that follows from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.host import folders
from nemo_airflow.executors.launchers import RANK, gpus_in
from nemo_airflow.executors.slurm import script
from nemo_airflow.job import Job
from nemo_airflow.runner import array


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlurmExecutor(Executor):
    """Submits a job with ``sbatch``; the names of the parameters are those of its options.

    Attributes:
        ssh_conn_id: Id of an Airflow connection of type ``ssh`` to a login node, whose host key is checked; None where
            Airflow itself runs on one.
        root: Folder on the cluster's shared disk for packages and jobs; ``~`` is the user's home.
        python: The job's interpreter, Python 3.9 or newer.
        setup_lines: Shell lines at the start of the job script: ``module load`` ... One that fails fails the job; one
            that may fail ends with ``|| true``. The shell is no login shell: ``module`` may need
            ``source /etc/profile`` first.
        account, partition, qos, reservation, comment, constraint, exclude, nodelist, gres, signal,
            licenses, network, segment, nice: As for ``sbatch``.
        nodes: How many nodes.
        ntasks_per_node: Processes on each node. When None, one; with a launcher one for each GPU.
        cpus_per_task, cpus_per_gpu, gpus_per_node, gpus_per_task: Counts.
        mem, mem_per_cpu, mem_per_gpu: Memory as ``sbatch`` takes it, for example ``16G``.
        exclusive: Whether the nodes are shared with nobody; or ``user`` ...
        requeue: Whether Slurm starts the job again after a preemption or when a node is lost.
        heterogeneous: Further components of a heterogeneous job: each a mapping of the parameters above
            for one group of nodes.
        array: Numbers of the tasks of a job array, as ``sbatch`` takes them: ``0-7%2``. The config runs once for each,
            with the parameters above; which one it is stands in ``SLURM_ARRAY_TASK_ID``.
        dependencies: Ids of jobs to wait for.
        dependency_type: How: ``afterok``, ``afterany``, ``afternotok``, ``after``, ``aftercorr``,
            ``afterburstbuffer``.
        container_image: Image to run in, for ``container_runtime``.
        container_mounts: Mounts ``from:to``, besides the job's folders.
        container_env: Names of variables that the container takes over from the job's environment.
        container_runtime: ``pyxis`` (``srun --container-image``, with Enroot) or ``apptainer``.
        srun_args: Further arguments of ``srun``.
        additional_parameters: Further options of ``sbatch``, by name; ``True`` for one without a value.
        job_name_prefix: Stands before the job's key in the job's name.
        ttl: Seconds for which an ended job's folder is kept after the last file was written to it; None to keep it
            until it is removed.
    """

    kind: ClassVar[str] = "slurm"

    ssh_conn_id: str | None = "ssh_default"
    root: str = "~/.nemo_airflow"
    python: str = "python3"
    setup_lines: str | None = None
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    reservation: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    gres: str | None = None
    signal: str | None = None
    licenses: str | None = None
    network: str | None = None
    segment: int | None = None
    nice: int | None = None
    nodes: int = 1
    ntasks_per_node: int | None = None
    cpus_per_task: int | None = None
    cpus_per_gpu: int | None = None
    gpus_per_node: int | str | None = None
    gpus_per_task: int | str | None = None
    mem: str | None = None
    mem_per_cpu: str | None = None
    mem_per_gpu: str | None = None
    exclusive: bool | str = False
    requeue: bool = True
    heterogeneous: Sequence[Mapping[str, Any]] = ()
    array: str | None = None
    dependencies: Sequence[str] = ()
    dependency_type: str = "afterok"
    container_image: str | None = None
    container_mounts: Sequence[str] = ()
    container_env: Sequence[str] = ()
    container_runtime: str = "pyxis"
    srun_args: Sequence[str] = ()
    additional_parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    job_name_prefix: str = ""
    ttl: float | None = 86400.0

    def __post_init__(self) -> None:
        """Refuses options that would undo that a job is submitted once and followed."""
        super().__post_init__()
        script.check_options(self)

    @property
    def zstd_mark(self) -> str:
        """See :attr:`Executor.zstd_mark`: the interpreter, the lines before it, and which nodes it may be on."""
        nodes = (self.partition, self.constraint, self.nodelist, self.reservation)
        return folders.zstd_mark(self.python, self.setup_lines, *nodes)

    def render(self, job: Job) -> Request:
        """Returns the job script, and the other files of the job's folder.

        Raises:
            ExecutorArgumentError: A parameter is not one that ``sbatch`` could take.
        """
        job = self.prepare(job)
        return Request(
            key=job.key,
            kind=self.kind,
            payload={
                "host": self.ssh_conn_id,
                "folder": f"{self.root}/jobs/{job.key}",
                "run": f"sbatch --parsable {folders.START}",
                "name": f"{self.job_name_prefix}{job.key}",
            },
            files={
                **folders.job_files(job, script.render(self, job), self.ttl),
                "grace": f"{self.grace:.0f}\n",
                **({array.SCRIPT: script.render_array(self, job)} if self.array is not None else {}),
            },
            package=job.package,
        )

    @property
    def processes_per_node(self) -> int:
        """See :attr:`Executor.processes_per_node`: one for each GPU of a node, where a launcher starts them."""
        if self.ntasks_per_node is not None or self.launcher is None:
            return self.ntasks_per_node or 1
        of_gres = [part for part in (self.gres or "").split(",") if part.removeprefix("gres/").startswith("gpu")]
        return gpus_in(self.gpus_per_node) or gpus_in(",".join(of_gres)) or 1

    def launch(self) -> tuple[str, ...]:
        """Returns the command that starts the job's processes; empty where the runner itself is the one."""
        if self.array is not None:
            return ("{python}", "{runner}", "--array", self._checked_array(), "{folder}")
        return self.step()

    def _checked_array(self) -> str:
        if self.nodes * self.processes_per_node > 1 or self.launcher is not None or self.heterogeneous:
            raise ExecutorArgumentError(
                "each task of an array is one process: nodes, ntasks_per_node, launcher, heterogeneous"
            )
        try:
            array.numbers(str(self.array))
        except ValueError as error:
            raise ExecutorArgumentError(f"array: {error}") from None
        return str(self.array)

    def step(self) -> tuple[str, ...]:
        """Returns the command that starts the processes of one allocation; empty where one needs no such command."""
        tasks = self.nodes * self.processes_per_node
        contained = self.container_image is not None
        if tasks == 1 and not contained and self.launcher is None and not self.heterogeneous:
            return ()
        python = self.python if contained else "{python}"
        if self.launcher is not None:
            # The launcher starts the processes of a node, and Slurm one launcher on each node.
            command = self.launcher.command(self.processes_per_node)
            step = [f"--ntasks={self.nodes}", "--ntasks-per-node=1"]
        else:
            command = ("{python}", *RANK)
            step = [f"--ntasks={tasks}", f"--ntasks-per-node={self.processes_per_node}"]
        if self.heterogeneous:
            step = [f"--het-group=0-{len(self.heterogeneous)}"]
        # Unbuffered, srun passes on each piece that it reads: of several tasks it would tear the lines apart.
        step.append("--label" if tasks > 1 or self.heterogeneous else "--unbuffered")
        inner = tuple(part.replace("{python}", python) for part in command)
        return ("srun", "--kill-on-bad-exit=1", *step, *self._contained(inner))

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

    def connection_key(self) -> Hashable:
        """One driver for all jobs under one folder of one cluster."""
        return (self.kind, self.ssh_conn_id, self.root)

    def connect(self) -> Driver:
        """Returns a driver; it connects when first used."""
        from nemo_airflow.executors.batch.driver import BatchDriver
        from nemo_airflow.executors.slurm.scheduler import Slurm

        return BatchDriver(Slurm(), self.ssh_conn_id, self.root)
