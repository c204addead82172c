"""The Ray executor as data, and the very call that it makes of a job."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import Executor, Request, Session
from nemo_airflow.executors.ray import packages
from nemo_airflow.executors.ray.address import ENVIRONMENT
from nemo_airflow.job import Job

KEY = "nemo_airflow_key"
"""The field of a Ray job's metadata that has the job's key, and so marks it as ours."""

NAME = "job_name"
"""The field that Ray itself shows as the job's name."""

_ENDING = 15.0
"""Seconds, besides the grace period, that the runner needs to end a job and to keep its outputs."""

_RESOURCES = ("entrypoint_num_cpus", "entrypoint_num_gpus", "entrypoint_memory", "entrypoint_resources")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayExecutor(Executor):
    """Runs a job as a Ray job: on the cluster's head, or on the node that has the resources asked for.

    The function may use Ray (``ray.init()`` finds the cluster), and the package's modules are there
    for its tasks and actors on every node.

    Attributes:
        ray_conn_id: An Airflow connection: its host is the dashboard's address; a password is Ray's
            token, or with a login that of a proxy; extra fields ``headers``, ``cookies``, ``verify``.
        address: The dashboard's address, ``http://head:8265``, in place of the connection's;
            ``$RAY_ADDRESS`` when neither is given.
        runtime_env: Ray's runtime environment: ``pip``, ``uv``, ``conda``, ``env_vars``, ``config`` ...
            Not ``working_dir``: that is the job's package.
        entrypoint_num_cpus: CPU cores to reserve for the job's own process.
        entrypoint_num_gpus: GPUs to reserve for it.
        entrypoint_memory: Bytes of memory to reserve for it.
        entrypoint_resources: Custom resources to reserve for it, by name.
        python: The interpreter in the cluster, as a command.
        metadata: Further metadata of the Ray job.
    """

    kind: ClassVar[str] = "ray"

    ray_conn_id: str | None = None
    address: str | None = None
    runtime_env: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    python: str = "python3"
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def processes_per_node(self) -> int:
        """See :attr:`Executor.processes_per_node`: one for each whole GPU."""
        return max(int(self.entrypoint_num_gpus or 1), 1)

    def render(self, job: Job) -> Request:
        """Returns the call to submit the job with, and the archives that it names.

        Raises:
            ExecutorError: ``runtime_env`` sets what the job's package stands for.
        """
        own = self.prepare(job)
        files = {"job.json": own.dumps()}
        code, own_files = packages.code_name(job.package), packages.files_name(job.key, files)
        call: dict[str, Any] = {
            "submission_id": job.key,
            "entrypoint": f"exec {shlex.quote(self.python)} {packages.ENTRY} {shlex.quote(job.key)}",
            "runtime_env": self._environment(job.key, code, own_files),
            "metadata": {
                **{name: str(text) for name, text in {**self.metadata, **job.labels}.items()},
                NAME: job.name,
                KEY: job.key,
            },
        }
        for name in _RESOURCES:
            if value := getattr(self, name):
                call[name] = value
        payload = {"call": json.loads(json.dumps(call)), "archives": {"code": code, "job": own_files}}
        return Request(key=job.key, kind=self.kind, payload=payload, files=files, package=job.package)

    def _environment(self, key: str, code: str, own_files: str) -> dict[str, Any]:
        if "working_dir" in self.runtime_env:
            raise ExecutorError("runtime_env of RayExecutor has a working_dir: the job's package takes its place")
        modules = list(self.runtime_env.get("py_modules") or ())
        if local := [module for module in modules if "://" not in str(module)]:
            raise ExecutorError(
                f"py_modules of RayExecutor's runtime_env has {local[0]!r}, which is no URI: put it into the package"
            )
        return {
            **self.runtime_env,
            "working_dir": f"gcs://{code}",
            "py_modules": [f"gcs://{own_files}", *modules],
            "env_vars": {
                **(self.runtime_env.get("env_vars") or {}),
                # Read by Ray's supervisor of the job: how long it waits between SIGTERM and SIGKILL.
                "RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(self.grace + _ENDING)),
                "NEMO_AIRFLOW_KEY": key,
            },
        }

    def connection_key(self) -> Hashable:
        """One session for all jobs of a cluster."""
        named = self.address or self.ray_conn_id
        return (self.kind, self.ray_conn_id, self.address if named else os.environ.get(ENVIRONMENT))

    def connect(self) -> Session:
        """Returns a session with the cluster's dashboard."""
        from nemo_airflow.executors.ray.session import RaySession

        return RaySession(self.ray_conn_id, self.address)
