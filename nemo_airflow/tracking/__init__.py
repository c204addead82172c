"""Records jobs: the interface of a tracker is in ``base``, MLflow's tracker in ``mlflow``.

Third parties register a tracker under its ``kind`` in the entry-point group
``nemo_airflow.trackers``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "ArtifactCollector": "artifacts",
    "CollectEverything": "artifacts",
    "MLflowTracker": "mlflow",
    "Metric": "base",
    "RunRef": "base",
    "Tracker": "base",
    "TrackerQueue": "queue",
    "runs": "frames",
    "tracker_from_json": "registry",
}

__all__ = [
    "ArtifactCollector",
    "CollectEverything",
    "MLflowTracker",
    "Metric",
    "RunRef",
    "Tracker",
    "TrackerQueue",
    "runs",
    "tracker_from_json",
]

if TYPE_CHECKING:
    from nemo_airflow.tracking.artifacts import ArtifactCollector, CollectEverything
    from nemo_airflow.tracking.base import Metric, RunRef, Tracker
    from nemo_airflow.tracking.frames import runs
    from nemo_airflow.tracking.mlflow import MLflowTracker
    from nemo_airflow.tracking.queue import TrackerQueue
    from nemo_airflow.tracking.registry import tracker_from_json


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
