"""The interface of an MLflow tracking store, for a server and for a database."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import tempfile
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from nemo_airflow.exceptions import MissingExtraError, TrackingError
from nemo_airflow.tracking.base import Metric, PartlyRefusedError, RunInput, UploadWatch
from nemo_airflow.tracking.mlflow import artifact_errors
from nemo_airflow.tracking.mlflow.fields import KEY, PARENT, PLAN_DIGEST, clean_path
from nemo_airflow.tracking.mlflow.lines import Line
from nemo_airflow.tracking.mlflow.registered import RegisteredModel, RegisteredVersion

RUN_ID = re.compile(r"[0-9a-f]{32}")

NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
INVALID = "INVALID_PARAMETER_VALUE"

INTERNAL = "INTERNAL_ERROR"

_TRANSIENT_CODES = frozenset(
    {INTERNAL, "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
)
"""MLflow's error codes after which the same call may succeed later."""

_PERMANENT_DATABASE_ERROR = re.compile(
    r"database or disk is full|readonly database|no such (table|column)", re.IGNORECASE
)
"""Messages of a database that MLflow reports with the same code as one that is locked or unreachable."""


_RACE = re.compile(r"UNIQUE constraint failed|violates unique constraint|Duplicate entry", re.IGNORECASE)
"""What SQLite, PostgreSQL and MySQL say to the second of two who make a row at once, which it finds the next time."""


def is_transient_answer(code: str, message: str) -> bool:
    """Returns whether MLflow's error code and message are those of a call that may succeed later."""
    if code == "BAD_REQUEST":  # among others, for all that a database calls an error of integrity
        return bool(_RACE.search(message))
    return code in _TRANSIENT_CODES and not _PERMANENT_DATABASE_ERROR.search(message)


@dataclasses.dataclass(frozen=True)
class Credentials:
    """How to log in to a tracking server.

    Attributes:
        username: For basic authentication, with ``password``.
        password: Never shown.
        token: A bearer token, used when there is no user name. Never shown.
        verify: Whether the server's certificate is checked, or the file of the authority to trust.
        client_cert: PEM file with the client's own certificate and key, or empty.
    """

    username: str = ""
    password: str = dataclasses.field(default="", repr=False)
    token: str = dataclasses.field(default="", repr=False)
    verify: bool | str = True
    client_cert: str = ""

    @property
    def given(self) -> bool:
        """Whether there are any credentials."""
        return bool(self.username or self.token or self.client_cert)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as the store has it.

    Attributes:
        run_id: Its id.
        experiment_id: The experiment's id.
        status: ``RUNNING``, ``FINISHED``, ``FAILED``, ``KILLED`` or ``SCHEDULED``.
        artifact_uri: Where its artifacts are.
        tags: Tags by name.
        params: Parameters by name.
        name: Its name, for people.
        start_ms: When it began, in milliseconds since the epoch; 0 where that is not known.
        end_ms: When it ended last, in milliseconds since the epoch, or None. A run that goes on keeps it.
        models: Ids of the models that it has made.
        latest: Step of each metric's newest point, and its time in milliseconds since the epoch. The newest has
            the highest step, and of these the latest.
        metrics: The value of each metric's newest point.
        inputs: The data sets that it was given.
    """

    run_id: str
    experiment_id: str
    status: str
    artifact_uri: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    name: str = ""
    start_ms: int = 0
    end_ms: int | None = None
    models: frozenset[str] = frozenset()
    latest: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    inputs: tuple[RunInput, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether the run has a final status."""
        return self.status not in ("RUNNING", "SCHEDULED")


PENDING = "PENDING"
"""Status of a logged model whose files are not all there."""


@dataclasses.dataclass(frozen=True)
class LoggedModel:
    """A model that a run has made.

    Attributes:
        model_id: Its id.
        artifact_uri: Where its files are.
        status: ``PENDING``, ``READY`` or another one.
    """

    model_id: str
    artifact_uri: str
    status: str


