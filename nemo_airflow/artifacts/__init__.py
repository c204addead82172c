"""Artifacts on Airflow's side: kept by their content, found again, and sent to the jobs that are given them.

What an artifact is, and what a job does with one, is in :mod:`nemo_airflow.runner.artifacts`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "archives_for": "keeping",
    "artifact_of_model": "earlier",
    "artifact_of_run": "earlier",
    "fetch_artifact": "keeping",
    "keep_artifacts": "keeping",
}

__all__ = [
    "archives_for",
    "artifact_of_model",
    "artifact_of_run",
    "fetch_artifact",
    "keep_artifacts",
]

if TYPE_CHECKING:
    from nemo_airflow.artifacts.earlier import artifact_of_model, artifact_of_run
    from nemo_airflow.artifacts.keeping import archives_for, fetch_artifact, keep_artifacts


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
