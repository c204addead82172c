"""Where this project keeps its files, and the few settings that are not arguments: see :mod:`nemo_airflow.options`."""

from __future__ import annotations

import json
import os
from pathlib import Path

from nemo_airflow.exceptions import SettingsError
from nemo_airflow.options import OPTIONS, read_option

_WORDS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
"""Airflow's words for a boolean."""


def home() -> Path:
    """Returns the folder for packages, local jobs and the default tracking store.

    The setting ``home``; else ``nemo_airflow`` in ``$AIRFLOW_HOME``, which is ``~/airflow``
    unless set, as for Airflow itself.
    """
    if folder := read_option("home").text:
        return Path(folder).expanduser().absolute()
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser().absolute() / "nemo_airflow"


def mlflow_page() -> str:
    """Returns the address of an MLflow page that shows the default store, or an empty string."""
    return read_option("mlflow_page").text


def mlflow_connection() -> str:
    """Returns the Airflow connection of the MLflow that the pages list; empty if not set."""
    return read_option("mlflow_connection").text


def back_ends() -> list[str]:
    """Returns the connections that the page of back-ends shows beside those that it finds."""
    return [conn_id for part in read_option("back_ends").text.split(",") if (conn_id := part.strip())]


def reproduce_dag() -> str:
    """Returns the id of the DAG that pages start to reproduce a run."""
    return read_option("reproduce_dag").text


def packages_folder() -> Path:
    """Returns the folder of the package store."""
    return home() / "packages"


def package_format() -> str:
    """Returns the default format of packages; empty if not set."""
    return read_option("package_format").text


def store_url() -> str:
    """Returns the address of the shared store; empty if not set.

    For example ``/mnt/shared/nemo`` or ``s3://conn_id@bucket/prefix``; see :mod:`nemo_airflow.store.address`.
    """
    return read_option("store").text


def allow() -> str:
    """Returns the additional allow-list; empty if not set.

    Names and prefixes with commas between them; see :mod:`nemo_airflow.config.plan.allow`.
    """
    return read_option("allow").text


def consoles() -> dict[str, str]:
    """Returns the addresses of jobs in consoles of back-ends, by the kind of executor, with placeholders.

    Raises:
        SettingsError: The setting is not a JSON object of texts.
    """
    read = read_option("consoles")
    try:
        found = json.loads(read.text or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(pattern, str) for pattern in found.values()):
        example = OPTIONS["consoles"].example
        raise SettingsError(
            f"{read.source}={read.text!r} is not a JSON object of addresses: set it to such as {example}"
        )
    return found


def installation() -> str:
    """Returns the name that this installation was given; empty if not set."""
    return read_option("installation").text


def preloads() -> bool:
    """Returns whether a process that forks tasks imports what they need.

    Raises:
        SettingsError: The setting is no boolean.
    """
    read = read_option("preload")
    if read.text.lower() not in _WORDS:
        raise SettingsError(f"{read.source}={read.text!r} is neither True nor False: set it to one")
    return _WORDS[read.text.lower()]


def defer_after() -> float:
    """Returns for how many seconds a worker follows a job before its task is deferred.

    Raises:
        SettingsError: It is not a finite number of at least 0.
    """
    return _seconds("defer_after", finite=True) or 0.0


def refuses_patch_with_secret() -> bool:
    """Returns whether a task fails whose uncommitted changes hold a secret.

    The setting is ``apart`` unless set: the patch then stays on this machine. With ``refuse`` the task fails.

    Raises:
        SettingsError: It is neither.
    """
    read = read_option("patch_with_secret")
    if read.text not in ("apart", "refuse"):
        raise SettingsError(f"{read.source}={read.text!r} is neither 'apart' nor 'refuse': set it to one")
    return read.text == "refuse"


def spool_folder() -> Path:
    """Returns the folder of records that a tracking server has not taken yet."""
    return home() / "spool"


def spool_limit() -> int:
    """Returns how many bytes that folder may have, 10 GiB unless set.

    Raises:
        SettingsError: It is not a number.
    """
    read = read_option("spool_limit")
    if not read.text.isdecimal():
        raise SettingsError(f"{read.source}={read.text!r} is not a number of bytes: set it to one, or unset it")
    return int(read.text)


def jobs_folder() -> Path:
    """Returns the parent folder of local jobs' folders."""
    return home() / "jobs"


def bundles_folder() -> Path:
    """Returns the folder of archives on their way to a back-end that needs them as files."""
    return home() / "bundles"


def lost_after() -> float:
    """Returns the seconds after which a job that its back-end does not know counts as lost.

    60 unless set. Several answers of the back-end are needed besides.
    """
    return _seconds("lost_after") or 0.0


def give_up_after() -> float | None:
    """Returns the seconds of an outage after which a job is followed no more, and its task fails; None for never.

    Never unless set. The job itself may go on.
    """
    return _seconds("give_up_after")


def _seconds(name: str, *, finite: bool = False) -> float | None:
    read = read_option(name)
    if not read.text:
        return None
    try:
        seconds = float(read.text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0 or (finite and seconds == float("inf")):
        raise SettingsError(f"{read.source}={read.text!r} is not a number of seconds: set it to one, or unset it")
    return seconds
