"""Where jobs run: one module a back-end, all on the interface in ``base``.

Third parties register an executor under its ``kind`` in the entry-point group
``nemo_airflow.executors``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "Chunk": "base",
    "Cursor": "base",
    "DockerExecutor": "docker",
    "Executor": "base",
    "FaultTolerance": "launchers",
    "GridEngineExecutor": "gridengine",
    "KubernetesExecutor": "kubernetes",
    "Launcher": "launchers",
    "LocalExecutor": "local",
    "MPI": "launchers",
    "PBSExecutor": "pbs",
    "Processes": "launchers",
    "RayExecutor": "ray",
    "Request": "base",
    "SSHExecutor": "ssh",
    "ScriptTemplate": "launchers",
    "Secret": "secret",
    "Driver": "base",
    "SkypilotExecutor": "skypilot",
    "SlurmExecutor": "slurm",
    "Torchrun": "launchers",
    "executor_from_json": "registry",
    "parse_time": "base",
}

__all__ = [
    "MPI",
    "Chunk",
    "Cursor",
    "DockerExecutor",
    "Driver",
    "Executor",
    "FaultTolerance",
    "GridEngineExecutor",
    "KubernetesExecutor",
    "Launcher",
    "LocalExecutor",
    "PBSExecutor",
    "Processes",
    "RayExecutor",
    "Request",
    "SSHExecutor",
    "ScriptTemplate",
    "Secret",
    "SkypilotExecutor",
    "SlurmExecutor",
    "Torchrun",
    "executor_from_json",
    "parse_time",
]

if TYPE_CHECKING:
    from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor, Request, parse_time
    from nemo_airflow.executors.docker import DockerExecutor
    from nemo_airflow.executors.gridengine import GridEngineExecutor
    from nemo_airflow.executors.kubernetes import KubernetesExecutor
    from nemo_airflow.executors.launchers import (
        MPI,
        FaultTolerance,
        Launcher,
        Processes,
        ScriptTemplate,
        Torchrun,
    )
    from nemo_airflow.executors.local import LocalExecutor
    from nemo_airflow.executors.pbs import PBSExecutor
    from nemo_airflow.executors.ray import RayExecutor
    from nemo_airflow.executors.registry import executor_from_json
    from nemo_airflow.executors.secret import Secret
    from nemo_airflow.executors.skypilot import SkypilotExecutor
    from nemo_airflow.executors.slurm import SlurmExecutor
    from nemo_airflow.executors.ssh import SSHExecutor


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
