"""Fetches what an earlier run kept, from within a job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def fetch_outputs(run_id: str, path: str = "", into: str = "") -> Path:
    """Fetches the outputs of an earlier run from MLflow, which has to be installed and within reach of the job.

    Where it is not, give the job an artifact: ``Artifact.from_run(run_id, name)`` in its config.

    Args:
        run_id: The run's id in MLflow.
        path: A file or folder among its artifacts; all of them when empty.
        into: The folder for it; ``outputs-RUN_ID`` in the working directory when empty.

    Returns:
        The path of the fetched file or folder.

    Raises:
        RuntimeError: MLflow is not installed, or the job does not know its address.
    """
    import pathlib

    instead = "give the job Artifact.from_run(run_id, name) in its config instead"
    if "MLFLOW_TRACKING_URI" not in os.environ:
        raise RuntimeError(f"fetch_outputs: this job cannot reach MLflow, $MLFLOW_TRACKING_URI is not set: {instead}")
    try:
        from mlflow.artifacts import download_artifacts
    except ImportError as error:
        raise RuntimeError(f"fetch_outputs: MLflow is not installed here: install it, or {instead}") from error
    folder = pathlib.Path(into or f"outputs-{run_id}").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(download_artifacts(run_id=run_id, artifact_path=path or None, dst_path=str(folder)))
