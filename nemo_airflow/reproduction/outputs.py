"""Reads the digests of what came of a run: of its files in MLflow, each by its path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nemo_airflow.artifacts.earlier import explained
from nemo_airflow.hooks.mlflow import MLflowHook
from nemo_airflow.store.shared import sha256_of
from nemo_airflow.tracking.mlflow.recorded import RecordedRun
from nemo_airflow.tracking.reserved import RECORD

if TYPE_CHECKING:
    from mlflow import MlflowClient

LIMIT = 4 << 30
"""Bytes of the outputs of a run that are read at most."""


def output_digests(
    old: RecordedRun, new: RecordedRun, tracking_uri: str | None, conn_id: str | None
) -> tuple[Mapping[str, str] | None, Mapping[str, str] | None]:
    """Returns the SHA-256 of each output of both runs, by path; None for a run whose outputs are too large. Blocks.

    Nothing is read where the shared store has the outputs of both under one digest.

    Raises:
        ArtifactError: MLflow cannot be reached, or refuses.
    """
    if old.outputs_digest and old.outputs_digest == new.outputs_digest:
        both = {"(all)": old.outputs_digest}
        return both, both
    client = MLflowHook(conn_id, tracking_uri).get_conn()
    before = _digests(client, old.run_id)
    return before, _digests(client, new.run_id) if before is not None else None


def _digests(client: MlflowClient, run_id: str) -> dict[str, str] | None:
    with explained(f"read the outputs of run {run_id}"):
        files = dict(_files(client, run_id, None))
        if sum(files.values()) > LIMIT:
            return None
        digests = {}
        for path in sorted(files):
            with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
                digests[path] = sha256_of(Path(client.download_artifacts(run_id, path, scratch)))
        return digests


def _files(client: MlflowClient, run_id: str, folder: str | None) -> Iterator[tuple[str, int]]:
    """Yields the path and the size of each file of a run, besides its record."""
    for found in client.list_artifacts(run_id, folder):
        if found.is_dir and found.path != RECORD:
            yield from _files(client, run_id, found.path)
        elif not found.is_dir:
            yield found.path, found.file_size or 0