@dataclasses.dataclass(frozen=True)
class StoredFile:
    """A file or folder of a run.

    Attributes:
        path: Its path in the run, with slashes.
        size: Its bytes; 0 for a folder.
        is_folder: Whether it is one.
    """

    path: str
    size: int = 0
    is_folder: bool = False

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]


class Store(Protocol):
    """An MLflow tracking store. Methods block, may be called from any thread, and do not retry.

    Every method raises :class:`~nemo_airflow.exceptions.TrackingError`.
    """

    uri: str

    def experiment(self, name: str) -> str | None:
        """Returns the id of the experiment of that name, or None if there is none."""

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        """Creates an experiment and returns its id."""

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """Creates a run."""

    def search(self, experiment_id: str, tag: str, value: str, *, running: bool = False) -> list[Run]:
        """Returns at most 1,000 runs with the tag, without deleted ones; only running ones if ``running``."""

    def latest_end(self, experiment_id: str, parent_id: str) -> int | None:
        """Returns when the last of the jobs below a parent run ended, in milliseconds since the epoch."""

    def search_jobs(self, which: str, order: Sequence[str], limit: int, page: str = "") -> tuple[list[Run], str]:
        """Returns a page of the runs of jobs in all experiments, and the token of the next page, or an empty text.

        Args:
            which: MLflow's filter, on top of that for runs of jobs; or an empty text.
            order: What to sort by, in MLflow's words, such as ``attributes.start_time DESC``.
            limit: How many runs a page has at most.
            page: The token of a page, for the same filter and order; the first one when empty.
        """

    def tag_values(self, tag: str) -> set[str]:
        """Returns the values of a tag in all runs, without deleted runs and experiments."""

    def run(self, run_id: str) -> Run:
        """Returns a run."""

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Sets the run's status and end time."""

    def delete_run(self, run_id: str) -> None:
        """Deletes a run: it is no longer shown."""

    def write_once(self, run_id: str, param: str, value: str) -> None:
        """Sets a parameter. Refused with ``INVALID`` if it has another value: only the first write counts."""

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Writes one batch: at most 1,000 values, at most 100 of them parameters, at most 100 tags."""

    def log_inputs(self, run_id: str, inputs: Sequence[RunInput]) -> None:
        """Records what a run was given, as inputs of the run; done again, it changes nothing."""

    def create_model(self, run: Run, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """Creates a logged model whose source is the run, with at most 100 parameters."""

    def models(self, experiment_id: str, tag: str, value: str) -> list[LoggedModel]:
        """Returns the logged models with the tag, without deleted ones."""

    def model(self, model_id: str) -> LoggedModel:
        """Returns a logged model."""

    def set_model_ready(self, model_id: str) -> None:
        """Declares that all files of a logged model are there."""

    def delete_model(self, model_id: str) -> None:
        """Deletes a logged model: it is no longer shown."""

    def add_output(self, run_id: str, model_id: str) -> None:
        """Records a logged model as an output of a run; done again, it is there twice."""

    def model_versions(self, which: str, limit: int) -> list[RegisteredVersion]:
        """Returns the newest versions of registered models that a filter of MLflow selects, at most so many."""

    def registered_models(self, which: str, limit: int) -> list[RegisteredModel]:
        """Returns the registered models that a filter of MLflow selects, at most so many."""

    def history(self, run_id: str, metric: str) -> list[Metric]:
        """Returns every point of a metric."""

    def sampled(self, run_ids: Sequence[str], metric: str, limit: int) -> dict[str, list[Metric]]:
        """Returns points of a metric in several runs by the run's id, in the order of their steps.

        Args:
            run_ids: The runs.
            metric: The metric.
            limit: How many points of each run, about; of more, a sample with the first and the last one.
        """

    def line(self, run_id: str, metric: str, limit: int, since: int, until: int) -> Line:
        """Returns what a chart needs of a metric.

        Args:
            run_id: The run.
            metric: The metric.
            limit: How many points, about: of few all, whatever this is.
            since: The first step.
            until: The last one.
        """

    def upload(self, run: Run, files: Mapping[str, Path], watch: UploadWatch) -> None:
        """Uploads files as artifacts, by their path in the run; see :meth:`.Tracker.artifacts`."""

    def read(self, run: Run, path: str) -> bytes | None:
        """Returns a small artifact by its path in the run, or None if it does not exist."""

    def list_files(self, run: Run, folder: str) -> list[StoredFile]:
        """Returns the artifacts in a folder of the run, which may be empty for the top."""

    def read_pieces(self, run: Run, path: str) -> Generator[bytes]:
        """Yields an artifact in pieces, each of at most some 100 KiB; close it to stop before the end."""

    def delete_tag(self, run_id: str, name: str) -> None:
        """Deletes a tag of a run, which has it."""


_REFUSALS = 3
"""Refused files, with none accepted, after which the others are not tried."""

_NAMED = 10
"""Refused files that the error names."""

_lock = threading.Lock()


def open_store(uri: str, credentials: Credentials) -> Store:
    """Returns this process's store for an address and login.

    Raises:
        MissingExtraError: The full MLflow package, which this kind of store needs, is not installed.
        TrackingError: The store cannot be opened.
    """
    with _lock:  # two threads must not import MLflow or open a database at once
        return _open_store(uri, credentials, os.getpid())


@functools.cache
def _open_store(uri: str, credentials: Credentials, pid: int) -> Store:  # a fork must not use its parent's sockets
    if urlsplit(uri).scheme in ("http", "https"):
        from nemo_airflow.tracking.mlflow.rest import RestStore

        return RestStore(uri, credentials)
    try:
        from nemo_airflow.tracking.mlflow.client import ClientStore

        return ClientStore(uri)
    except ImportError as error:
        raise MissingExtraError(f"MLflowTracker(tracking_uri={uri!r})", "mlflow") from error


def search_filter(tag: str, value: str, running: bool) -> str:
    """Returns MLflow's filter for runs with a tag."""
    return f"tags.`{tag}` = '{value}'" + (" AND attributes.status = 'RUNNING'" if running else "")


