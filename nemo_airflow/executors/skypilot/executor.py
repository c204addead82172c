"""Runs jobs on clouds by SkyPilot: what is asked for, and the task that it becomes."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shlex
import zlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow import settings
from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.bundle import runner_entry
from nemo_airflow.executors.fields import is_deferred
from nemo_airflow.executors.launchers import gpus_in
from nemo_airflow.job import Job

FOLDER = "~/.nemo-airflow"
"""Where the jobs of a cluster have their folders, on each of its machines."""

OUTPUT = "nemo-airflow-output"
"""First word of the lines of a job's log that carry its outputs."""

LABELS = "nemo-airflow-labels"
"""First word of the line of a job's log that says which task it is of."""

_CLUSTER_NAME = re.compile(r"[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?")
_FIRST_PORT, _PORTS = 20000, 12000


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkypilotExecutor(Executor):
    """Runs a job on a cluster that SkyPilot makes for it on AWS, GCP, Azure or another of its clouds.

    The code goes along as one of the task's file mounts. All that comes back comes on the log, outputs
    too: large ones belong into a bucket, by ``file_mounts``. Without a connection the API server is that of SkyPilot's
    own configuration, ``$SKYPILOT_API_SERVER_ENDPOINT`` or ``~/.sky/config.yaml``; it holds the clouds' credentials.

    Attributes:
        skypilot_conn_id: An Airflow connection: its host is the API server's address, a password the token of a
            service account. One process talks to one server.
        managed: Whether SkyPilot's controller looks after the job, and brings it back after a preemption.
        infra: Where, as ``cloud/region/zone``; anywhere that is cheap when None.
        cloud: The cloud, in place of ``infra``.
        region: Its region, with ``cloud``.
        zone: Its zone, with ``region``.
        instance_type: Type of machine.
        cpus: Processors of a machine, or as ``8+``.
        memory: Memory of a machine in GB, or as ``32+``.
        gpus: Type of GPU: ``H100``; ``gpus_per_node`` says how many, or all at once: ``H100:8``.
        accelerators: GPUs or other accelerators as SkyPilot writes them, in place of ``gpus``: ``A100:8``.
        num_nodes: The same as ``nodes``.
        use_spot: Whether to take spot machines.
        job_recovery: What a managed job does after a preemption: ``FAILOVER``, ``EAGER_NEXT_REGION``, or an
            object with ``strategy`` and ``max_restarts_on_errors``.
        container_image: Docker image to run in.
        image_id: Image of the machine, in place of ``container_image``.
        disk_size: Size of the disk in GB.
        disk_tier: ``low``, ``medium``, ``high``, ``ultra`` or ``best``.
        network_tier: ``standard`` or ``best``.
        ports: Ports to open.
        instance_labels: Labels of the machines.
        resources: More resources, as in SkyPilot's task YAML, merged over ours: ``any_of``, ``ordered`` ...
        setup: Shell commands that prepare a machine.
        file_mounts: Files and buckets on the machines, as in SkyPilot's task YAML.
        cluster_name: A cluster that is there, or is to stay; one of the job's own when None.
        idle_minutes_to_autostop: Minutes without a job after which the cluster is ended.
        autodown: Whether it is then removed, and not only stopped.
        retry_until_up: Whether to try until there are machines.
        python: The interpreter on the machines.
        output_limit: Bytes of outputs that may come back.
    """

    kind: ClassVar[str] = "skypilot"
    spans_nodes: ClassVar[bool] = True
    takes_secrets: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, str]] = {"num_nodes": "nodes"}

    skypilot_conn_id: str | None = None
    managed: bool = False
    infra: str | None = None
    cloud: str | None = None
    region: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    cpus: int | float | str | None = None
    memory: int | float | str | None = None
    gpus: str | None = None
    accelerators: str | Mapping[str, float] | None = None
    num_nodes: int | None = None
    use_spot: bool = False
    job_recovery: str | Mapping[str, Any] | None = None
    container_image: str | None = None
    image_id: str | Mapping[str, str] | None = None
    disk_size: int | None = None
    disk_tier: str | None = None
    network_tier: str | None = None
    ports: Sequence[int | str] = ()
    instance_labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    resources: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    setup: str | None = None
    file_mounts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    cluster_name: str | None = None
    idle_minutes_to_autostop: int | None = 10
    autodown: bool = True
    retry_until_up: bool = False
    python: str = "python3"
    output_limit: int = 50_000_000

    def __post_init__(self) -> None:
        """Refuses what SkyPilot has no word for."""
        super().__post_init__()
        for one, other in (("infra", "cloud"), ("gpus", "accelerators"), ("container_image", "image_id")):
            if getattr(self, one) and getattr(self, other):
                raise ExecutorArgumentError(f"SkypilotExecutor takes {one} or {other}, not both")
        if (self.region and not self.cloud) or (self.zone and not self.region):
            raise ExecutorArgumentError("SkypilotExecutor takes region only with cloud, and zone only with region")
        if self.managed and self.cluster_name:
            raise ExecutorArgumentError("a managed job has no cluster_name: SkyPilot makes a cluster for each")
        if self.cluster_name and not is_deferred(self.cluster_name) and not _CLUSTER_NAME.fullmatch(self.cluster_name):
            raise ExecutorArgumentError(
                f"cluster_name={self.cluster_name!r} is not a letter and then letters, digits, - _ and . only"
            )
        text = self.gpus_per_node
        if isinstance(text, str) and not is_deferred(text) and not text.isdigit() and (self.gpus or self.accelerators):
            raise ExecutorArgumentError(
                f"SkypilotExecutor: gpus_per_node={text!r}: with gpus or accelerators it is a number"
            )

    def render(self, job: Job) -> Request:
        """Returns SkyPilot's task, and how it is launched."""
        own = self.prepare(job)
        mounts = {**self.file_mounts, f"{FOLDER}/{job.key}.tar": str(settings.bundles_folder() / f"{job.key}.tar")}
        task = {
            "name": own_name(job.key),
            "num_nodes": self.nodes,
            "resources": self._resources(),
            "envs": {"NEMO_AIRFLOW_KEY": job.key},
            "file_mounts": mounts,
            "setup": self.setup,
            "run": self._script(own),
        }
        payload = {
            "managed": self.managed,
            "cluster_name": None if self.managed else self.cluster_name or own_name(job.key),
            "retry_until_up": self.retry_until_up,
            "secrets": sorted(own.secret_env),
            "task": {name: value for name, value in task.items() if value is not None},
        }
        return Request(
            key=job.key,
            kind=self.kind,
            payload=payload,
            files={"job.json": own.dumps()},
            package=job.package,
            secrets=own.secret_env,
            inputs=job.inputs,
        )

    @property
    def gpu_count(self) -> int:
        """See :attr:`Executor.gpu_count`."""
        if isinstance(self.accelerators, Mapping):
            return int(sum(self.accelerators.values()))
        return gpus_in(self.accelerators or self._gpus)

    @property
    def _gpus(self) -> str | None:
        """GPUs as SkyPilot writes them: ``H100:8``."""
        if self.gpus is None or ":" in self.gpus:
            return self.gpus or (str(self.gpus_per_node) if self.gpus_per_node is not None else None)
        return f"{self.gpus}:{self.gpus_per_node or 1}"

    def _resources(self) -> dict[str, Any]:
        infra = self.infra or "/".join(filter(None, (self.cloud, self.region, self.zone)))
        image = f"docker:{self.container_image}" if self.container_image else self.image_id
        wanted = {
            "infra": infra or None,
            "instance_type": self.instance_type,
            "cpus": self.cpus,
            "memory": self.memory,
            "accelerators": self.accelerators or self._gpus,
            "use_spot": self.use_spot or None,
            "job_recovery": self.job_recovery,
            "image_id": image,
            "disk_size": self.disk_size,
            "disk_tier": self.disk_tier,
            "network_tier": self.network_tier,
            "ports": list(self.ports) or None,
            "labels": dict(self.instance_labels) or None,
            "autostop": self._autostop(),
        }
        return {name: value for name, value in {**wanted, **self.resources}.items() if value is not None}

    def _autostop(self) -> dict[str, Any] | None:
        if self.managed or self.idle_minutes_to_autostop is None:
            return None
        return {"idle_minutes": self.idle_minutes_to_autostop, "down": self.autodown}

    def _script(self, job: Job) -> str:
        python = shlex.quote(self.python)
        folder = f"{FOLDER}/{job.key}"
        port = _FIRST_PORT + zlib.crc32(job.key.encode()) % _PORTS
        collect = f"{python} {folder}/{runner_entry()} --collect {folder}/job"
        labels = base64.b64encode(json.dumps(dict(job.labels), sort_keys=True).encode()).decode()
        return "\n".join((
            "export NNODES=$SKYPILOT_NUM_NODES NODE_RANK=$SKYPILOT_NODE_RANK",
            f'export MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n 1) MASTER_PORT={port}',
            f"echo {LABELS} {labels}",
            f"mkdir -p {folder} && tar -xf {folder}.tar -C {folder} || exit",
            f"{python} {folder}/{runner_entry()} {folder}/job",
            "code=$?",
            "# The log is the only way back: the outputs come on it, after the job's own last record.",
            f"[ $code = {_ALREADY_CLAIMED} ] || [ $NODE_RANK != 0 ] || [ ! -d {folder}/job/outputs ] || {{",
            f"  size=$(du -sb {folder}/job/outputs | cut -f 1)",
            f'  [ "$size" -gt {self.output_limit} ] || {collect} | base64 -w 4000 | sed "s/^/{OUTPUT} /"',
            f'  echo "{OUTPUT} end $size"',
            "}",
            "exit $code",
        )) + "\n"  # fmt: skip

    @property
    def is_group(self) -> bool:
        """See :attr:`Executor.is_group`: what comes back is what the first machine writes."""
        return self.nodes > 1

    def connection_key(self) -> Hashable:
        """One driver for all jobs of an API server."""
        return (self.kind, self.skypilot_conn_id)

    def connect(self) -> Driver:
        """Returns a driver with SkyPilot's API server."""
        from nemo_airflow.executors.skypilot.driver import SkypilotDriver

        return SkypilotDriver(self.skypilot_conn_id)


_ALREADY_CLAIMED = 75


def own_name(key: str) -> str:
    """Returns what SkyPilot calls a job, and the cluster that it makes for it alone; begins with a letter."""
    return f"nemo-{key}"
