"""The interface of every back-end: an executor, which is data, and a driver, which talks to the back-end.

An :class:`Executor` says where and with what a job runs. It is a frozen dataclass without I/O;
:meth:`Executor.render` turns a job into the very request that will be sent, so that it can be
shown before anything runs. :meth:`Executor.connect` gives a :class:`Driver`, which talks to the
back-end about many jobs at once, and reports what it is told (:mod:`nemo_airflow.executors.seen`).
"""

from __future__ import annotations

import abc
import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from nemo_airflow.exceptions import ExecutorArgumentError, ExecutorError
from nemo_airflow.executors import fields, outputs_route
from nemo_airflow.executors.finding import Finding, good
from nemo_airflow.executors.inside import no_way_in
from nemo_airflow.executors.intake import Intake
from nemo_airflow.executors.launchers import Launcher, Processes, gpus_in
from nemo_airflow.executors.secret import Secret, check_secrets, show_secrets
from nemo_airflow.executors.seen import Seen
from nemo_airflow.job import Archive, Job, JobHandle, JobStatus, Package, shipped
from nemo_airflow.terminal import Terminal

LeaveOut: TypeAlias = Callable[[str], None]
"""Takes the name of an output that cannot be kept, and why."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Exactly what will be sent to a back-end: nothing is added between showing and sending it.

    Attributes:
        key: The job's key.
        kind: The executor's kind.
        payload: The call, manifest or script, as plain JSON types.
        files: Text files of the job's folder, by relative path.
        package: The package to ship, or None.
        secrets: Where the values of the job's secrets come from, in words, by the names of their variables.
        values: Those values: the one thing that is added to a request before it is sent, and never shown.
        inputs: The archives of artifacts to ship.
        waits: Whether ``submit`` may wait for as long as the job is queued, where the package can only be sent to a
            job that has started. If not, it raises :class:`~nemo_airflow.exceptions.NotStarted`.
    """

    key: str
    kind: str
    payload: Mapping[str, Any]
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    package: Package | None = None
    secrets: Mapping[str, str] = dataclasses.field(default_factory=dict)
    values: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    inputs: tuple[Archive, ...] = ()
    waits: bool = True

    @property
    def archives(self) -> tuple[Archive, ...]:
        """See :func:`nemo_airflow.job.shipped`."""
        return shipped(self.package, self.inputs)

    @property
    def fetched(self) -> tuple[Archive, ...]:
        """The archives that the job fetches from the shared store by itself."""
        every = (*self.inputs, *(self.package.archives if self.package is not None else ()))
        return tuple(archive for archive in every if archive.is_fetched)

    def to_text(self) -> str:
        """Returns the request for a human reader: the payload and each file."""
        parts = [f"# {self.kind} job {self.key}", json.dumps(self.payload, indent=2, sort_keys=True)]
        parts += [f"# file {name}\n{text}" for name, text in sorted(self.files.items())]
        if self.package:
            parts.append(f"# package {self.package.digest}")
        parts += [f"# secret {name}={shown}" for name, shown in sorted(self.secrets.items())]
        parts += [f"# artifact {archive.digest} ({archive.size} bytes)" for archive in self.inputs]
        return "\n".join(parts) + "\n"


@dataclasses.dataclass(frozen=True)
class Cursor:
    """A place in a job's stream.

    Attributes:
        handle: Whose stream.
        offset: Bytes already read.
        limit: Bytes to read at most; a back-end that cannot cut there gives more.
        ended: Whether the job is known to have ended: the end of its stream is read before those that go on.
        since: About when the job wrote what stands there, in seconds since the epoch; None where that is not known.
    """

    handle: JobHandle
    offset: int = 0
    limit: int = 4 << 20
    ended: bool = False
    since: float | None = None