def ended_jobs_filter(parent_id: str) -> str:
    """Returns MLflow's filter for the jobs below a parent run that have ended."""
    return f"tags.`{PARENT}` = '{parent_id}' AND tags.`{KEY}` LIKE '%' AND attributes.end_time > 0"


NEWEST_END_FIRST = "attributes.end_time DESC"
NEWEST_FIRST = "attributes.start_time DESC"


def jobs_filter(which: str) -> str:
    """Returns MLflow's filter for those runs of jobs that another filter, if it is not empty, selects."""
    return " AND ".join(filter(None, (f"tags.`{PLAN_DIGEST}` LIKE '%'", which)))  # a parent run has no plan


def newest_jobs(store: Store, beginning: str, limit: int) -> list[Run]:
    """Returns the runs of jobs whose keys begin so, those that began last first."""
    unquoted = beginning.replace("'", "_")  # MLflow's filter has no way to write a quote
    which = f"tags.`{KEY}` LIKE '{unquoted}%'" if beginning else ""
    found, _ = store.search_jobs(which, [NEWEST_FIRST], limit)
    return [run for run in found if run.tags.get(KEY, "").startswith(beginning)]


def runs_by_id(store: Store, run_ids: Sequence[str]) -> list[Run]:
    """Returns those of the runs that are runs of jobs, in no order: by one search for all."""
    named = sorted({run_id for run_id in run_ids if RUN_ID.fullmatch(run_id)})
    if not named:
        return []
    which = "attributes.run_id IN ({})".format(", ".join(f"'{run_id}'" for run_id in named))
    return store.search_jobs(which, [NEWEST_FIRST], len(named))[0]


