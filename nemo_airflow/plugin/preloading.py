"""Imports what tasks need where Airflow forks them: once for all tasks of a process, not once in each.

The scheduler with Airflow's LocalExecutor, and a Celery worker, fork a process for each task, which then imports what
its DAG file imports: half a second of processor for the operator, three for MLflow and its database store.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import PurePath

from nemo_airflow import settings

_TASKS = (
    "nemo_airflow.operators",
    "nemo_airflow.decorators.nemo",
    "nemo_airflow.executors.local",
    "nemo_airflow.config.plan.versions",
    "nemo_airflow.store.trees",
)

_DATABASE_STORE = (
    "nemo_airflow.tracking.mlflow.client",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.artifact.artifact_repository_registry",
    "alembic.command",
    "alembic.config",
)


def preload() -> None:
    """Imports it in a process that forks tasks, and nothing in another. The setting ``preload`` switches it off."""
    if not forks_tasks(sys.argv) or not settings.preloads():
        return
    for module in _TASKS:
        importlib.import_module(module)
    if uses_a_database():
        for module in _DATABASE_STORE:
            importlib.import_module(module)


def forks_tasks(arguments: Sequence[str]) -> bool:
    """Returns whether a process with these arguments forks tasks: ``airflow scheduler``, ``airflow celery worker``."""
    name = PurePath(arguments[0]) if arguments else PurePath()
    if name.name != "airflow" and name.parts[-2:] != ("airflow", "__main__.py"):
        return False
    return arguments[1:2] == ["scheduler"] or arguments[1:3] == ["celery", "worker"]


def uses_a_database() -> bool:
    """Returns whether the tracker of tasks that name none is MLflow on a database, and it is installed."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "")
    return not address.startswith(("http://", "https://")) and importlib.util.find_spec("mlflow") is not None
