"""What this machine remembers of the jobs that were launched from it, so that each can be found again by its key."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow import settings
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.registry import executor_from_json
from nemo_airflow.follow import Outcome
from nemo_airflow.job import JobHandle
from nemo_airflow.language.nearest import similar
from nemo_airflow.tracking.run import TrackedRun

_LISTED = 5
"""Keys that the message about an ambiguous one names."""


@dataclasses.dataclass(frozen=True)
class Launched:
    """A job that was launched from this machine.

    Attributes:
        key: The job's key.
        name: Its name, for people.
        executor: JSON form of its executor, without secrets.
        digest: Digest of its plan.
        launched_at: Seconds since the epoch.
        handle: The job; None until it is submitted.
        run: Its run in the tracker, as :meth:`TrackedRun.to_json`; None if it is not tracked.
        outcome: How it ended, as :meth:`Outcome.to_json`, once all that came of it is kept.
        state: What those who follow it note, as a task does in its state store.
    """

    key: str
    name: str
    executor: Mapping[str, Any]
    digest: str
    launched_at: float
    handle: Mapping[str, Any] | None = None
    run: Mapping[str, Any] | None = None
    outcome: Mapping[str, Any] | None = None
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def where(self) -> Executor:
        """The executor.

        Raises:
            ExecutorError: It is not installed here any more.
        """
        return executor_from_json(self.executor)

    @property
    def job(self) -> JobHandle:
        """The handle; for a job that is not known to be submitted one by which its back-end may still know it."""
        return JobHandle.from_json(self.handle) if self.handle else JobHandle(self.key, self.executor["kind"], "")

    @property
    def tracked(self) -> TrackedRun | None:
        """The run, or None."""
        return TrackedRun.from_json(self.run) if self.run else None

    @property
    def end(self) -> Outcome | None:
        """How it ended, or None."""
        return Outcome.from_json(self.outcome) if self.outcome else None

    @property
    def run_page(self) -> str:
        """The address of the run's page, or empty."""
        return str(((self.run or {}).get("ref") or {}).get("url") or "")


class Records:
    """The records of this machine's user, one file each.

    Args:
        folder: The folder; ``launched`` in :func:`nemo_airflow.settings.home` when None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or settings.home() / "launched"

    def save(self, record: Launched) -> None:
        """Writes a record, whole or not at all.

        Raises:
            SettingsError: The folder cannot be written.
        """
        write_privately(self._path(record.key), dataclasses.asdict(record))

    def change(self, key: str, **fields: Any) -> Launched:
        """Changes fields of a record, and returns it."""
        record = dataclasses.replace(self.load(key), **fields)
        self.save(record)
        return record

    def load(self, key: str) -> Launched:
        """Returns the record of a key.

        Raises:
            SettingsError: There is none, or it cannot be read.
        """
        record = self.get(key)
        if record is None:
            raise SettingsError(f"no job {key!r} was launched from this machine")
        return record

    def get(self, key: str) -> Launched | None:
        """Returns the record of a key, or None where there is none.

        Raises:
            SettingsError: It cannot be read.
        """
        with contextlib.suppress(FileNotFoundError):
            return self._read(self._path(key))
        return None

    def _read(self, path: Path) -> Launched:
        try:
            return Launched(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise
        except (OSError, ValueError, TypeError) as error:
            raise SettingsError(f"{path} cannot be read ({error}): delete it to forget that job") from error

    def find(self, text: str) -> Launched:
        """Returns the record of a key, or of the beginning of a key, or the newest of a name; ``last`` is the newest.

        Raises:
            SettingsError: None is called so, or several keys begin so.
        """
        found = self.look_up(text)
        if found is None:
            raise SettingsError(
                f"no job {text!r} was launched from this machine{similar(text, [each.key for each in self.list()])}; "
                "'nemo-airflow jobs' lists them, and --executor EXECUTOR finds that of a task on its back-end"
            )
        return found

    def look_up(self, text: str) -> Launched | None:
        """Returns what :meth:`find` does, or None where none is called so.

        Raises:
            SettingsError: Several keys begin so.
        """
        records = self.list()
        for found in (
            records[:1] if text == "last" else [],
            [record for record in records if record.key == text],
            [record for record in records if record.name == text][:1],
            [record for record in records if text and record.key.startswith(text)],
        ):
            if len(found) == 1:
                return found[0]
            if found:
                named = ", ".join(record.key for record in found[:_LISTED])
                more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
                raise SettingsError(f"{text!r} is the beginning of {named}{more}: give more of the key")
        return None

    def list(self) -> list[Launched]:
        """Returns all records, those that were launched last before the others.

        Raises:
            SettingsError: One cannot be read.
        """
        found = []
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # another process deletes it
                found.append(self._read(path))
        return sorted(found, key=lambda record: (-record.launched_at, record.key))

    def find_old(self, before: float) -> Iterator[Path]:
        """Yields the files of jobs that ended before then, in seconds since the epoch."""
        for path in self.folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError, SettingsError):
                if path.stat().st_mtime < before and self.load(path.stem).outcome:
                    beside = (self._lock_of(path.stem), self.log_of(path.stem))
                    yield from (path, *(each for each in beside if each.exists()))

    @contextlib.contextmanager
    def recording(self, key: str) -> Iterator[bool]:
        """Yields whether this process is the one that records and keeps what comes of the job."""
        with try_lock(self._lock_of(key)) as records_it:
            yield records_it

    def log_of(self, key: str) -> Path:
        """Returns the path of what the process prints that records a job nobody looks at."""
        return self.folder / f"{key}.log"

    def _lock_of(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _path(self, key: str) -> Path:
        if not key or "/" in key or key.startswith("."):
            raise SettingsError(f"{key!r} is not the key of a job: 'nemo-airflow jobs' lists them")
        return self.folder / f"{key}.json"


def write_privately(path: Path, data: Mapping[str, Any]) -> None:
    """Writes a record that only its owner may read, whole or not at all: a plan, or a patch, may be in it.

    Raises:
        SettingsError: The folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(data, file)
        new.replace(path)
    except OSError as error:
        raise SettingsError(
            f"cannot write {path}: {error.strerror}; set NEMO_AIRFLOW_HOME to a folder that can be written"
        ) from error


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Yields whether the lock of a file is this process's own while the block runs; False where another one has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


class RecordedState:
    """What those who follow a job note in its record; as Airflow's task state store.

    Args:
        records: The records.
        key: The job's key.
    """

    def __init__(self, records: Records, key: str) -> None:
        self._records = records
        self._key = key

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the noted value."""
        return self._records.load(self._key).state.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Notes a value."""
        record = self._records.load(self._key)
        self._records.save(dataclasses.replace(record, state={**record.state, key: value}))