@dataclasses.dataclass(frozen=True)
class Chunk:
    """What was read at a cursor.

    Attributes:
        key: The job's key.
        offset: That of the cursor, in bytes.
        data: The bytes, cut anywhere: in a line, or in a UTF-8 sequence.
        gone: How many bytes after ``offset`` the back-end has dropped before they were read; ``data`` follows those.
        trouble: Why this one stream could not be read; empty where it could. The end of a job waits for that a while.
    """

    key: str
    offset: int
    data: bytes
    gone: int = 0
    trouble: str = ""

    @property
    def end(self) -> int:
        """The offset of the next read."""
        return self.offset + self.gone + len(self.data)


class Driver(abc.ABC):
    """Talks to one back-end, for many jobs at once. One per connection and event loop.

    A driver reports facts and does as it is told: it never concludes how a job fares, waits by a grace of its own, or
    ends a job on its own account. :class:`nemo_airflow.jobs.service.JobService` does, alike for all back-ends.

    A transport error in any verb is :class:`~nemo_airflow.exceptions.BackendUnavailable`; it says nothing of a job's
    state, and the same call can be made again. What goes wrong with one job alone is its own ``trouble``, in
    :class:`Seen` and :class:`Chunk`: the other jobs of the call get their answers.

    Attributes:
        poll_interval: Shortest and longest seconds between two looks at a job; it is looked at often while it is
            young, and seldom when it is old.
    """

    poll_interval: ClassVar[tuple[float, float]] = (0.5, 30.0)

    @abc.abstractmethod
    async def submit(self, request: Request) -> JobHandle:
        """Starts the job, unless one of this key was started before: then returns that one's handle.

        Raises:
            SubmitError: The back-end refused the job.
        """

    async def foresee(self, request: Request) -> str:
        """Returns what the back-end says of a request that it does not get: when the job would start; empty if nothing.

        Raises:
            BackendUnavailable: It cannot be reached.
        """
        return ""

    @abc.abstractmethod
    async def find(self, keys: Sequence[str]) -> dict[str, JobHandle]:
        """Returns the handles of those keys that the back-end knows, running or ended."""

    @abc.abstractmethod
    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        """Returns what the back-end tells of every job, by key; see :class:`Seen`."""

    @abc.abstractmethod
    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        """Returns what has been written after each cursor, empty chunks left out.

        A chunk may hold less than all there is; a caller that wants all reads until nothing comes. Two cursors may be
        of one job, at different offsets.
        """

    async def read_machine(self, handle: JobHandle, machine: int) -> bytes | None:
        """Returns the stream of one machine of a job of several so far; None where only that of the first is kept.

        Raises:
            BackendUnavailable: It cannot be read now.
        """
        return None

    @abc.abstractmethod
    async def cancel(self, handles: Sequence[JobHandle]) -> None:
        """Ends the jobs. Done again, or for a job that has ended, it changes nothing."""

    @abc.abstractmethod
    async def collect(
        self, handle: JobHandle, into: Path, leave_out: LeaveOut | None = None, intake: Intake | None = None
    ) -> list[Path]:
        """Copies the outputs of an ended job into a folder; returns their paths relative to it.

        Args:
            handle: The job.
            into: The folder.
            leave_out: Called, from any thread, with the name of each output that cannot be kept, and why: a link that
                leads nowhere or out of the job's outputs, a pipe ... All others are kept.
            intake: What takes each output as soon as it has come, and empties the folder;
                :func:`.outputs.extract_outputs` calls it for an archive.

        Raises:
            OutputsLost: The outputs are gone with the job, or those of some machines are; others are in the folder.
        """

    async def give_up(self, handle: JobHandle, status: JobStatus) -> None:
        """Ends what the back-end still has of a job that was judged: it would wait, or run on in part, for nothing.

        Args:
            handle: The job.
            status: What it comes to: to leave behind, where a back-end can.
        """
        await self.cancel([handle])

    async def sweep(self) -> None:
        """Removes what is kept of jobs that ended longer ago than their executor's ``ttl``. Called now and then."""
        return

    async def rest(self, handle: JobHandle, first: JobStatus) -> JobStatus | None:
        """Returns how a job of several machines has ended, whose first machine has ended so; None while others run.

        Called again and again for a job of an executor that :attr:`~Executor.is_group`. Where a machine has failed, the
        others are ended.
        """
        return first

    async def release(self, handles: Sequence[JobHandle]) -> None:
        """Lets go of ended jobs whose outputs are kept elsewhere now; for a back-end that holds them only so long.

        Raises:
            BackendUnavailable: It cannot be told now. The caller asks again.
        """
        return

    @abc.abstractmethod
    async def remove(self, handles: Sequence[JobHandle]) -> None:
        """Forgets ended jobs: their folders, containers or pods. Running jobs are refused.

        Raises:
            ExecutorError: One of the jobs has not ended.
        """

    @abc.abstractmethod
    async def survey(self) -> list[JobHandle]:
        """Returns every job of this project that the back-end runs or has queued, whoever submitted it."""

    async def old_folders(self, older_than: float) -> list[JobHandle]:
        """Returns the ended jobs in whose folders nothing was written for so many seconds.

        Raises:
            ExecutorError: The back-end keeps no folders of jobs.
        """
        raise ExecutorError(
            "this back-end keeps no folders of jobs: ended jobs are removed after the executor's ttl, if it has one"
        )

    async def disk_used(self) -> int | None:
        """Returns the bytes of all that is kept of jobs there; None where the back-end does not tell, or takes long.

        Raises:
            BackendUnavailable: It cannot be reached.
        """
        return None

    @abc.abstractmethod
    async def labels(self, handles: Sequence[JobHandle]) -> dict[str, Mapping[str, str]]:
        """Returns by key where jobs come from: the labels with which they were submitted."""

    async def examine(self, executor: Executor) -> list[Finding]:
        """Returns how the back-end fares for jobs of an executor of this driver; submits nothing.

        Raises:
            BackendUnavailable: It cannot be reached.
        """
        found = await self.survey()
        return [good("reached", f"{len(found)} jobs of nemo-airflow are there")]

    async def enter(self, handle: JobHandle, command: Sequence[str], executor: Executor, terminal: Terminal) -> int:
        """Runs a command in the environment of a job that runs, with a terminal; returns its exit code.

        Args:
            handle: The job.
            command: The command with its arguments; a shell when empty.
            executor: The job's executor, of this driver.
            terminal: What the command reads and writes.

        Raises:
            ExecutorError: The back-end has no way into a job, or the job has ended.
            BackendUnavailable: It cannot be reached, or the connection broke off.
        """
        raise no_way_in(executor.kind)

    async def image_digest(self, executor: Executor, handle: JobHandle | None = None) -> str | None:
        """Returns what names the content of the image of a job, or of that which the next job would have.

        Args:
            executor: One of this driver.
            handle: A job that runs or has ended; None for the next one.

        Returns:
            The digest; an empty text where the image is not there; None where nothing tells.

        Raises:
            BackendUnavailable: The back-end cannot be reached.
        """
        return None

    async def reads_zstd(self, executor: Executor) -> bool:
        """Returns whether jobs of an executor of this driver are known to unpack ``tar.zst``; False where it is not.

        Args:
            executor: One with this driver's :meth:`Executor.connection_key`.
        """
        return executor.reads_zstd

    async def close(self) -> None:
        """Gives the connection back. The jobs go on."""
        return


