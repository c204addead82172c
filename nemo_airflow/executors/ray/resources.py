"""Refuses at once what the cluster can never run: Ray itself would let it wait a quarter of an hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo_airflow.exceptions import SubmitError
from nemo_airflow.executors.ray.api import RayApi
from nemo_airflow.job import FailureKind

_NAMES = {"entrypoint_num_cpus": "CPU", "entrypoint_num_gpus": "GPU", "entrypoint_memory": "memory"}


async def check_fit(api: RayApi, call: Mapping[str, Any]) -> None:
    """Checks that one node of the cluster, as large as it is or may grow, has what a job reserves.

    Args:
        api: The cluster.
        call: The call that will submit the job.

    Raises:
        SubmitError: None has, and no autoscaler could add one.
    """
    wanted = _wanted(call)
    if not wanted:
        return
    nodes = [node["resources_total"] for node in await api.nodes() if node["state"] == "ALIVE"]
    if not nodes or any(_fits(wanted, node) for node in nodes) or await api.grows():
        return
    lacking = [name for name in wanted if not any(node.get(name, 0) >= wanted[name] for node in nodes)] or list(wanted)
    most = "; ".join(
        f"{name}: {wanted[name]:g} asked for, {max(node.get(name, 0) for node in nodes):g} at most on a node"
        for name in lacking
    )
    raise SubmitError(f"no node of Ray at {api.url} has the resources of the job ({most})", kind=FailureKind.QUOTA)


def _wanted(call: Mapping[str, Any]) -> dict[str, float]:
    wanted = {resource: float(call[field]) for field, resource in _NAMES.items() if call.get(field)}
    return {**wanted, **{name: float(count) for name, count in (call.get("entrypoint_resources") or {}).items()}}


def _fits(wanted: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= count for name, count in wanted.items())
