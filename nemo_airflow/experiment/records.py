"""What this machine remembers of experiments: which jobs they have, and what runs those that are not submitted yet."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow import settings
from nemo_airflow.exceptions import ConfigError, SettingsError
from nemo_airflow.language.nearest import similar
from nemo_airflow.launch.records import try_lock, write_privately

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)
"""Titles and ids of jobs: they name files, tasks of Airflow and runs."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,119}", re.ASCII)
"""Ids of experiments: a title and a time."""


@dataclasses.dataclass(frozen=True)
class RecordedTask:
    """One job of an experiment, whether it was submitted or not.

    Attributes:
        name: Its name in the experiment.
        config: Digest of its plan, which is with those of all configs that were run.
        executor: JSON form of its executor, without secrets.
        package: Digest of its package; empty for none.
        folder: Where its code was.
        allow: What the job may import.
        outputs: Patterns of files to keep.
        description: What it does, for people.
        reproduces: Key of the job that it runs again, or empty.
        key: Key of its job; empty until that is about to be submitted. Where it is and how it fares, the record of
            the launched job says.
    """

    name: str
    config: str
    executor: Mapping[str, Any]
    package: str
    folder: str
    allow: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    description: str = ""
    reproduces: str = ""
    key: str = ""


@dataclasses.dataclass(frozen=True)
class RecordedJob:
    """One job of an experiment, or a group of jobs that are submitted together.

    Attributes:
        id: Its id in the experiment.
        tasks: The job, or those of the group.
        dependencies: Ids of the jobs that have to succeed before.
        is_group: Whether it was added as a list.
        tail_logs: Whether its lines are printed.
        is_cancelled: Whether somebody has cancelled it.
        refusal: Why it will not be started; empty if it may be, or was.
    """

    id: str
    tasks: tuple[RecordedTask, ...]
    dependencies: tuple[str, ...] = ()
    is_group: bool = False
    tail_logs: bool = False
    is_cancelled: bool = False
    refusal: str = ""


@dataclasses.dataclass(frozen=True)
class RecordedExperiment:
    """An experiment that was run.

    Attributes:
        id: Its id.
        title: Its title.
        created_at: Seconds since the epoch.
        jobs: Its jobs, in the order in which they were added.
        packages: The packages of their code as JSON, by their digests.
        tracker: JSON form of the tracker, or None.
    """

    id: str
    title: str
    created_at: float
    jobs: tuple[RecordedJob, ...]
    packages: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    tracker: Mapping[str, Any] | None = None

    def job(self, name: str) -> RecordedJob:
        """Returns a job by its id.

        Raises:
            SettingsError: There is none.
        """
        check_job(self.id, [job.id for job in self.jobs], name)
        return next(job for job in self.jobs if job.id == name)

    def with_job(self, job: RecordedJob) -> RecordedExperiment:
        """Returns the experiment with a changed job."""
        return dataclasses.replace(self, jobs=tuple(job if each.id == job.id else each for each in self.jobs))

    def with_key(self, job_id: str, name: str, key: str) -> RecordedExperiment:
        """Returns the experiment with the key of one of its jobs."""
        job = self.job(job_id)
        tasks = [dataclasses.replace(task, key=key) if task.name == name else task for task in job.tasks]
        return self.with_job(dataclasses.replace(job, tasks=tuple(tasks)))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RecordedExperiment:
        """The inverse of ``dataclasses.asdict``, as JSON has it."""
        return cls(**{**data, "jobs": tuple(map(_read_job, data["jobs"]))})


def _read_job(data: Mapping[str, Any]) -> RecordedJob:
    def read_task(task: Mapping[str, Any]) -> RecordedTask:
        return RecordedTask(**{**task, "allow": tuple(task["allow"]), "outputs": tuple(task["outputs"])})

    return RecordedJob(
        **{**data, "tasks": tuple(map(read_task, data["tasks"])), "dependencies": tuple(data["dependencies"])}
    )


def check_job(experiment: str, jobs: Sequence[str], name: str) -> None:
    """Refuses what is not the id of a job of an experiment.

    Raises:
        SettingsError: It is not.
    """
    if name not in jobs:
        listed = f"; its jobs are {', '.join(jobs)}" if jobs else ""
        raise SettingsError(f"experiment {experiment} has no job {name!r}{similar(name, jobs)}{listed}")