@dataclasses.dataclass(frozen=True, kw_only=True)
class Executor(abc.ABC):
    """Where a job runs, and with what. Plain data: no I/O, no credentials, buildable by Fiddle.

    Attributes:
        env: Environment variables to set for every job.
        secrets: Environment variables whose values are secrets, by their names: ``{"TOKEN": Secret(conn_id="hf")}``.
        time: Time limit, as seconds or as Slurm writes it (``minutes``, ``HH:MM:SS``,
            ``D-HH:MM:SS``); None for none.
        grace: Seconds between SIGTERM and SIGKILL when a job is ended early.
        nodes: Machines of the job.
        ntasks_per_node: Processes on each machine. When None, one; with a launcher one for each GPU.
        gpus_per_node: GPUs of each machine: how many, or as the back-end writes it.
        launcher: What starts the processes of a job of several, or None.
        outputs_route: How outputs get into the shared store, and artifacts from there: ``auto``, straight from and to
            the job where its host reaches the store; ``worker``, through the worker; or the store as the job's host
            knows it: an ``https://`` address of its service, or the folder where it is mounted.
    """

    kind: ClassVar[str]
    """Names the back-end in handles and in the entry-point group ``nemo_airflow.executors``."""

    shares_filesystem: ClassVar[bool] = False
    """Whether a job sees the files of the machine that submits it."""

    keeps_attempts_together: ClassVar[bool] = False
    """Whether the folders of its jobs are beside each other, where one finds the checkpoints of an earlier one."""

    takes_secrets: ClassVar[bool] = False
    """Whether its driver gives a job the :attr:`Request.values` of its secrets where nobody else can read them."""

    fetches_packages: ClassVar[bool] = True
    """Whether its jobs may fetch their package themselves, instead of having it sent."""

    spans_nodes: ClassVar[bool] = False
    """Whether a job can have several machines."""

    collects_each: ClassVar[bool] = False
    """Whether the outputs of each machine of a group are kept, those of others than the first below ``node-<n>``."""

    aliases: ClassVar[Mapping[str, str]] = {}
    """Fields that are another name of a field, by which the back-end calls it; each is None once it was read."""

    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, Secret] = dataclasses.field(default_factory=dict)
    time: str | float | None = None
    grace: float = 30.0
    nodes: int = 1
    ntasks_per_node: int | None = None
    gpus_per_node: int | str | None = None
    launcher: Launcher | None = None
    outputs_route: str = outputs_route.AUTO

    def __post_init__(self) -> None:
        """Converts and checks the fields by their annotations; a class of one's own that has this method calls it.

        Raises:
            ExecutorArgumentError: A value does not fit its field.
        """
        self._check_secrets()
        fields.fit_fields(self)
        fields.read_aliases(self, self.aliases)
        if not fields.is_deferred(self.time):
            parse_time(self.time)
        outputs_route.check_route(type(self).__name__, self.outputs_route)
        for name, what in (("nodes", "machine"), ("ntasks_per_node", "process on each machine")):
            count = getattr(self, name)
            if isinstance(count, int) and count < 1:
                raise ExecutorArgumentError(f"{type(self).__name__}: {name}={count}: a job has at least one {what}")
        if not self.spans_nodes and isinstance(self.nodes, int) and self.nodes > 1:
            raise ExecutorArgumentError(
                f"{type(self).__name__}: nodes={self.nodes}: its jobs run on one machine; those of SlurmExecutor, "
                "KubernetesExecutor and SkypilotExecutor run on several"
            )

    def _check_secrets(self) -> None:
        """Before all other checks: what stands in the place of a secret by mistake is in no error."""
        if fields.is_deferred(self.secrets):
            return
        name = type(self).__name__
        object.__setattr__(self, "secrets", check_secrets(name, self.secrets, fields.known_mapping(self.env)))
        if self.secrets and not self.takes_secrets:
            raise ExecutorArgumentError(
                f"{name} has no way to give a job a secret that others could not read: leave out secrets, and have the "
                "job read it from where its machine keeps secrets"
            )

    @property
    def reads_zstd(self) -> bool:
        """Whether it is known, without asking anybody, that a job can unpack ``tar.zst``."""
        return False

    @property
    def is_group(self) -> bool:
        """Whether a job runs on several machines, of which only the first writes the stream."""
        return False

    def rank_label(self, rank: int) -> str | None:
        """Returns a regular expression of how the lines of one process begin, where a machine has several; or None.

        Args:
            rank: The process, by its number on its machine.
        """
        return rf"\[{rank}\] " if self.launcher is None or isinstance(self.launcher, Processes) else None

    @property
    def zstd_mark(self) -> str:
        """Name of the file in which jobs note whether they can unpack ``tar.zst``; empty where they note nothing."""
        return ""

    @abc.abstractmethod
    def render(self, job: Job) -> Request:
        """Returns exactly what :meth:`Driver.submit` would send for this job. Pure."""

    @abc.abstractmethod
    def connection_key(self) -> Hashable:
        """Executors with equal keys share one driver, and one poller."""

    @abc.abstractmethod
    def connect(self) -> Driver:
        """Returns a driver for the running event loop."""

    def prepare(self, job: Job) -> Job:
        """Returns the job with what the executor says of every job: environment, secrets, time limit, grace."""
        return dataclasses.replace(
            job,
            env={**self.env, **job.env},
            time_limit=job.time_limit or self.time_limit,
            grace=self.grace,
            launch=self.launch(),
            secret_env=show_secrets(self.secrets),
        )

    @property
    def gpu_count(self) -> int:
        """How many GPUs each machine gives the job, as far as the executor says; 0 where it does not."""
        return gpus_in(self.gpus_per_node)

    @property
    def processes_per_node(self) -> int:
        """How many processes the job has on each machine, where the launcher does not say so itself."""
        if self.ntasks_per_node is not None or self.launcher is None:
            return self.ntasks_per_node or 1
        return self.gpu_count or 1

    def launch(self) -> tuple[str, ...]:
        """Returns the command that starts the processes of one machine; empty for a job of one.

        Raises:
            ExecutorArgumentError: The launcher cannot start them here.
        """
        launcher = self.launcher or (Processes() if self.processes_per_node > 1 else None)
        return launcher.command(self.processes_per_node) if launcher is not None else ()

    def to_json(self) -> dict[str, Any]:
        """Returns the executor as plain JSON types, with its ``kind``."""
        data = {"kind": self.kind, **json.loads(json.dumps(dataclasses.asdict(self)))}
        if self.launcher is not None:
            data["launcher"] = self.launcher.to_json()
        return data

    @property
    def time_limit(self) -> float | None:
        """The time limit in seconds, or None."""
        return parse_time(self.time)


