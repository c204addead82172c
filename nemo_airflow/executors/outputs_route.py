"""How the outputs of jobs get into the shared store, and artifacts from there to jobs: an executor's field."""

from __future__ import annotations

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.fields import is_deferred

AUTO = "auto"
"""Straight from the job, where the store is one that jobs can write to, and the job's host reaches it."""

WORKER = "worker"
"""Through the worker, always."""


def check_route(of: str, route: object) -> None:
    """Checks an executor's ``outputs_route``.

    Raises:
        ExecutorArgumentError: It is neither of these, nor the address of the store's service, nor a folder.
    """
    if is_deferred(route):
        return
    if not isinstance(route, str) or not (route in (AUTO, WORKER) or route.startswith(("http://", "https://", "/"))):
        raise ExecutorArgumentError(
            f"{of}: outputs_route={route!r} is neither {AUTO!r} nor {WORKER!r}, nor the store as the job's host knows "
            "it: https://host:port, or the folder where it is mounted"
        )
