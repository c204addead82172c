"""Runs jobs as pods of a Kubernetes cluster: what is asked for, and the objects that it becomes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors import shipping
from nemo_airflow.executors.base import Driver, Executor, Request
from nemo_airflow.executors.fields import is_deferred, known_mapping
from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.job import Job

INLINE_LIMIT = 800_000
"""Bytes of job and package in one Secret, beside the runner: a Secret holds 1 MiB."""

SECRETS = 4
"""Secrets over which a package is spread at most: the cluster keeps all of them in one small database."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KubernetesExecutor(Executor):
    """Runs a job as a pod, or as a group of pods on several nodes.

    The image needs Python 3.9 or newer, and nothing of ours. The code goes in and the outputs come
    out through the API server: no object store, no shared disk, no route from the pod to Airflow.

    The connection is that of Airflow's own Kubernetes operators. Without one, it is the service
    account where Airflow itself runs in a pod, else the kubeconfig file.

    Attributes:
        container_image: The image.
        namespace: Where the pods run; the connection's or the context's own when None.
        kubernetes_conn_id: Airflow connection of type ``kubernetes``.
        config_file: A kubeconfig file; ``$KUBECONFIG``, else ``~/.kube/config``.
        context: Which context of the kubeconfig; its current one when None.
        in_cluster: Whether to use the service account of the pod that Airflow runs in.
        python: The interpreter in the image.
        nodes: Pods of the job. Each runs the job's function, and finds ``MASTER_ADDR``, ``MASTER_PORT``,
            ``NNODES`` and ``NODE_RANK`` in its environment. The first one's log is the job's.
        cpus: Processors to ask for; no limit is set on them unless by ``limits``.
        memory: Memory to ask for, and its limit, as Kubernetes writes it: ``8Gi``.
        gpus: The same as ``gpus_per_node``: how many GPUs each pod asks for.
        gpu_resource: What the cluster calls its GPUs.
        requests: More resources to ask for, by name.
        limits: More limits, by name.
        shm_size: Size of ``/dev/shm``, as Kubernetes writes it: ``8Gi``; counts as memory.
        volumes: Volumes of the pod, as in its manifest.
        volume_mounts: Where the container has them, as in its manifest.
        env_from: Names of Secrets whose every key becomes a variable; or entries as in a manifest.
        secret_env: Variables from Secrets: ``{"TOKEN": ("name of the secret", "its key")}``.
        image_pull_secrets: Names of Secrets with registry logins.
        image_pull_policy: ``IfNotPresent``, ``Always`` or ``Never``; the cluster's own when None.
        service_account: Service account of the pod; its token is mounted only when one is named.
        node_selector: Labels that the node must have.
        tolerations: Taints that the pod puts up with, as in a manifest.
        affinity: Rules on nodes and neighbours, as in a manifest.
        security_context: Security context of the container, as in a manifest.
        pod_security_context: Security context of the pod, as in a manifest.
        labels: More labels of the pod.
        annotations: More annotations of the pod.
        priority_class: Name of the pod's priority class.
        queue: Name of a queue of Kueue, where the cluster has that: it starts all pods of a job together, or none.
        scheduler_name: Name of another scheduler than the cluster's own.
        host_network: Whether the pod has the network of its node.
        runtime_class: Name of the pod's runtime class: ``nvidia`` ...
        dns_policy: ``ClusterFirst``, ``Default``, ``None`` ...; the cluster's own when None.
        dns_config: Name servers and searches, as in a manifest.
        host_aliases: Names of more addresses, as in a manifest.
        init_containers: Containers that run before the job's, as in a manifest; a volume can be mounted by both.
        pod_template: What else a pod's manifest can hold, merged over ours; lists with names (containers,
            volumes, env ...) item by item. The job's container is ``job``.
        pending_timeout: Seconds after which a pod that has not started is given up; None to wait.
        linger: Seconds for which a pod whose job has ended waits for its outputs to be fetched; while they are being
            fetched this time does not pass.
        ttl: Seconds for which an ended pod is kept; None to keep it until it is removed.
    """

    kind: ClassVar[str] = manifest.KIND
    takes_secrets: ClassVar[bool] = True
    spans_nodes: ClassVar[bool] = True
    collects_each: ClassVar[bool] = True
    aliases: ClassVar[Mapping[str, str]] = {"gpus": "gpus_per_node"}

    container_image: str
    namespace: str | None = None
    kubernetes_conn_id: str | None = None
    config_file: str | None = None
    context: str | None = None
    in_cluster: bool | None = None
    python: str = "python3"
    cpus: float | str | None = None
    memory: str | int | None = None
    gpus: int | None = None
    gpu_resource: str = "nvidia.com/gpu"
    requests: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    shm_size: str | int | None = None
    volumes: Sequence[Mapping[str, Any]] = ()
    volume_mounts: Sequence[Mapping[str, Any]] = ()
    env_from: Sequence[str | Mapping[str, Any]] = ()
    secret_env: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    image_pull_secrets: Sequence[str] = ()
    image_pull_policy: str | None = None
    service_account: str | None = None
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    affinity: Mapping[str, Any] | None = None
    security_context: Mapping[str, Any] | None = None
    pod_security_context: Mapping[str, Any] | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    priority_class: str | None = None
    queue: str | None = None
    scheduler_name: str | None = None
    host_network: bool = False
    runtime_class: str | None = None
    dns_policy: str | None = None
    dns_config: Mapping[str, Any] | None = None
    host_aliases: Sequence[Mapping[str, Any]] = ()
    init_containers: Sequence[Mapping[str, Any]] = ()
    pod_template: Mapping[str, Any] | None = None
    pending_timeout: float | None = 3600.0
    linger: float = 3600.0
    ttl: float | None = 86400.0

    def __post_init__(self) -> None:
        """Refuses what no pod could be made of, and what would undo that a job runs once and is followed."""
        super().__post_init__()
        manifest.check_template(self)
        for name, reference in known_mapping(self.secret_env).items():
            if is_deferred(reference):
                continue
            if isinstance(reference, str) or len(reference) != 2:
                raise ExecutorArgumentError(
                    f"secret_env[{name!r}] has to be (name of the secret, its key), not {reference!r}"
                )
            if name in known_mapping(self.secrets):
                raise ExecutorArgumentError(
                    f"{name} is given in secrets and in secret_env: leave it out of one of them"
                )

    @property
    def is_group(self) -> bool:
        """See :attr:`Executor.is_group`: each pod has a log and a disk of its own."""
        return self.nodes > 1

    def render(self, job: Job) -> Request:
        """Returns the pods and the Secrets; in these are the runner, ``job.json`` and a package that is not large."""
        job = self.prepare(job)
        of_cluster = {name: f"<secret {secret}, key {key}>" for name, (secret, key) in self.secret_env.items()}
        job = dataclasses.replace(job, secret_env={**job.secret_env, **of_cluster})
        text = job.dumps()
        size = sum(archive.size for archive in job.archives)
        parts = math.ceil((size + len(text.encode())) / INLINE_LIMIT) if job.archives else 1
        upload = size if parts > SECRETS else 0
        parts = 1 if upload else parts
        bundle = [f"runner {shipping.runner_digest()}", "job.json"]
        if job.package and not (upload or job.package.is_fetched):
            bundle.append(f"package {job.package.digest}")
        bundle += [f"artifact {each.digest}" for each in job.inputs if not (upload or each.is_fetched)]
        content = f"<{', '.join(bundle)}>"
        values = {manifest.secret_key(name): secret.shown for name, secret in self.secrets.items()}
        payload = {
            "secrets": [
                {
                    **manifest.secret_manifest(self, job, part),
                    "data": {manifest.bundle_file(part): content, **({} if part else values)},
                }
                for part in range(parts)
            ],
            "pods": manifest.pod_manifests(self, job, parts, upload),
        }
        return Request(
            key=job.key,
            kind=self.kind,
            payload=payload,
            files={"job.json": text},
            package=job.package,
            secrets=job.secret_env,
            inputs=job.inputs,
        )

    def connection_key(self) -> Hashable:
        """One driver for all jobs in one namespace that are reached in the same way."""
        return (
            self.kind, self.kubernetes_conn_id, self.config_file, self.context, self.in_cluster, self.namespace,
        )  # fmt: skip

    def connect(self) -> Driver:
        """Returns a driver on the cluster."""
        from nemo_airflow.executors.kubernetes.access import Access
        from nemo_airflow.executors.kubernetes.driver import KubernetesDriver

        return KubernetesDriver(
            Access(self.kubernetes_conn_id, self.config_file, self.context, self.in_cluster, self.namespace)
        )