def sample(points: Sequence[Metric], limit: int) -> list[Metric]:
    """Returns at most so many of the points, two at least, at equal distances: with the first and the last one."""
    if len(points) <= limit:
        return list(points)
    last = max(limit, 2) - 1
    return [points[round(number * (len(points) - 1) / last)] for number in range(last + 1)]


def upload_to_repository(run: Run, files: Mapping[str, Path], tracking_uri: str, watch: UploadWatch) -> None:
    """Uploads files to the run's artifact store: a folder, S3, Google Cloud Storage ...

    Raises:
        PartlyRefusedError: Some files were refused, after all were tried.
        TrackingError: All were refused; or no store of this kind can be used.
    """
    try:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    except ImportError as error:
        raise MissingExtraError(f"Keeping artifacts in {run.artifact_uri}", "mlflow") from error
    try:
        repository = get_artifact_repository(run.artifact_uri, tracking_uri=tracking_uri)
    except Exception as error:  # nothing was sent yet: the scheme is unknown, or its package is missing
        raise _refused(run, error, transient=False) from error
    refused: dict[str, TrackingError] = {}
    stored = 0
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        for path, file in files.items():
            folder, _, name = clean_path(path).rpartition("/")
            try:
                source = file if name == file.name else _link_as(file, Path(scratch, name))
                repository.log_artifact(str(source), folder or None)
            except Exception as error:  # each artifact store raises the errors of its own client library
                permanent = artifact_errors.is_permanent(error)
                failure = _refused(run, error, transient=not permanent)
                failure.__cause__ = error
                if not permanent:
                    raise failure from error
                refused[path] = failure
                if not stored and len(refused) >= _REFUSALS:
                    break
            else:
                stored += 1
                watch.sent(file.stat().st_size)
                watch.stored(path)
    raise_refused(refused, stored)


def _link_as(file: Path, link: Path) -> Path:
    """Returns the file under another name: a repository uses the file's own."""
    link.unlink(missing_ok=True)
    link.symlink_to(file.absolute())
    return link


def raise_refused(refused: Mapping[str, TrackingError], stored: int) -> None:
    """Raises what an upload has come to.

    Args:
        refused: The errors of the files that are not stored, by path.
        stored: How many files are.

    Raises:
        PartlyRefusedError: Some are stored, and the others were refused for good.
        TrackingError: None is stored; or one that is not may be taken later.
    """
    if not refused:
        return
    first = min(refused.values(), key=lambda error: not error.transient)
    if first.transient or not stored:
        raise first
    shown = ", ".join(list(refused)[:_NAMED]) + (f" and {len(refused) - _NAMED} more" if len(refused) > _NAMED else "")
    raise PartlyRefusedError(f"{shown}: {first}", len(refused)) from first


def _refused(run: Run, error: Exception, *, transient: bool) -> TrackingError:
    return TrackingError(
        f"cannot keep artifacts in {run.artifact_uri}: {artifact_errors.describe(error)}",
        transient=transient,
        code=artifact_errors.code_of(error),
    )


def read_from_repository(run: Run, path: str, tracking_uri: str) -> bytes | None:
    """Returns an artifact from the run's artifact store, or None if it does not exist."""
    try:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    except ImportError as error:
        raise MissingExtraError(f"Reading artifacts of {run.artifact_uri}", "mlflow") from error
    try:
        repository = get_artifact_repository(run.artifact_uri, tracking_uri=tracking_uri)
        folder = path.rpartition("/")[0]
        if path not in {file.path for file in repository.list_artifacts(folder or None)}:
            return None
        with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
            return Path(repository.download_artifacts(path, scratch)).read_bytes()
    except Exception as error:  # each artifact store raises the errors of its own client library
        raise TrackingError(
            f"cannot read {path} of {run.artifact_uri}: {artifact_errors.describe(error)}",
            transient=not artifact_errors.is_permanent(error),
        ) from error
