"""How a job of several processes is started on each of its machines.

A launcher turns into a command line for the runner, which fills its placeholders where the job runs:
see :func:`nemo_airflow.runner.launch_command.command`.
"""

from __future__ import annotations

import abc
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.runner.launch_command import literal

RANK = ("{runner}", "--rank", "{folder}")
"""What runs the job's config as one process of several, after the interpreter."""


OWN_TEMPLATE = "a template that is not Airflow's"
"""In the annotation of a field: its text is a template that is rendered later, and stays as it is before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launcher(abc.ABC):
    """Starts the processes of one machine, and ends when they have ended.

    With ``nsys_profile`` all that is done by NVIDIA Nsight Systems, which has to be there; what it records is among the
    job's outputs. The names are NeMo-Run's.

    Attributes:
        nsys_profile: Whether to profile the job.
        nsys_folder: Folder for the profiles, in the outputs.
        nsys_trace: What to trace.
        nsys_gpu_metrics: Whether to sample the metrics of all GPUs of a machine too.
        nsys_extra_args: Further arguments of ``nsys profile``. As they are, it records what the job's code puts between
            ``cudaProfilerStart`` and ``cudaProfilerStop``.
    """

    kind: ClassVar[str]
    """Names the launcher in its JSON form and in the entry-point group ``nemo_airflow.launchers``."""

    nsys_profile: bool = False
    nsys_folder: str = "nsys_profile"
    nsys_trace: Sequence[str] = ("nvtx", "cuda")
    nsys_gpu_metrics: bool = False
    nsys_extra_args: Sequence[str] = (
        "--capture-range=cudaProfilerApi",
        "--capture-range-end=stop",
        "--cuda-graph-trace=node",
    )

    @abc.abstractmethod
    def start(self, processes: int) -> tuple[str, ...]:
        """Returns the command line that starts the processes, with placeholders.

        Args:
            processes: How many processes each machine gets; see :attr:`Executor.processes_per_node`.

        Raises:
            ExecutorArgumentError: It cannot start them.
        """

    @property
    def srun_options(self) -> tuple[str, ...] | None:
        """Options with which ``srun`` itself starts the processes; None where it starts this launcher on each node."""
        return None

    def command(self, processes: int) -> tuple[str, ...]:
        """Returns :meth:`start`, profiled if it is to be."""
        return self.profiled(self.start(processes))

    def profiled(self, command: tuple[str, ...]) -> tuple[str, ...]:
        """Returns a command, behind that of the profiler if the job is to be profiled."""
        if not self.nsys_profile:
            return command
        folder = f"{{folder}}/outputs/{literal(self.nsys_folder)}"
        metrics = ("--gpu-metrics-devices=all",) if self.nsys_gpu_metrics else ()
        return (
            "sh", "-c", 'mkdir -p "$0" && exec "$@"', folder,
            "nsys", "profile", "--sample=none", f"--trace={','.join(self.nsys_trace)}",
            f"--output={folder}/profile_%h_%p", "--force-overwrite=true", *metrics,
            *map(literal, self.nsys_extra_args), *command,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Returns the launcher as plain JSON types, with its ``kind``."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Torchrun(Launcher):
    """Starts the processes by ``torchrun``, which lets those of all machines find each other.

    Attributes:
        nproc_per_node: Processes on each machine. When None, as many as the executor's ``ntasks_per_node`` says;
            when that is None too, one for each GPU that the executor asks for.
        rdzv_backend: Torch's rendezvous back-end.
        rdzv_port: Port on the first machine; one that follows from the job's key when None.
        max_restarts: How often all processes are started again after one has failed.
        args: Further arguments of ``torchrun``.
    """

    kind: ClassVar[str] = "torchrun"
    _module: ClassVar[str] = "torch.distributed.run"

    nproc_per_node: int | None = None
    rdzv_backend: str = "c10d"
    rdzv_port: int | None = None
    max_restarts: int = 0
    args: Sequence[str] = ()

    def start(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.start`."""
        return (
            *_UNWARNED, "{python}", "-m", self._module,
            "--nnodes={nodes}",
            f"--nproc-per-node={self.nproc_per_node or processes}",
            "--rdzv-id={key}",
            f"--rdzv-backend={self.rdzv_backend}",
            f"--rdzv-endpoint={{head}}:{self.rdzv_port or '{port}'}",
            f"--max-restarts={self.max_restarts}",
            # Else it leaves a folder in /tmp.
            "--log-dir={folder}/torchrun",
            *self._own_args,
            *map(literal, self.args),
            *RANK,
        )  # fmt: skip

    @property
    def _own_args(self) -> tuple[str, ...]:
        return ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaultTolerance(Torchrun):
    """Starts the processes by ``ft_launcher`` of NVIDIA's ``nvidia-resiliency-ext``.

    It is ``torchrun``, and starts processes again too that no longer say that they live. The job's code has to say so,
    by ``nvidia_resiliency_ext.fault_tolerance.RankMonitorClient`` or a framework that does. What is None is as in the
    configuration file, else as ``ft_launcher`` has it. With ``max_restarts=0`` a job that hangs is only ended.

    Attributes:
        cfg_path: Path of a configuration file where the job runs.
        workload_check_interval: Seconds between two checks.
        initial_rank_heartbeat_timeout: Seconds in which the first sign of life has to come.
        rank_heartbeat_timeout: Seconds between two signs.
        rank_termination_signal: What ends a process that hangs: ``SIGKILL`` ...
        log_level: ``DEBUG``, ``INFO`` ...
        restart_policy: ``any-failed`` or ``min-healthy``.
    """

    kind: ClassVar[str] = "ft"
    _module: ClassVar[str] = "nvidia_resiliency_ext.fault_tolerance.launcher"

    cfg_path: str | None = None
    workload_check_interval: float | None = None
    initial_rank_heartbeat_timeout: float | None = None
    rank_heartbeat_timeout: float | None = None
    rank_termination_signal: str | None = None
    log_level: str | None = None
    restart_policy: str | None = None

    @property
    def _own_args(self) -> tuple[str, ...]:
        names = [field.name for field in dataclasses.fields(FaultTolerance)]
        own = names[names.index("cfg_path") :]
        given = {name.replace("_", "-"): getattr(self, name) for name in own if getattr(self, name) is not None}
        return tuple(f"--ft-{name}={literal(str(value))}" for name, value in given.items())


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPI(Launcher):
    """Has Slurm start each process, as one of an MPI program: ``srun --mpi=pmix``.

    Only on Slurm. ``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE`` are set too.

    Attributes:
        mpi: Which interface Slurm offers the processes; ``srun --mpi=list`` shows those that the cluster has.
    """

    kind: ClassVar[str] = "mpi"

    mpi: str = "pmix"

    @property
    def srun_options(self) -> tuple[str, ...]:
        """See :attr:`Launcher.srun_options`."""
        return (f"--mpi={self.mpi}",)

    def start(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.start`."""
        raise ExecutorArgumentError(
            "launcher MPI: only SlurmExecutor has it, where srun starts the processes: use Torchrun or Processes here"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes(Launcher):
    """Starts plain processes, with torch's names for rank and size in their environment.

    The first that fails ends the others; one that ends well does not.

    Attributes:
        nproc_per_node: Processes on each machine. When None, as many as the executor's ``ntasks_per_node`` says;
            when that is None too, one for each GPU that the executor asks for.
    """

    kind: ClassVar[str] = "processes"

    nproc_per_node: int | None = None

    def start(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.start`."""
        return ("{python}", "{runner}", "--spawn", str(self.nproc_per_node or processes), "{folder}")


_UNWARNED = ("sh", "-c", 'trap "" USR1 USR2; exec "$@"', "sh")
"""Runs a command that a warning signal, meant for the processes that it starts, does not kill."""

_COMMAND = "\0command\0"
"""Stands for the command while a template is rendered: no shell script has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScriptTemplate(Launcher):
    """Starts the processes by a shell script of one's own, a Jinja template.

    In the template ``{{ command }}`` runs the config as one process, and ``{{ processes }}`` is how
    many the back-end gives each machine. Where the processes meet, and which machine this is, stands in the
    environment: ``$MASTER_ADDR``, ``$MASTER_PORT``, ``$NNODES``, ``$NODE_RANK``. Airflow leaves the text as it is; what
    Airflow's own templates give comes in by ``variables``, as ``variables={"date": "{{ ds }}"}``.

    Attributes:
        text: The template.
        variables: Further variables for it.
        shell: The program that runs the script.
    """

    kind: ClassVar[str] = "script_template"

    text: Annotated[str, OWN_TEMPLATE]
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shell: str = "bash"

    def start(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.start`.

        Raises:
            ExecutorArgumentError: The template is not one, or uses a variable that is not there.
        """
        import jinja2

        command = " ".join(["{python}", *(shlex.quote(part) if "{" not in part else part for part in RANK)])
        try:
            template = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(self.text)  # noqa: S701 - a shell script
            script = template.render(command=_COMMAND, processes=processes, **self.variables)
        except jinja2.TemplateError as error:
            raise ExecutorArgumentError(f"the launcher's template cannot be rendered: {error}") from error
        # The script's own braces, as in ${port}, are the shell's.
        script = literal(script).replace(_COMMAND, command)
        return (self.shell, "-c", script)


def gpus_in(text: str | int | None) -> int:
    """Returns how many GPUs a request has, in the notations of Slurm and SkyPilot; 0 where it has none.

    Args:
        text: For example ``8``, ``a100:4``, ``a100:4,v100:2``.
    """
    count = 0
    for part in filter(None, str(text or "").split(",")):
        number = part.rpartition(":")[2].partition("(")[0]
        count += int(number) if number.isdigit() else 1
    return count