def parse_time(time: str | float | None) -> float | None:
    """Reads a time limit.

    Args:
        time: A number of seconds, or text as ``sbatch --time`` takes it: ``MM``, ``MM:SS``,
            ``HH:MM:SS``, ``D-HH``, ``D-HH:MM`` or ``D-HH:MM:SS``.

    Returns:
        Seconds, or None.

    Raises:
        ExecutorArgumentError: The text is none of these, or the limit is not positive.
    """
    if time is None:
        return None
    if isinstance(time, (int, float)) and not isinstance(time, bool):
        seconds = float(time)
    else:
        seconds = _parse_time_text(str(time))
    if not seconds > 0:
        raise ExecutorArgumentError(f"time={time!r} is not a positive time limit")
    return seconds


def _parse_time_text(text: str) -> float:
    days, dash, clock = text.strip().rpartition("-")
    try:
        parts = [int(p) for p in clock.split(":")]
        whole_days = int(days) if dash else 0
    except ValueError:
        parts, whole_days = [], 0
    if not 1 <= len(parts) <= 3 or min(parts) < 0:
        raise ExecutorArgumentError(
            f"time={text!r} is not a time limit: give seconds as a number, or text as MM, HH:MM:SS or D-HH:MM:SS"
        )
    if dash:  # D-HH, D-HH:MM, D-HH:MM:SS
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:  # MM, MM:SS
        hours, minutes, seconds = 0, *(*parts, 0)[:2]
    return ((whole_days * 24 + hours) * 60 + minutes) * 60.0 + seconds
