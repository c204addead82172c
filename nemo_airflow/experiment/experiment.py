"""An experiment: jobs under one title, in an order, that are added in Python and run without Airflow."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from nemo_airflow.config import Config, Partial, build
from nemo_airflow.config.objects.leaves import copy_config
from nemo_airflow.config.plan.versions import ConfigVersions
from nemo_airflow.exceptions import BackendUnavailable, ConfigError, SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.local import LocalExecutor
from nemo_airflow.experiment.airflow_dag import make_dag
from nemo_airflow.experiment.looking import JobLine, facts_of_job, launched_of, look_at, table_of, waits_for
from nemo_airflow.experiment.order import Standing
from nemo_airflow.experiment.plugins import set_up
from nemo_airflow.experiment.records import (
    ExperimentRecords,
    RecordedExperiment,
    RecordedJob,
    RecordedTask,
    check_job,
    check_name,
)
from nemo_airflow.experiment.running import Running
from nemo_airflow.experiment.tasks import (
    Auto,
    Task,
    default_name,
    recorded_task,
    recorded_tracker,
    refuse_masked_variables,
)
from nemo_airflow.job import Package
from nemo_airflow.launch.following import Following, read_log, run_in_background
from nemo_airflow.launch.records import Records
from nemo_airflow.launch.submission import Launch
from nemo_airflow.masking import masked_executor
from nemo_airflow.operators.preparation import not_a_config
from nemo_airflow.packaging.base import Packager
from nemo_airflow.registered import find_executor
from nemo_airflow.reproduction.restoring import refuse_masked
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.mlflow import MLflowTracker

if TYPE_CHECKING:
    from airflow.sdk import DAG

_DEFAULT_TRACKER = MLflowTracker()

_ASKED_AT_ONCE = 8
"""Back-ends that are asked at the same time how jobs fare."""


@dataclasses.dataclass
class _Job:
    """A job, or a group, as it was added."""

    id: str
    tasks: list[Task]
    dependencies: tuple[str, ...]
    is_group: bool
    tail_logs: bool


class Experiment:
    """Several jobs under one title: added, run, looked at, and run again from what was recorded.

    ``with Experiment("title") as experiment:`` is the same as without ``with``. What :meth:`run` has begun is on this
    machine's disk: :meth:`from_id` goes on with it in another process.

    Args:
        title: The title, which is also the tracker's experiment.
        executor: Where jobs run that name no other: an executor, a config of one, or a text as for ``nemo-airflow run
            --executor``. This machine when None.
        packager: What ships their code: ``"auto"`` for the git repository of the folder with all changes, or, where it
            is in none, nothing for jobs that see this machine's files; a packager; None for nothing.
        tracker: What remembers their runs, or None.
        plugins: Plug-ins for all that is added; see :class:`ExperimentPlugin`.
        folder: Where the code is; the current folder when None.
        on_line: Called with each line that is printed of a job or of a table.
        say: Called with what people should know, in one line.

    Raises:
        ConfigError: The title cannot name files, or the executor is none.
    """

    def __init__(
        self,
        title: str,
        executor: Executor | Config[Any] | str | None = None,
        *,
        packager: Packager | Auto | None = "auto",
        tracker: Tracker | None = _DEFAULT_TRACKER,
        plugins: Sequence[Any] = (),
        folder: Path | None = None,
        on_line: Callable[[str], None] = print,
        say: Callable[[str], None] = print,
    ) -> None:
        check_name(title, "the title")
        self.title = title
        self.executor = _read_executor(executor) if executor is not None else LocalExecutor()
        self._packager = packager
        self._tracker = tracker
        self._plugins = tuple(plugins)
        self._folder = folder or Path.cwd()
        self._on_line = on_line
        self._say = say
        self._jobs: list[_Job] = []
        self._record: RecordedExperiment | None = None

    @classmethod
    def from_id(
        cls, id: str, *, on_line: Callable[[str], None] = print, say: Callable[[str], None] = print
    ) -> Experiment:
        """Returns an experiment that was run on this machine.

        Raises:
            SettingsError: There is none of that id.
        """
        return cls._from_record(ExperimentRecords().load(id), on_line, say)

    @classmethod
    def from_title(
        cls, title: str, *, on_line: Callable[[str], None] = print, say: Callable[[str], None] = print
    ) -> Experiment:
        """Returns the experiment of a title that was run last on this machine.

        Raises:
            SettingsError: There is none.
        """
        return cls._from_record(ExperimentRecords().newest(title), on_line, say)

    @classmethod
    def catalog(cls, title: str = "") -> list[str]:
        """Returns the ids of the experiments that were run here, the oldest first; those of a title, or all."""
        return [record.id for record in ExperimentRecords().list() if title in ("", record.title)]

    @classmethod
    def _from_record(
        cls, record: RecordedExperiment, on_line: Callable[[str], None], say: Callable[[str], None]
    ) -> Experiment:
        experiment = cls(record.title, tracker=recorded_tracker(record), on_line=on_line, say=say)
        experiment._record = record
        return experiment

    @property
    def id(self) -> str:
        """Its id; empty until it is run."""
        return self._record.id if self._record is not None else ""

    @property
    def tasks(self) -> list[Any]:
        """The configs of the jobs, of a group a list. What is changed in them before :meth:`run` is run."""
        self._jobs = self._jobs or self._recorded_jobs()
        return [
            [task.readable() for task in job.tasks] if job.is_group else job.tasks[0].readable() for job in self._jobs
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def add(
        self,
        task: Any,
        executor: Any = None,
        name: str = "",
        plugins: Sequence[Any] | None = None,
        tail_logs: bool = False,
        dependencies: Sequence[str] | None = None,
        *,
        packager: Packager | Auto | None = "auto",
        outputs: Sequence[str] = (),
        allow: Sequence[str] = (),
    ) -> str:
        """Adds a job, or a group of jobs that are submitted together, and returns its id. Submits nothing.

        A group succeeds when all of its jobs have; when one fails, the others are cancelled.

        Args:
            task: A ``Config``, ``Partial`` or ``Script``, which is copied; or a list of such: a group.
            executor: Where it runs; that of the experiment when None. For a group also a list with one for each.
            name: Its id, which a group needs; that of its function when empty, with a number where that is taken.
            plugins: Plug-ins, besides those of the experiment, which come first.
            tail_logs: Whether its lines are printed while it runs.
            dependencies: Ids of jobs that have to succeed before it is submitted.
            packager: What ships its code instead of the experiment's.
            outputs: Patterns of files to keep besides those in the output directory.
            allow: What it may import besides the targets of its config.

        Raises:
            ConfigError: One of these is not what it should be; nothing was added.
        """
        if self._record is not None:
            raise ConfigError(
                f"experiment {self.id} was run: reset() makes a new one of it, to which jobs can be added"
            )
        is_group = isinstance(task, (list, tuple))
        given = list(task) if is_group else [task]
        if not given:
            raise ConfigError(f"the group {name!r} is empty: give a list of at least one task")
        for each in given:
            if not isinstance(each, (Config, Partial)):
                raise ConfigError(not_a_config(each))
        if is_group and not name:
            raise ConfigError("a group of tasks needs a name: add([...], name=...)")
        job_id = self._name(name, given[0])
        before = self._check_dependencies(job_id, dependencies or ())
        configs = [copy_config(each) for each in given]
        executors = set_up((*self._plugins, *(plugins or ())), configs, self._executors(executor, len(given)))
        tasks = [
            Task(
                f"{job_id}-{number}" if is_group else job_id,
                config,
                where,
                self._packager if packager == "auto" else packager,
                self._folder,
                tuple(allow),
                tuple(outputs),
            )
            for number, (config, where) in enumerate(zip(configs, executors, strict=True))
        ]
        self._jobs.append(_Job(job_id, tasks, before, is_group, tail_logs))
        return job_id

    def dryrun(self) -> None:
        """Prints what would be sent to the back-ends, and submits nothing. The code is packaged.

        Raises:
            NemoAirflowError: Nothing was added, a config is wrong, or the code cannot be packaged.
        """
        for job, launches, packages in self._prepare(self._jobs or self._recorded_jobs(), dry=True):
            after = f", when {' and '.join(job.dependencies)} succeeded" if job.dependencies else ""
            for task, launch, package in zip(job.tasks, launches, packages, strict=True):
                request = launch.request(package)
                self._on_line(f"# {task.name}{after}")
                self._on_line(request.to_text().rstrip("\n"))
                if foreseen := launch.foresee(request):
                    self._on_line(f"# {foreseen}")

    def run(self, sequential: bool = False, detach: bool = False, tail_logs: bool = False) -> dict[str, Any]:
        """Runs the jobs, each when those on which it depends have succeeded, or goes on with them.

        All configs are checked and all code is packaged before the first job is submitted, so that all run the same
        code. Interrupted or killed, it leaves an experiment that ``Experiment.from_id(id).run()`` goes on with.

        Args:
            sequential: Whether each job waits for the one that was added before.
            detach: Whether to return at once: a process in the background submits and follows.
            tail_logs: Whether to print the lines of all jobs.

        Returns:
            What the functions of the jobs returned, by their ids; of a group a list. Nothing if detached.

        Raises:
            JobFailed: A job has not succeeded; all others have ended as well.
            BackendUnavailable: A job cannot be followed now.
            SettingsError: Another process runs it.
            NemoAirflowError: Nothing was added, a config is wrong, or the code cannot be packaged; nothing was
                submitted.
        """
        records, tasks = ExperimentRecords(), {}
        if self._record is None:
            prepared = self._prepare(self._chained() if sequential else self._jobs)
            if detach:
                _refuse_secrets(prepared)
            self._record = records.create(self._recorded(prepared))
            self._say(f"experiment {self.id}")
            tasks = {
                task.name: dataclasses.replace(task, config=launch.plan, allow=launch.allow)
                for job, launches, _ in prepared
                for task, launch in zip(job.tasks, launches, strict=True)
            }
        elif sequential:
            raise ConfigError(f"experiment {self.id} was begun, and goes on as it was: leave out sequential")
        if detach:
            command = ["experiment", "attach", self.id, *([] if tail_logs else ["--quiet"])]
            run_in_background(command, records.log_of(self.id), records.folder.parent)
            self._say(f"it is run in the background; 'nemo-airflow experiment status {self.id}' shows how it stands")
            return {}
        running = Running(records, self.id, tasks, tail_logs=tail_logs, on_line=self._on_line, say=self._say)
        return running.run()

    def look(self) -> list[JobLine]:
        """Returns how each job stands, in the order in which they were added; back-ends are asked."""
        if self._record is None:
            return [
                JobLine(job.id, task.name, Standing.WAITING, task.executor.kind, reason=waits_for(job.dependencies))
                for job in self._jobs
                for task in job.tasks
            ]
        record = self._reload()
        every = [(job, task) for job in record.jobs for task in job.tasks]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            return list(pool.map(lambda each: look_at(*each), every))

    def status(self, return_dict: bool = False) -> dict[str, dict[str, str]] | None:
        """Prints a table of how the jobs stand, or returns it, by the ids of the jobs.

        Args:
            return_dict: Whether to return it.
        """
        lines = self.look()
        if return_dict:
            return {line.job: facts_of_job([each for each in lines if each.job == line.job]) for line in lines}
        self._on_line(table_of(lines, f"experiment {self.id or self.title}"))
        return None

    def logs(self, job_id: str, regex: str | None = None) -> None:
        """Prints what a job has written so far; of a group each line after the name of its job.

        Args:
            job_id: Its id.
            regex: Only lines in which this is found.

        Raises:
            SettingsError: There is no such job.
            BackendUnavailable: Its back-end is away.
        """
        wanted = re.compile(regex or "")
        job = self._job(job_id)
        for task, launched in zip(job.tasks, launched_of(job), strict=True):
            if launched is None:
                self._say(f"{task.name} has written nothing: it is not submitted")
                continue
            for line in filter(wanted.search, read_log(launched)):
                self._on_line(f"{task.name}: {line}" if job.is_group else line)

    def cancel(self, job_id: str | None = None) -> None:
        """Cancels a job, or all: those that run, and those that wait are never submitted.

        Args:
            job_id: Its id; None for all.

        Raises:
            SettingsError: There is no such job.
            BackendUnavailable: A back-end is away.
        """
        jobs = [self._job(job_id)] if job_id is not None else list(self._reload().jobs)
        for job in jobs:

            def mark(record: RecordedExperiment, name: str = job.id) -> RecordedExperiment:
                return record.with_job(dataclasses.replace(record.job(name), is_cancelled=True))

            # Before its tasks are looked at: one that is being submitted now is cancelled by who submits it.
            job = ExperimentRecords().change(self.id, mark).job(job.id)
            for task, launched in zip(job.tasks, launched_of(job), strict=True):
                if launched is None or launched.handle is None:
                    self._say(f"{task.name} will not be submitted")
                elif launched.end is not None:
                    self._say(f"{task.name} has ended before: it is {launched.end.status.state}")
                else:
                    try:
                        Following(Records(), launched, lambda line: None, self._say).cancel()
                    except TimeoutError:
                        raise BackendUnavailable(
                            f"the {launched.job.kind} back-end does not answer: cancel {task.name} again later"
                        ) from None
                    self._say(f"{task.name} is cancelled")

    def reset(self) -> Experiment:
        """Makes a new experiment of one that was run, with the same jobs from what is recorded, and returns itself.

        Each has the plan, the package and the executor with which it ran, whatever the code here is by now; its run
        names the one that it reproduces, so that ``nemo-airflow reproduce RUN --against OTHER`` compares them. What is
        changed in :attr:`tasks` before it is run makes it a variation. One that was not run stays as it is.

        Raises:
            ConfigError: A config is not kept any more, or held a secret.
            ExecutorError: An executor is not installed any more.
        """
        if self._record is not None:
            jobs = self._recorded_jobs()
            self._jobs, self._record = jobs, None
        return self

    def to_dag(self, dag_id: str | None = None, **kwargs: Any) -> DAG:
        """Returns a DAG of Airflow with the same jobs: a task for each, a task group for each group.

        Args:
            dag_id: Its id; the title when None.
            kwargs: Other arguments of ``DAG``, such as ``schedule`` and ``default_args``.

        Raises:
            NemoAirflowError: Nothing was added, or a config is wrong.
        """
        jobs = self._jobs or self._recorded_jobs()
        self._check_any(jobs)
        groups = {job.id: job.tasks for job in jobs}
        edges = {job.id: job.dependencies for job in jobs}
        is_group = {job.id for job in jobs if job.is_group}
        return make_dag(dag_id or self.title, groups, edges, is_group, self._tracker, self.title, kwargs)

    def _name(self, name: str, config: Any) -> str:
        taken = {job.id for job in self._jobs}
        if not name:
            name = default_name(config)
            return name if name not in taken else f"{name}_{len(self._jobs)}"
        check_name(name, "the name")
        if name in taken:
            raise ConfigError(f"experiment {self.title} has a job {name!r}: give this one another name")
        return name

    def _check_dependencies(self, job_id: str, dependencies: Sequence[str]) -> tuple[str, ...]:
        if isinstance(dependencies, str):
            raise ConfigError(f"dependencies={dependencies!r} is a text: give a list of ids, [{dependencies!r}]")
        for each in dependencies:
            if each == job_id:
                raise ConfigError(f"job {job_id!r} depends on itself, a circle: leave it out of its dependencies")
            try:
                check_job(self.title, [job.id for job in self._jobs], each)
            except SettingsError as error:
                raise ConfigError(f"dependencies of {job_id!r}: {error}: add those before that it waits for") from None
        return tuple(dict.fromkeys(dependencies))

    def _executors(self, given: Any, count: int) -> list[Executor]:
        if not isinstance(given, (list, tuple)):
            return [_read_executor(given) if given is not None else self.executor] * count
        if len(given) not in (1, count):
            raise ConfigError(f"{len(given)} executors for {count} tasks: give one for all, or one for each")
        return [_read_executor(each) for each in given] * (count // len(given))

    def _chained(self) -> list[_Job]:
        """Returns the jobs, each of which waits for the one before."""
        before = [(), *((job.id,) for job in self._jobs)]
        if any(job.dependencies not in ((), each) for job, each in zip(self._jobs, before, strict=False)):
            raise ConfigError(
                "sequential=True has each job wait for the one before, and some jobs have dependencies of their own: "
                "leave out one of both"
            )
        return [dataclasses.replace(job, dependencies=each) for job, each in zip(self._jobs, before, strict=False)]

    def _check_any(self, jobs: Sequence[_Job]) -> None:
        if not jobs:
            raise ConfigError(f"experiment {self.title} has no jobs: add(...) adds one")

    def _prepare(
        self, jobs: Sequence[_Job], *, dry: bool = False
    ) -> list[tuple[_Job, list[Launch], list[Package | None]]]:
        """Returns the jobs with their checked launches and their packages; what ships the same code does it once."""
        self._check_any(jobs)
        launches = [[task.launch(self.title, self.id, self._tracker, self._say) for task in job.tasks] for job in jobs]
        made: list[tuple[tuple[Any, ...], Package | None]] = []

        def package(task: Task, launch: Launch) -> Package | None:
            same = (task.shipped_by(), task.folder, task.executor.kind, task.executor.connection_key())
            if (found := next((each for each in made if each[0] == same), None)) is None:
                found = (same, launch.package(dry=dry))
                made.append(found)
            return found[1]

        return [
            (job, found, [package(task, launch) for task, launch in zip(job.tasks, found, strict=True)])
            for job, found in zip(jobs, launches, strict=True)
        ]

    def _recorded(self, prepared: Sequence[tuple[_Job, list[Launch], list[Package | None]]]) -> RecordedExperiment:
        """Returns the record of a new experiment, whose configs are kept then."""
        packages: dict[str, dict[str, Any]] = {}
        configs = ConfigVersions()

        def record(task: Task, launch: Launch, package: Package | None) -> RecordedTask:
            name = f"{package.digest}.{package.format}" if package is not None else ""
            if package is not None:
                packages[name] = package.to_json()
            return RecordedTask(
                task.name,
                configs.save(launch.public_plan),
                masked_executor(task.executor),
                name,
                str(task.folder),
                launch.allow,
                task.outputs,
                launch.description,
                task.reproduces,
            )

        jobs = [
            RecordedJob(
                job.id,
                tuple(record(*each) for each in zip(job.tasks, launches, found, strict=True)),
                job.dependencies,
                job.is_group,
                job.tail_logs,
            )
            for job, launches, found in prepared
        ]
        now = time.time()
        tracker = self._tracker.pin().to_json() if self._tracker is not None else None
        return RecordedExperiment(f"{self.title}_{int(now)}", self.title, now, tuple(jobs), packages, tracker)

    def _recorded_jobs(self) -> list[_Job]:
        """Returns the jobs as they were recorded, to be run anew; none if nothing was."""
        if self._record is None:
            return []
        record = self._reload()
        return [
            _Job(
                job.id,
                [dataclasses.replace(recorded_task(record, task), reproduces=task.key) for task in job.tasks],
                job.dependencies,
                job.is_group,
                job.tail_logs,
            )
            for job in record.jobs
        ]

    def _job(self, job_id: str) -> RecordedJob:
        return self._reload().job(job_id)

    def _reload(self) -> RecordedExperiment:
        if self._record is None:
            raise SettingsError(f"experiment {self.title} was not run yet: run() submits its jobs")
        self._record = ExperimentRecords().load(self._record.id)
        return self._record


def run(
    task: Any,
    executor: Executor | Config[Any] | str | None = None,
    *,
    name: str = "",
    plugins: Sequence[Any] | None = None,
    dryrun: bool = False,
    detach: bool = False,
    tail_logs: bool = True,
    packager: Packager | Auto | None = "auto",
    tracker: Tracker | None = _DEFAULT_TRACKER,
    on_line: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> Any:
    """Runs one task as an experiment of its own, and returns what its function returned.

    Args:
        task: See :meth:`Experiment.add`, as for the others.
        executor: Where it runs.
        name: Its name, which is also the title.
        plugins: Plug-ins.
        dryrun: Whether only to print what would be sent.
        detach: Whether to return at once; None is returned then.
        tail_logs: Whether its lines are printed.
        packager: What ships its code.
        tracker: What remembers its run, or None.
        on_line: Called with each line that is printed of the job.
        say: Called with what people should know, in one line.

    Raises:
        JobFailed: It has not succeeded.
        NemoAirflowError: See :meth:`Experiment.run`.
    """
    if not isinstance(task, (Config, Partial)):
        raise ConfigError(not_a_config(task))
    experiment = Experiment(
        name or default_name(task), executor, packager=packager, tracker=tracker, on_line=on_line, say=say
    )
    job_id = experiment.add(task, name=name, plugins=plugins, tail_logs=tail_logs)
    if dryrun:
        experiment.dryrun()
        return None
    return experiment.run(detach=detach).get(job_id)


def _read_executor(given: Any) -> Executor:
    executor = find_executor(given) if isinstance(given, str) else build(given) if isinstance(given, Config) else given
    if not isinstance(executor, Executor):
        raise ConfigError(f"executor is {type(executor).__name__}, not an executor such as LocalExecutor()")
    return executor


def _refuse_secrets(prepared: Sequence[tuple[_Job, list[Launch], list[Package | None]]]) -> None:
    """Refuses what another process would read from the record without its secrets."""
    for job, launches, _ in prepared:
        for task, launch in zip(job.tasks, launches, strict=True):
            refuse_masked(launch.public_plan, f"job {task.name}")
            refuse_masked_variables(masked_executor(task.executor)["env"], f"job {task.name}")
