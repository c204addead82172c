"""The files of a run: listed by folder and read in pieces, wherever MLflow keeps them.

The files of a model that the job has logged are below its folder among the job's outputs, as the job made them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from nemo_airflow.exceptions import MissingExtraError, SettingsError, TrackingError
from nemo_airflow.tracking.mlflow import address, artifact_errors, models
from nemo_airflow.tracking.mlflow.store import Run, StoredFile, open_store

PIECE = 256 << 10
"""Bytes that are read at once."""

_DECODED = 3
"""How often a path is decoded to see what a server may make of it."""


class RunFiles:
    """The files of one run. Methods block, and raise :class:`~nemo_airflow.exceptions.TrackingError`.

    Args:
        run_id: The run.
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.

    Raises:
        TrackingError: There is no such run, or the store cannot be reached.
    """

    def __init__(self, run_id: str, tracking_uri: str | None = None, conn_id: str | None = None) -> None:
        self._store = open_store(*address.resolve(tracking_uri, conn_id))
        self._run = self._store.run(run_id)

    def in_folder(self, folder: str = "") -> list[StoredFile]:
        """Returns what is in a folder, folders first; nothing where there is no such folder.

        Raises:
            SettingsError: The path is not one of a file in a run.
        """
        run, inside, above = self._place(check_path(folder) if folder else "")
        found = self._store.list_files(run, inside)
        listed = {above + file.path: dataclasses.replace(file, path=above + file.path) for file in found}
        for made in models.folders(self._run):  # kept elsewhere, so that MLflow does not list them here
            below = made if not folder else made.removeprefix(f"{folder}/")
            if below and (not folder or made.startswith(f"{folder}/")):
                path = "/".join(filter(None, (folder, below.split("/")[0])))
                listed.setdefault(path, StoredFile(path, is_folder=True))
        return sorted(listed.values(), key=lambda file: (not file.is_folder, file.name.lower(), file.path))

    def find(self, path: str) -> StoredFile | None:
        """Returns a file or folder by its path, or None.

        Raises:
            SettingsError: The path is not one of a file in a run.
        """
        folder = check_path(path).rpartition("/")[0]
        return next((file for file in self.in_folder(folder) if file.path == path), None)

    def pieces(self, path: str) -> Generator[bytes]:
        """Yields the content of a file in pieces. Close it to stop before the end.

        Raises:
            SettingsError: The path is not one of a file in a run.
        """
        run, inside, _ = self._place(check_path(path))
        return self._store.read_pieces(run, inside)

    def beginning(self, path: str, limit: int) -> bytes:
        """Returns the first bytes of a file, at most so many."""
        data = bytearray()
        with contextlib.closing(self.pieces(path)) as pieces:
            for piece in pieces:
                data += piece
                if len(data) >= limit:
                    break
        return bytes(data[:limit])

    def _place(self, path: str) -> tuple[Run, str, str]:
        """Returns the run with the root where a path is, the path there, and what is before that in this run."""
        for folder, model_id in models.folders(self._run).items():
            if path == folder or path.startswith(f"{folder}/"):
                place = dataclasses.replace(self._run, artifact_uri=self._store.model(model_id).artifact_uri)
                return place, path.removeprefix(folder).removeprefix("/"), f"{folder}/"
        return self._run, path, ""


def check_path(path: str) -> str:
    """Returns a path that stays in its run.

    Raises:
        SettingsError: It would not: it is absolute, or has a part that is empty or dots, also where it is decoded.
    """
    seen = path
    for _ in range(_DECODED):
        parts = seen.split("/")
        if "\\" in seen or any(part in ("", ".", "..") or min(part) < " " for part in parts) or "://" in seen:
            raise SettingsError(f"{path!r} is not the path of a file in a run")
        seen = unquote(seen)
    return path


def list_repository(run: Run, folder: str, tracking_uri: str) -> list[StoredFile]:
    """Returns what is in a folder of the run's artifact store: a folder, S3, Google Cloud Storage ..."""
    with _errors(run, folder or "the files"):
        found = _repository(run, tracking_uri).list_artifacts(folder or None)
        return [StoredFile(file.path, int(file.file_size or 0), bool(file.is_dir)) for file in found]


def read_repository(run: Run, path: str, tracking_uri: str) -> Generator[bytes]:
    """Yields a file of the run's artifact store; one that is not in a folder of this machine is fetched as a whole."""
    with _errors(run, path), contextlib.ExitStack() as stack:
        repository = _repository(run, tracking_uri)
        if hasattr(repository, "get_local_path"):
            file = Path(repository.get_local_path(path))
        else:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="nemo-airflow-"))
            file = Path(repository.download_artifacts(path, scratch))
        content = stack.enter_context(file.open("rb"))
        while piece := content.read(PIECE):
            yield piece


def _repository(run: Run, tracking_uri: str) -> Any:
    try:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    except ImportError as error:
        raise MissingExtraError(f"Reading artifacts of {run.artifact_uri}", "mlflow") from error
    return get_artifact_repository(run.artifact_uri, tracking_uri=tracking_uri)


@contextlib.contextmanager
def _errors(run: Run, what: str) -> Iterator[None]:
    try:
        yield
    except (MissingExtraError, GeneratorExit):
        raise
    except Exception as error:  # each artifact store raises the errors of its own client library
        raise TrackingError(
            f"cannot read {what} of {run.artifact_uri}: {artifact_errors.describe(error)}",
            transient=not artifact_errors.is_permanent(error),
            code=artifact_errors.code_of(error),
        ) from error
