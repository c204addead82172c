"""An Airflow of the tests' own: a database, folders and settings that are gone when the tests are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

_KEPT_OUT = ("MLFLOW_TRACKING_URI", "NEMO_AIRFLOW_STORE", "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST")
"""Variables that would have a test write to what others share."""


class AirflowHome:
    """An Airflow database in a folder, made when it is first used.

    Args:
        folder: The folder; jobs, packages and the database are kept in it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._has_database = False

    @property
    def jobs(self) -> Path:
        """The folder of the jobs."""
        return self.folder / "nemo" / "jobs"

    @contextlib.contextmanager
    def active(self, dags: Path) -> Iterator[None]:
        """Has this process use this database and these folders, and what it used before afterwards.

        Args:
            dags: The folder that is the DAG bundle.
        """
        try:
            with self.folders_active(self._settings(dags)):
                _connect()
                if not self._has_database:
                    from airflow.utils.db import initdb

                    initdb()
                    self._has_database = True
                yield
        finally:
            _connect()

    @contextlib.contextmanager
    def folders_active(self, settings: Mapping[str, str] | None = None) -> Iterator[None]:
        """Has jobs and packages kept in this folder, without a database; what was set before is set afterwards.

        Args:
            settings: Further variables of the environment.
        """
        changed = {"NEMO_AIRFLOW_HOME": str(self.folder / "nemo"), **(settings or {})}
        before = dict(os.environ)
        os.environ.update(changed)
        for name in _KEPT_OUT:
            os.environ.pop(name, None)
        try:
            yield
        finally:
            for name in set(os.environ) - set(before):  # Airflow leaves some of a run's own, too
                del os.environ[name]
            os.environ.update(before)

    def _settings(self, dags: Path) -> Mapping[str, str]:
        return {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow.db",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.folder / "logs"),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.folder / "bundles"),
        }


def _connect() -> None:
    from airflow import settings

    settings.dispose_orm(do_log=False)
    settings.configure_vars()  # type: ignore[no-untyped-call]  # Airflow's
    settings.configure_orm()  # type: ignore[no-untyped-call]  # Airflow's
