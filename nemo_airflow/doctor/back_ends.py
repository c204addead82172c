"""Examines back-ends: each as its driver does, and what is wrong on the way there."""

from __future__ import annotations

import asyncio
from typing import Any

from nemo_airflow.connections import ConnectionInfo
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable, NemoAirflowError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.finding import Finding, bad
from nemo_airflow.executors.registry import executor_from_json

_LIMIT = 120.0
"""Seconds for all of one back-end."""

_KINDS = {
    "ssh": ("ssh", "ssh_conn_id"),
    "kubernetes": ("kubernetes", "kubernetes_conn_id"),
    "ray": ("ray", "ray_conn_id"),
    "nemo_slurm": ("slurm", "ssh_conn_id"),
    "nemo_ray": ("ray", "ray_conn_id"),
    "nemo_skypilot": ("skypilot", "skypilot_conn_id"),
}
"""Of each type of connection the executor that uses it, and its field."""

CONNECTION_TYPES = frozenset(_KINDS)
"""Types of the connections that executors use."""


def executor_of(connection: ConnectionInfo) -> Executor | None:
    """Returns an executor that uses a connection; None for a type that none uses."""
    if connection.conn_type not in _KINDS:
        return None
    kind, field = _KINDS[connection.conn_type]
    others: dict[str, Any] = {"container_image": "python:3.11"} if kind == "kubernetes" else {}
    if kind == "slurm":
        others = {name: connection.extra[name] for name in ("partition", "account") if connection.extra.get(name)}
    return executor_from_json({"kind": kind, field: connection.conn_id, **others})


def examine_executor(executor: Executor) -> list[Finding]:
    """Returns how a back-end fares for jobs of an executor. Blocks, two minutes at most."""

    async def examine() -> list[Finding]:
        driver = executor.connect()
        try:
            async with asyncio.timeout(_LIMIT):
                return await driver.examine(executor)
        finally:
            await driver.close()

    try:
        return asyncio.run(examine())
    except TimeoutError:
        return [bad("reached", f"it has not answered within {_LIMIT:.0f} s", "try it by hand from this machine")]
    except AccessRefused as error:
        return [bad("login", str(error), "renew the credentials of its connection")]
    except BackendUnavailable as error:
        return [bad("reached", str(error), "look whether it runs, and whether this machine may reach it")]
    except NemoAirflowError as error:
        return [bad("executor", str(error))]
