"""The Ray executor as data, and the very call that it makes of a job."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.fields import is_deferred, known_mapping
from nemo_airflow.executors.launchers import gpus_in
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

_IN_PLACE = {
    "pip": "Path(__file__).with_name({path!r}).read_text().splitlines()",
    "uv": "Path(__file__).with_name({path!r}).read_text().splitlines()",
    "conda": "yaml.safe_load(Path(__file__).with_name({path!r}).read_text())",
}


def _requirements_file(name: str, value: Any) -> str | None:
    """Returns the path that a part of a runtime environment is, or None; a conda environment may be named too."""
    if isinstance(value, Mapping) and name != "conda":
        value = value.get("packages")
    if not isinstance(value, str) or is_deferred(value):
        return None
    return value if name != "conda" or value.endswith((".yml", ".yaml")) else None


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
        entrypoint_num_gpus: GPUs to reserve for it, also a part of one; ``gpus_per_node`` when None.
        entrypoint_memory: Bytes of memory to reserve for it.
        entrypoint_resources: Custom resources to reserve for it, by name.
        python: The interpreter in the cluster, as a command.
        metadata: Further metadata of the Ray job.
    """

    kind: ClassVar[str] = "ray"
    takes_secrets: ClassVar[bool] = True
    fetches_packages: ClassVar[bool] = False  # the nodes of its tasks and actors get the code from Ray

    ray_conn_id: str | None = None
    address: str | None = None
    runtime_env: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    entrypoint_num_cpus: float | None = None
    entrypoint_num_gpus: float | None = None
    entrypoint_memory: int | None = None
    entrypoint_resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    python: str = "python3"
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what of ``runtime_env`` means files of this machine: Ray's REST API does not read them."""
        super().__post_init__()
        environment = known_mapping(self.runtime_env)
        if "working_dir" in environment:
            raise ExecutorArgumentError(
                "RayExecutor: runtime_env cannot have working_dir: the job's package takes its place"
            )
        for module in environment.get("py_modules") or ():
            if not is_deferred(module) and "://" not in str(module):
                raise ExecutorArgumentError(
                    f"RayExecutor: py_modules of runtime_env has {module!r}, which is not a URI: put it into the "
                    "package"
                )
        for name in ("pip", "uv", "conda"):
            if (path := _requirements_file(name, environment.get(name))) is not None:
                raise ExecutorArgumentError(
                    f"RayExecutor: runtime_env[{name!r}] is the file {path!r}, which the cluster does not have: "
                    f"give what is in it, as {_IN_PLACE[name].format(path=path)}"
                )

    @property
    def gpu_count(self) -> int:
        """See :attr:`Executor.gpu_count`: whole ones."""
        return int(self._gpus or 0)

    @property
    def _gpus(self) -> float | None:
        return self.entrypoint_num_gpus if self.entrypoint_num_gpus is not None else gpus_in(self.gpus_per_node) or None

    def render(self, job: Job) -> Request:
        """Returns the call to submit the job with, and the archives that it names."""
        own = self.prepare(job)
        files = {"job.json": own.dumps()}
        code, own_files = packages.code_name(job.package), packages.files_name(job.key, files)
        modules = [own_files, *(name for each in packages.sent(job.inputs) for name in packages.input_names(each))]
        call: dict[str, Any] = {
            "submission_id": job.key,
            "entrypoint": f"exec {shlex.quote(self.python)} {packages.ENTRY} {shlex.quote(job.key)}",
            "runtime_env": self._environment(job.key, code, modules),
            "metadata": {
                **{name: str(text) for name, text in {**self.metadata, **job.labels}.items()},
                NAME: job.name,
                KEY: job.key,
            },
        }
        resources = {name: getattr(self, name) for name in _RESOURCES} | {"entrypoint_num_gpus": self._gpus}
        call |= {name: value for name, value in resources.items() if value}
        payload = {"call": json.loads(json.dumps(call)), "archives": {"code": code, "job": own_files}}
        return Request(
            key=job.key,
            kind=self.kind,
            payload=payload,
            files=files,
            package=job.package,
            secrets=own.secret_env,
            inputs=job.inputs,
        )

    def _environment(self, key: str, code: str, modules: Sequence[str]) -> dict[str, Any]:
        return {
            **self.runtime_env,
            "working_dir": f"gcs://{code}",
            "py_modules": [*(f"gcs://{name}" for name in modules), *(self.runtime_env.get("py_modules") or ())],
            "env_vars": {
                **(self.runtime_env.get("env_vars") or {}),
                # Read by Ray's supervisor of the job: how long it waits between SIGTERM and SIGKILL.
                "RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(self.grace + _ENDING)),
                "NEMO_AIRFLOW_KEY": key,
            },
        }

    def connection_key(self) -> Hashable:
        """One driver for all jobs of a cluster."""
        named = self.address or self.ray_conn_id
        return (self.kind, self.ray_conn_id, self.address if named else os.environ.get(ENVIRONMENT))

    def connect(self) -> Driver:
        """Returns a driver with the cluster's dashboard."""
        from nemo_airflow.executors.ray.driver import RayDriver

        return RayDriver(self.ray_conn_id, self.address)
