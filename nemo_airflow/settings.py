"""Where this project keeps its files, and the few settings that are not arguments."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """Returns the folder for packages, local jobs and the default tracking store.

    ``$NEMO_AIRFLOW_HOME``; else ``nemo_airflow`` in ``$AIRFLOW_HOME``, which is ``~/airflow``
    unless set, as for Airflow itself.
    """
    if folder := os.environ.get("NEMO_AIRFLOW_HOME"):
        return Path(folder).expanduser().absolute()
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser().absolute() / "nemo_airflow"


def mlflow_page() -> str:
    """Returns the address of an MLflow page that shows the default store, or an empty string."""
    return os.environ.get("NEMO_AIRFLOW_MLFLOW_PAGE", "")


def packages_folder() -> Path:
    """Returns the folder of the package store."""
    return home() / "packages"


def package_format() -> str:
    """Returns the format of packages whose packager does not say, ``$NEMO_AIRFLOW_PACKAGE_FORMAT``; empty for none."""
    return os.environ.get("NEMO_AIRFLOW_PACKAGE_FORMAT", "")


def store_url() -> str:
    """Returns the address of the store that several machines share, ``$NEMO_AIRFLOW_STORE``; empty for none.

    For example ``/mnt/shared/nemo`` or ``s3://conn_id@bucket/prefix``; see :mod:`nemo_airflow.packaging.store.address`.
    """
    return os.environ.get("NEMO_AIRFLOW_STORE", "")


def allow() -> str:
    """Returns what may be imported besides what configs name, ``$NEMO_AIRFLOW_ALLOW``; empty for nothing.

    Names and prefixes with commas between them; see :mod:`nemo_airflow.config.allow`.
    """
    return os.environ.get("NEMO_AIRFLOW_ALLOW", "")


def jobs_folder() -> Path:
    """Returns the folder under which each local job has its own."""
    return home() / "jobs"


def bundles_folder() -> Path:
    """Returns the folder of archives that are on their way to a back-end that takes them as files."""
    return home() / "bundles"
