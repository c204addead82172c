"""Where this project keeps its files, and the few settings that are not arguments."""

from __future__ import annotations

import os
from pathlib import Path

from nemo_airflow.exceptions import SettingsError


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
    """Returns the default format of packages, ``$NEMO_AIRFLOW_PACKAGE_FORMAT``; empty if not set."""
    return os.environ.get("NEMO_AIRFLOW_PACKAGE_FORMAT", "")


def store_url() -> str:
    """Returns the address of the shared store, ``$NEMO_AIRFLOW_STORE``; empty if not set.

    For example ``/mnt/shared/nemo`` or ``s3://conn_id@bucket/prefix``; see :mod:`nemo_airflow.store.address`.
    """
    return os.environ.get("NEMO_AIRFLOW_STORE", "")


def allow() -> str:
    """Returns the additional allow-list, ``$NEMO_AIRFLOW_ALLOW``; empty if not set.

    Names and prefixes with commas between them; see :mod:`nemo_airflow.config.allow`.
    """
    return os.environ.get("NEMO_AIRFLOW_ALLOW", "")


def defer_after() -> float:
    """Returns for how many seconds a worker follows a job before its task is deferred, ``$NEMO_AIRFLOW_DEFER_AFTER``.

    Raises:
        SettingsError: It is not a number of at least 0.
    """
    text = os.environ.get("NEMO_AIRFLOW_DEFER_AFTER", "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise SettingsError(f"NEMO_AIRFLOW_DEFER_AFTER={text!r} is not a number of seconds: set one of at least 0")
    return seconds


def refuses_patch_with_secret() -> bool:
    """Returns whether a task fails whose uncommitted changes hold a secret, ``$NEMO_AIRFLOW_PATCH_WITH_SECRET``.

    It is ``apart`` unless set: the patch then stays on this machine. With ``refuse`` the task fails.

    Raises:
        SettingsError: It is neither.
    """
    text = os.environ.get("NEMO_AIRFLOW_PATCH_WITH_SECRET") or "apart"
    if text not in ("apart", "refuse"):
        raise SettingsError(f"NEMO_AIRFLOW_PATCH_WITH_SECRET={text!r} is neither 'apart' nor 'refuse': set it to one")
    return text == "refuse"


def spool_folder() -> Path:
    """Returns the folder of records that a tracking server has not taken yet."""
    return home() / "spool"


def spool_limit() -> int:
    """Returns how many bytes that folder may have, ``$NEMO_AIRFLOW_SPOOL_LIMIT``, 10 GiB unless set.

    Raises:
        SettingsError: It is not a number.
    """
    text = os.environ.get("NEMO_AIRFLOW_SPOOL_LIMIT", str(10 << 30))
    if not text.isdecimal():
        raise SettingsError(f"NEMO_AIRFLOW_SPOOL_LIMIT={text!r} is not a number of bytes: set it to one, or unset it")
    return int(text)


def jobs_folder() -> Path:
    """Returns the parent folder of local jobs' folders."""
    return home() / "jobs"


def bundles_folder() -> Path:
    """Returns the folder of archives on their way to a back-end that needs them as files."""
    return home() / "bundles"


def lost_after() -> float:
    """Returns the seconds after which a job that its back-end does not know counts as lost.

    ``$NEMO_AIRFLOW_LOST_AFTER``, 60 unless set. Several answers of the back-end are needed besides.
    """
    return _seconds("NEMO_AIRFLOW_LOST_AFTER", 60.0) or 0.0


def give_up_after() -> float | None:
    """Returns the seconds of an outage after which a job is followed no more, and its task fails; None for never.

    ``$NEMO_AIRFLOW_GIVE_UP_AFTER``, never unless set. The job itself may go on.
    """
    return _seconds("NEMO_AIRFLOW_GIVE_UP_AFTER", None)


def _seconds(name: str, default: float | None) -> float | None:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise SettingsError(f"{name}={text!r} is not a number of seconds: set it to one, or unset it")
    return seconds
