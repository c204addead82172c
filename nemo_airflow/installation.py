"""Names this installation of Airflow: two that share an account on a back-end may have the same DAGs and runs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from urllib.parse import urlsplit

from nemo_airflow import settings

_LENGTH = 12

_LOCAL = (None, "localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104 - nothing listens there for us


def installation_id() -> str:
    """Returns the name of this installation, the same on each of its machines and for as long as it lives.

    The setting ``installation``; else a digest of ``[api] base_url``, or of ``AIRFLOW_HOME`` where that is an address
    of the machine itself, as it is unless set.
    """
    if name := settings.installation():
        return name
    from airflow.sdk.configuration import conf

    address = str(conf.get("api", "base_url", fallback="")).rstrip("/")
    if urlsplit(address).hostname in _LOCAL:
        address = os.environ.get("AIRFLOW_HOME") or str(Path("~/airflow").expanduser())
    return hashlib.sha256(address.encode()).hexdigest()[:_LENGTH]


def run_labels(run_after: object) -> dict[str, str]:
    """Returns what tells a DAG run from one of the same ids in another installation, or of a run that was deleted.

    Nothing of it changes when the run is cleared, as its start does.

    Args:
        run_after: The run's ``run_after``.
    """
    return {"installation": installation_id(), "run_after": str(run_after)}