def check_name(name: str, what: str) -> None:
    """Refuses what cannot name files, tasks and runs.

    Raises:
        ConfigError: It cannot.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} {name!r} cannot name files and tasks: give at most 100 letters, digits, '_', '-' and '.', a "
            "letter or a digit first"
        )


class ExperimentRecords:
    """The experiments of this machine's user, one file each, beside the records of launched jobs.

    Args:
        folder: The folder; ``experiments`` in :func:`nemo_airflow.settings.home` when None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or settings.home() / "experiments"

    def create(self, record: RecordedExperiment) -> RecordedExperiment:
        """Writes the record of a new experiment; returns it, with a later id where its own is taken.

        Raises:
            SettingsError: The folder cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._changing():
            title, _, second = record.id.rpartition("_")
            number = int(second)
            while self._path(f"{title}_{number}").exists():  # another one of this second
                number += 1
            record = dataclasses.replace(record, id=f"{title}_{number}")
            self._save(record)
        return record

    def load(self, experiment_id: str) -> RecordedExperiment:
        """Returns an experiment by its id.

        Raises:
            SettingsError: There is none, or its record cannot be read.
        """
        try:
            return self._read(self._path(experiment_id))
        except FileNotFoundError:
            known = [record.id for record in self.list()]
            raise SettingsError(
                f"no experiment {experiment_id!r} was run on this machine{similar(experiment_id, known)}; "
                "'nemo-airflow experiment list' lists them"
            ) from None

    def newest(self, title: str) -> RecordedExperiment:
        """Returns the experiment of a title that was made last.

        Raises:
            SettingsError: There is none.
        """
        records = self.list()
        found = [record for record in records if record.title == title]
        if not found:
            raise SettingsError(
                f"no experiment with the title {title!r} was run on this machine"
                f"{similar(title, {record.title for record in records})}; 'nemo-airflow experiment list' lists them"
            )
        return found[-1]

    def list(self) -> list[RecordedExperiment]:
        """Returns all experiments, the oldest first.

        Raises:
            SettingsError: A record cannot be read.
        """
        found = []
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # another process deletes it
                found.append(self._read(path))
        return sorted(found, key=lambda record: (record.created_at, record.id))

    def change(
        self, experiment_id: str, change: Callable[[RecordedExperiment], RecordedExperiment]
    ) -> RecordedExperiment:
        """Changes a record while no other process and no other thread does, and returns it."""
        with self._changing():
            record = change(self.load(experiment_id))
            self._save(record)
        return record

    def bringing(self, experiment_id: str) -> contextlib.AbstractContextManager[bool]:
        """Yields whether this process is the one that submits and follows the jobs of the experiment."""
        return try_lock(self.folder / f"{experiment_id}.lock")

    def log_of(self, experiment_id: str) -> Path:
        """Returns the path of what the process prints that brings an experiment to its end in the background."""
        return self.folder / f"{experiment_id}.log"

    def find_old(self, before: float, has_ended: Callable[[RecordedExperiment], bool]) -> Iterator[Path]:
        """Yields the files of experiments that have ended and were last changed before then.

        Args:
            before: Seconds since the epoch.
            has_ended: Says of an experiment whether it has ended.
        """
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, SettingsError):
                if path.stat().st_mtime < before and has_ended(self._read(path)):
                    beside = (path.with_suffix(".lock"), self.log_of(path.stem))
                    yield from (path, *(each for each in beside if each.exists()))

    def _save(self, record: RecordedExperiment) -> None:
        write_privately(self._path(record.id), dataclasses.asdict(record))

    def _read(self, path: Path) -> RecordedExperiment:
        try:
            return RecordedExperiment.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise SettingsError(f"{path} cannot be read ({error}): delete it to forget that experiment") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        with (self.folder / "changes").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _path(self, experiment_id: str) -> Path:
        if not _ID.fullmatch(experiment_id):
            raise SettingsError(
                f"{experiment_id!r} is not the id of an experiment: 'nemo-airflow experiment list' lists them"
            )
        return self.folder / f"{experiment_id}.json"
