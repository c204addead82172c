"""What the tracker asks of an MLflow tracking store, whichever way it is reached."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from nemo_airflow.exceptions import MissingExtraError, TrackingError
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow import artifact_errors

NOT_FOUND = "RESOURCE_DOES_NOT_EXIST"
ALREADY_EXISTS = "RESOURCE_ALREADY_EXISTS"
INVALID = "INVALID_PARAMETER_VALUE"

TRANSIENT_CODES = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
)
"""MLflow's error codes after which the same call may succeed later."""


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
        """Whether there is anything to log in with."""
        return bool(self.username or self.token or self.client_cert)


@dataclasses.dataclass(frozen=True)
class Run:
    """A run as the store has it now.

    Attributes:
        run_id: Its id.
        experiment_id: The experiment's id.
        status: ``RUNNING``, ``FINISHED``, ``FAILED``, ``KILLED`` or ``SCHEDULED``.
        artifact_uri: Where its artifacts are.
        tags: Tags by name.
        params: Parameters by name.
        latest: Step of each metric's newest point, and its time in milliseconds since the epoch. The newest is that of
            the highest step, and of these the latest.
    """

    run_id: str
    experiment_id: str
    status: str
    artifact_uri: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    latest: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether the run has a final status."""
        return self.status not in ("RUNNING", "SCHEDULED")


class Store(Protocol):
    """An MLflow tracking store. Methods block, may be called from any thread, and never try again by themselves.

    Every method raises :class:`~nemo_airflow.exceptions.TrackingError`.
    """

    uri: str

    def experiment(self, name: str) -> str | None:
        """Returns the id of an experiment, or None when there is none of that name."""

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        """Makes an experiment and returns its id."""

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """Makes a run."""

    def search(self, experiment_id: str, tag: str, value: str, *, running: bool = False) -> list[Run]:
        """Returns at most 1,000 runs that have the tag, without deleted ones; only running ones where asked to."""

    def tag_values(self, tag: str) -> set[str]:
        """Returns the values that a tag has in any run, deleted runs and experiments left out."""

    def run(self, run_id: str) -> Run:
        """Returns a run."""

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """Sets the run's status, and when it ended."""

    def delete_run(self, run_id: str) -> None:
        """Deletes a run, so that it is no longer shown."""

    def write_once(self, run_id: str, param: str, value: str) -> None:
        """Sets a parameter. Refused with ``INVALID`` when it has another value: only the first write counts."""

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Writes one batch: at most 1,000 values, at most 100 of them parameters, at most 100 tags."""

    def history(self, run_id: str, metric: str) -> list[Metric]:
        """Returns every point of a metric."""

    def upload(self, run: Run, files: Mapping[str, Path]) -> None:
        """Keeps files as artifacts, by their path in the run."""

    def read(self, run: Run, path: str) -> bytes | None:
        """Returns a small artifact by its path in the run, or None when the run has none of that path."""


_REFUSALS = 3
"""Files that an artifact store may refuse, before it has taken one, until the others are not tried."""

_lock = threading.Lock()


def open_store(uri: str, credentials: Credentials) -> Store:
    """Returns this process's store for an address: one for each address and login.

    Raises:
        MissingExtraError: The full MLflow package, which this kind of store needs, is not installed.
        TrackingError: The store cannot be opened.
    """
    with _lock:  # MLflow must not be imported, nor a database be opened, by two threads at once
        return _open_store(uri, credentials, os.getpid())


@functools.cache
def _open_store(uri: str, credentials: Credentials, pid: int) -> Store:  # a fork must not share its parent's sockets
    if urlsplit(uri).scheme in ("http", "https"):
        from nemo_airflow.tracking.mlflow.rest import RestStore

        return RestStore(uri, credentials)
    try:
        from nemo_airflow.tracking.mlflow.client import ClientStore

        return ClientStore(uri)
    except ImportError as error:
        raise MissingExtraError(f"MLflowTracker(tracking_uri={uri!r})", "mlflow") from error


def search_filter(tag: str, value: str, running: bool) -> str:
    """Returns MLflow's filter for the runs that have a tag."""
    return f"tags.`{tag}` = '{value}'" + (" AND attributes.status = 'RUNNING'" if running else "")


def upload_to_repository(run: Run, files: Mapping[str, Path], tracking_uri: str) -> None:
    """Keeps files in the artifact store that the run names: a folder, S3, Google Cloud Storage ...

    Raises:
        TrackingError: Some files were refused, and the others were tried; or no store of that kind can be used.
    """
    try:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    except ImportError as error:
        raise MissingExtraError(f"Keeping artifacts in {run.artifact_uri}", "mlflow") from error
    try:
        repository = get_artifact_repository(run.artifact_uri, tracking_uri=tracking_uri)
    except Exception as error:  # nothing was sent yet: no store of that scheme, or its package is missing
        raise _refused(run, error, transient=False) from error
    refused: Exception | None = None
    kept = failures = 0
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        for path, file in files.items():
            folder, _, name = path.rpartition("/")
            try:
                if name != file.name:  # a repository takes the file's own name
                    file = Path(shutil.copyfile(file, Path(scratch, name)))
                repository.log_artifact(str(file), folder or None)
                kept += 1
            except Exception as error:  # each artifact store raises the errors of its own client library
                if not artifact_errors.is_permanent(error):
                    raise _refused(run, error, transient=True) from error
                refused, failures = refused or error, failures + 1
                if not kept and failures >= _REFUSALS:
                    break
    if refused is not None:
        raise _refused(run, refused, transient=False) from refused


def _refused(run: Run, error: Exception, *, transient: bool) -> TrackingError:
    return TrackingError(
        f"cannot keep artifacts in {run.artifact_uri}: {artifact_errors.describe(error)}",
        transient=transient,
        code=artifact_errors.code_of(error),
    )


def read_from_repository(run: Run, path: str, tracking_uri: str) -> bytes | None:
    """Returns an artifact of the artifact store that the run names, or None when it is not there."""
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
        raise TrackingError(f"cannot read {path} of {run.artifact_uri}: {error}", transient=True) from error
