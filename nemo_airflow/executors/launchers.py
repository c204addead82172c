"""How a job of several processes is started on each of its machines.

A launcher turns into a command line for the runner, which fills its placeholders where the job runs:
see :func:`nemo_airflow.runner.ranks.command`.
"""

from __future__ import annotations

import abc
import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.runner.ranks import literal

RANK = ("{runner}", "--rank", "{folder}")
"""What runs the job's config as one process of several, after the interpreter."""


OWN_TEMPLATE = "a template that is not Airflow's"
"""In the annotation of a field: its text is a template that is rendered later, and stays as it is before."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launcher(abc.ABC):
    """Starts the processes of one machine, and ends when they have ended."""

    kind: ClassVar[str]

    @abc.abstractmethod
    def command(self, processes: int) -> tuple[str, ...]:
        """Returns the command line, with placeholders.

        Args:
            processes: How many processes each machine gets; see :attr:`Executor.processes_per_node`.
        """

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

    nproc_per_node: int | None = None
    rdzv_backend: str = "c10d"
    rdzv_port: int | None = None
    max_restarts: int = 0
    args: Sequence[str] = ()

    def command(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.command`."""
        return (
            *_UNWARNED, "{python}", "-m", "torch.distributed.run",
            "--nnodes={nodes}",
            f"--nproc-per-node={self.nproc_per_node or processes}",
            "--rdzv-id={key}",
            f"--rdzv-backend={self.rdzv_backend}",
            f"--rdzv-endpoint={{head}}:{self.rdzv_port or '{port}'}",
            f"--max-restarts={self.max_restarts}",
            *self.args,
            *RANK,
        )  # fmt: skip


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

    def command(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.command`."""
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
    environment: ``$MASTER_ADDR``, ``$MASTER_PORT``, ``$NNODES``, ``$NODE_RANK``.
    many the back-end gives each machine. Airflow leaves the text as it is; what Airflow's own templates
    give comes in by ``variables``, as ``variables={"date": "{{ ds }}"}``.

    Attributes:
        text: The template.
        variables: Further variables for it.
        shell: The program that runs the script.
    """

    kind: ClassVar[str] = "script_template"

    text: Annotated[str, OWN_TEMPLATE]
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    shell: str = "bash"

    def command(self, processes: int) -> tuple[str, ...]:
        """See :meth:`Launcher.command`.

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


_KINDS: Mapping[str, type[Launcher]] = {cls.kind: cls for cls in (Torchrun, Processes, ScriptTemplate)}


def launcher_from_json(data: Mapping[str, Any]) -> Launcher:
    """The inverse of :meth:`Launcher.to_json`.

    Raises:
        ExecutorArgumentError: There is no such launcher, or a field is not one of its own.
    """
    fields = dict(data)
    cls = _KINDS.get(str(fields.pop("kind", "")))
    if cls is None:
        raise ExecutorArgumentError(f"there is no launcher of kind {data.get('kind')!r}; there are {', '.join(_KINDS)}")
    known = {field.name for field in dataclasses.fields(cls)}
    if unknown := sorted(fields.keys() - known):
        raise ExecutorArgumentError(
            f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(known)}"
        )
    return cls(**fields)
