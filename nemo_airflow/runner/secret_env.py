"""The values of a job's secrets: brought in a file of the job's folder, or by the back-end in the environment.

The file is deleted as soon as it is read, before any code of the job runs. Only where the job may be started again
(see :mod:`nemo_airflow.runner.claims`) it stays until the job has ended.
"""

import json
import os
from typing import Any, Dict, Tuple

from nemo_airflow.runner.claims import OWNER

FILE = "secrets.json"
"""Name of the file, with a JSON object of values by the names of their variables."""

GRANT = "NEMO_AIRFLOW_OUTPUTS_GRANT"
"""The runner's own secret, which may be missing: where outputs may go, as JSON (:mod:`~.upload_targets`)."""

FETCH_GRANT = "NEMO_AIRFLOW_INPUTS_GRANT"
"""Another: from where the runner fetches artifacts, as JSON (:mod:`~.fetching`)."""


def take(folder: str, job: Dict[str, Any]) -> Tuple[Dict[str, str], str]:
    """Returns the values by the names of their variables, and why the job cannot have one; empty if it has all.

    Args:
        folder: The job's folder.
        job: The job, from ``job.json``.
    """
    named = job.get("secret_env") or {}
    if not named:
        return {}, ""
    try:
        with open(os.path.join(folder, FILE), encoding="utf-8") as file:
            brought = json.load(file)
    except FileNotFoundError:
        brought = {}
    except (OSError, ValueError) as error:
        return {}, f"the file with the job's secrets cannot be read: {type(error).__name__}"
    if OWNER not in os.environ and (complaint := _forget(folder)):
        return {}, complaint
    values = {name: brought.get(name, os.environ.get(name)) for name in named}
    for name in (GRANT, FETCH_GRANT):
        if values.get(name, "") is None:
            del values[name]
    missing = sorted(name for name, value in values.items() if value is None)
    if missing:
        return {}, f"the secret {missing[0]} ({named[missing[0]].strip('<>')}) has not arrived: run the task again"
    return values, ""


def forget_at_end(folder: str, told_to_end: bool) -> str:
    """Deletes the file, unless the job may be started again; returns why it cannot, or an empty text.

    Args:
        folder: The job's folder.
        told_to_end: Whether the job ends by a signal: a batch system sends one before it starts a job again.
    """
    if told_to_end and OWNER in os.environ and not os.path.exists(os.path.join(folder, "cancel")):
        return ""
    return _forget(folder)


def _forget(folder: str) -> str:
    try:
        os.unlink(os.path.join(folder, FILE))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"the file {FILE} with the job's secrets cannot be deleted: {error.strerror}"
    return ""
