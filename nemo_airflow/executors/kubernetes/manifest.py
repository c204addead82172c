"""Writes the objects of a job: one pod a node, and the Secret that brings the runner and the job. Pure."""

from __future__ import annotations

import functools
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from nemo_airflow.exceptions import ExecutorArgumentError
from nemo_airflow.executors.bundle import runner_entry
from nemo_airflow.executors.fields import known_mapping, refuse
from nemo_airflow.job import Job, JsonObject

if TYPE_CHECKING:
    from nemo_airflow.executors.kubernetes.executor import KubernetesExecutor

KIND = "kubernetes"

CONTAINER = "job"
"""Name of the container that runs the job; others in the pod come from a template or from the cluster."""

MANAGED_BY = "app.kubernetes.io/managed-by"
OURS = "nemo-airflow"
KEY = "nemo-airflow.key"
RANK = "nemo-airflow.rank"
PART = "nemo-airflow.part"
"""Label of a Secret that has a further part of the bundle; it belongs to the job's own Secret."""

LABELS = "nemo-airflow/labels"
"""Annotation: where the job comes from, whole; labels may not hold every character."""
NODES = "nemo-airflow/nodes"
"""Annotation: of how many pods the job is."""
PACKAGE = "nemo-airflow/package"
"""Annotation: how many bytes of package are sent into the pod after it has started; absent when none are."""
SUBMITTED = "nemo-airflow/submitted"
"""Annotation: the package has been sent."""
MASTER = "nemo-airflow/master"
"""Annotation: address of the job's first pod, which the others wait for."""
CANCELLED = "nemo-airflow/cancelled"
"""Annotation: the job was cancelled."""
VERDICT = "nemo-airflow/verdict"
"""Annotation: what the job has come to, where the pod was ended for it: it never started, another had failed ..."""
PENDING_TIMEOUT = "nemo-airflow/pending-timeout"
"""Annotation: seconds after which a pod that has not started is given up."""
TTL = "nemo-airflow/ttl"
"""Annotation: seconds for which the ended pod is kept."""

BASE = "/nemo-airflow"
"""Folder in the pod that holds the runner and the job's folder; an emptyDir, so it outlives the container."""
BUNDLE_MOUNT = "/nemo-airflow-bundle"
BUNDLE_FILE = "bundle.tar.gz"
MASTER_MOUNT = "/nemo-airflow-master"

UPLOAD_LIMIT = 1800.0
"""Seconds for which a pod that has started waits for what comes from outside, once all pods of its job have."""

_FIRST_PORT, _PORTS = 20000, 12000

_IDS = ("dag_id", "run_id", "task_id", "map_index", "try_number")
"""What of a job's origin becomes labels too, for whoever looks for its pods."""

_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "volumeMounts": "mountPath",
    "imagePullSecrets": "name", "ports": "containerPort", "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
"""Lists that are merged item by item, and the field that tells which item is which."""


@functools.cache
def program(name: str) -> str:
    """Returns the text of a program that runs in the pod."""
    return resources.files("nemo_airflow.executors.kubernetes.in_pod").joinpath(f"{name}.py").read_text("utf-8")


_REFUSED = {
    "metadata.name": "the pod's name is the job's key, which has the job run once",
    "metadata.generateName": "the pod's name is the job's key, which has the job run once",
    "metadata.namespace": "use namespace",
    "spec.restartPolicy": "the node would run the job a second time; use the task's retries",
    "spec.containers.job.command": "it starts the job's runner; give your own command as the config",
    "spec.containers.job.args": "the command starts the job's runner; give your own command as the config",
    "spec.containers.job.image": "use container_image",
}
"""What of a pod's manifest must stay as it is, and what to use instead."""

_OURS = ("nemo-airflow.", "nemo-airflow/", MANAGED_BY)


def check_template(executor: KubernetesExecutor) -> None:
    """Refuses a template that undoes what a job's being started once, and its stream, rest on.

    Raises:
        ExecutorArgumentError: It does.
    """
    template = known_mapping(executor.pod_template)
    metadata, spec = known_mapping(template.get("metadata")), known_mapping(template.get("spec"))
    containers = [item for item in spec.get("containers") or () if isinstance(item, Mapping)]
    given = [f"metadata.{name}" for name in metadata] + [f"spec.{name}" for name in spec]
    given += [f"spec.containers.job.{name}" for item in containers if item.get("name") == CONTAINER for name in item]
    refuse("KubernetesExecutor", given, _REFUSED, "pod_template")
    metadatas = (metadata.get("labels"), metadata.get("annotations"), executor.annotations)
    named = [name for names in metadatas for name in known_mapping(names)]
    for name in named:
        if str(name).startswith(_OURS):
            raise ExecutorArgumentError(
                f"KubernetesExecutor: the label or annotation {name} is set by the executor: leave it out"
            )


def pod_name(key: str, rank: int, nodes: int) -> str:
    """Returns the name of a job's pod: the key, and for a group the pod's number in it."""
    return key if nodes == 1 else f"{key}-{rank}"


def secret_name(key: str, part: int) -> str:
    """Returns the name of the Secret that has a part of a job's bundle: the key for the first."""
    return f"{key}-part-{part}" if part else key


def secret_key(variable: str) -> str:
    """Returns under which key the job's first Secret has the value of a variable."""
    return f"env.{variable}"


def bundle_file(part: int) -> str:
    """Returns the name of the file that has a part of the bundle: in their order, their names are sorted."""
    return f"{BUNDLE_FILE}.{part}" if part else BUNDLE_FILE


def secret_manifest(executor: KubernetesExecutor, job: Job, part: int = 0) -> JsonObject:
    """Returns a Secret of a job, without its content."""
    labels = {**_labels(executor, job), **({PART: str(part)} if part else {})}
    annotations = {LABELS: _dumps(job.labels), **executor.annotations}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": secret_name(job.key, part), "labels": labels, "annotations": annotations},
    }


def pod_manifests(executor: KubernetesExecutor, job: Job, parts: int, upload: int) -> list[JsonObject]:
    """Returns the pods of a job, in the order of their ranks.

    Args:
        executor: Where the job runs.
        job: The job.
        parts: How many Secrets have the bundle.
        upload: Bytes of package that are sent once the pod runs; 0 when it comes with the Secret.
    """
    return [_pod(executor, job, rank, parts, upload) for rank in range(executor.nodes)]


def _pod(executor: KubernetesExecutor, job: Job, rank: int, parts: int, upload: int) -> JsonObject:
    annotations = {
        LABELS: _dumps(job.labels),
        NODES: str(executor.nodes),
        **({PENDING_TIMEOUT: f"{executor.pending_timeout:g}"} if executor.pending_timeout is not None else {}),
        **({TTL: f"{executor.ttl:g}"} if executor.ttl is not None else {}),
        **({PACKAGE: str(upload)} if upload else {}),
        **_group_annotations(executor),
        **executor.annotations,
    }
    pod: JsonObject = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(job.key, rank, executor.nodes),
            **({"namespace": executor.namespace} if executor.namespace else {}),
            "labels": {**_labels(executor, job), RANK: str(rank)},
            "annotations": annotations,
        },
        "spec": _spec(executor, job, rank, parts, upload),
    }
    return merge(pod, executor.pod_template) if executor.pod_template else pod


def _labels(executor: KubernetesExecutor, job: Job) -> dict[str, str]:
    ids = {f"nemo-airflow.{name}": _label_value(str(job.labels[name])) for name in _IDS if name in job.labels}
    return {**executor.labels, **ids, **_queue_labels(executor, job), MANAGED_BY: OURS, KEY: job.key}


def _queue_labels(executor: KubernetesExecutor, job: Job) -> dict[str, str]:
    """Returns what has Kueue admit the pods of a job together; see "Run a group of plain Pods" in its documentation."""
    if not executor.queue:
        return {}
    group = {"kueue.x-k8s.io/pod-group-name": job.key} if executor.nodes > 1 else {}
    return {"kueue.x-k8s.io/queue-name": executor.queue, **group}


def _group_annotations(executor: KubernetesExecutor) -> dict[str, str]:
    if not executor.queue or executor.nodes == 1:
        return {}
    # A pod that fails is not replaced: the job's others end too, and the queue gets their room back.
    return {
        "kueue.x-k8s.io/pod-group-total-count": str(executor.nodes),
        "kueue.x-k8s.io/retriable-in-group": "false",
    }


def _dumps(labels: Mapping[str, str]) -> str:
    return json.dumps(dict(labels), sort_keys=True)


def _label_value(text: str) -> str:
    """Returns the text as a label's value may be; the annotation beside it has it whole."""
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:63])


def _spec(executor: KubernetesExecutor, job: Job, rank: int, parts: int, upload: int) -> JsonObject:
    spec: JsonObject = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": int(executor.grace)
        + 5,  # the runner ends the job after its grace, then itself
        "automountServiceAccountToken": bool(executor.service_account),
        "enableServiceLinks": False,
        "containers": [_container(executor, job, rank, upload)],
        "volumes": [
            {"name": "nemo-airflow", "emptyDir": {}},
            {"name": "nemo-airflow-bundle", **_bundle_source(job, parts)},
            *_optional_volumes(executor, rank),
            *map(dict, executor.volumes),
        ],
    }
    if job.time_limit:
        # Only a backstop: the runner keeps the limit. Counted from before the image is pulled.
        slack = (executor.pending_timeout or 0) + _wait_limit(executor)
        if not math.isinf(slack):
            spec["activeDeadlineSeconds"] = int(job.time_limit + executor.grace + executor.linger + slack)
    if executor.nodes > 1:
        # By their host names NCCL tells machines apart; the end of the key is what sets jobs apart.
        spec["hostname"] = f"{job.key[-50:].lstrip('-')}-{rank}"
    if executor.host_network:
        spec.update(hostNetwork=True, dnsPolicy="ClusterFirstWithHostNet")
    optional = {
        "serviceAccountName": executor.service_account,
        "nodeSelector": dict(executor.node_selector),
        "tolerations": [*map(dict, executor.tolerations)],
        "affinity": executor.affinity,
        "securityContext": executor.pod_security_context,
        "imagePullSecrets": [{"name": name} for name in executor.image_pull_secrets],
        "priorityClassName": executor.priority_class,
        "runtimeClassName": executor.runtime_class,
        "dnsPolicy": executor.dns_policy,
        "dnsConfig": executor.dns_config,
        "hostAliases": [*map(dict, executor.host_aliases)],
        "initContainers": [*map(dict, executor.init_containers)],
        "schedulerName": executor.scheduler_name,
    }
    spec.update({name: value for name, value in optional.items() if value})
    return spec


def _bundle_source(job: Job, parts: int) -> JsonObject:
    # Values of secrets are in the first one too: no file of the pod has them.
    items = [[{"key": (file := bundle_file(part)), "path": file}] for part in range(parts)]
    if parts == 1:
        return {"secret": {"secretName": job.key, "items": items[0]}}
    sources = [{"secret": {"name": secret_name(job.key, part), "items": items[part]}} for part in range(parts)]
    return {"projected": {"sources": sources}}


def _optional_volumes(executor: KubernetesExecutor, rank: int) -> list[JsonObject]:
    volumes: list[JsonObject] = []
    if executor.shm_size:
        size = str(executor.shm_size)
        volumes.append({"name": "nemo-airflow-shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    if rank:
        field = {"fieldPath": f"metadata.annotations['{MASTER}']"}
        volumes.append(
            {"name": "nemo-airflow-master", "downwardAPI": {"items": [{"path": "master", "fieldRef": field}]}}
        )
    return volumes


def _container(executor: KubernetesExecutor, job: Job, rank: int, upload: int) -> JsonObject:
    package = f"job/{job.archives[-1].name}" if upload else ""
    master = f"{MASTER_MOUNT}/master" if rank else ""
    arguments = [f"{BUNDLE_MOUNT}/{BUNDLE_FILE}", BASE, runner_entry(), package, master, f"{_wait_limit(executor):g}"]
    mounts = [
        {"name": "nemo-airflow", "mountPath": BASE},
        {"name": "nemo-airflow-bundle", "mountPath": BUNDLE_MOUNT, "readOnly": True},
        *([{"name": "nemo-airflow-shm", "mountPath": "/dev/shm"}] if executor.shm_size else []),  # noqa: S108
        *([{"name": "nemo-airflow-master", "mountPath": MASTER_MOUNT, "readOnly": True}] if rank else []),
        *map(dict, executor.volume_mounts),
    ]
    container: JsonObject = {
        "name": CONTAINER,
        "image": executor.container_image,
        "command": [executor.python, "-S", "-c", program("start"), *arguments],
        "env": _env(executor, job, rank),
        "volumeMounts": mounts,
    }
    optional = {
        "imagePullPolicy": executor.image_pull_policy,
        "envFrom": [_env_source(source) for source in executor.env_from],
        "resources": _resources(executor),
        "securityContext": executor.security_context,
    }
    container.update({name: value for name, value in optional.items() if value})
    return container


def _wait_limit(executor: KubernetesExecutor) -> float:
    """Returns for how many seconds a pod waits for its package and for the address of its job's first pod."""
    if executor.nodes == 1:
        return UPLOAD_LIMIT
    return UPLOAD_LIMIT + (math.inf if executor.pending_timeout is None else executor.pending_timeout)


def _env(executor: KubernetesExecutor, job: Job, rank: int) -> list[JsonObject]:
    """Returns the environment of the runner. The job's own is in job.json, and so in the Secret."""
    env: list[JsonObject] = [{"name": "NEMO_AIRFLOW_LINGER", "value": f"{executor.linger:g}"}]
    if executor.nodes > 1:
        port = _FIRST_PORT + zlib.crc32(job.key.encode()) % _PORTS
        values = {"NNODES": executor.nodes, "NODE_RANK": rank, "MASTER_PORT": port}
        env += [{"name": name, "value": str(value)} for name, value in values.items()]
        if rank == 0:
            env.append({"name": "MASTER_ADDR", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    references = {name: (job.key, secret_key(name)) for name in executor.secrets}
    for name, (secret, key) in sorted({**references, **executor.secret_env}.items()):
        env.append({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
    return env


def _env_source(source: str | Mapping[str, Any]) -> JsonObject:
    return {"secretRef": {"name": source}} if isinstance(source, str) else dict(source)


def _resources(executor: KubernetesExecutor) -> JsonObject:
    # No limit on processors unless asked for: it would only throttle. Memory without one is taken from the neighbours.
    memory = {"memory": str(executor.memory)} if executor.memory else {}
    cpus = {"cpu": str(executor.cpus)} if executor.cpus else {}
    gpus = {executor.gpu_resource: str(executor.gpu_count)} if executor.gpu_count else {}
    both = {
        "requests": {**cpus, **memory, **gpus, **{k: str(v) for k, v in executor.requests.items()}},
        "limits": {**memory, **gpus, **{k: str(v) for k, v in executor.limits.items()}},
    }
    return {name: values for name, values in both.items() if values}


def merge(below: Any, above: Any, field: str = "") -> Any:
    """Returns the two merged as Kubernetes merges them: what is above wins, None takes away.

    Lists whose items have names (containers, volumes, env ...) are merged item by item, others replaced.
    """
    if isinstance(below, Mapping) and isinstance(above, Mapping):
        merged = dict(below)
        for name, value in above.items():
            if value is None:
                merged.pop(name, None)
            else:
                merged[name] = merge(below.get(name), value, name)
        return merged
    if field in _MERGE_KEYS and isinstance(below, Sequence) and isinstance(above, Sequence):
        return _merge_items(below, above, _MERGE_KEYS[field], field)
    return above


def _merge_items(below: Sequence[Any], above: Sequence[Any], key: str, field: str) -> list[Any]:
    merged = {item[key]: item for item in below}
    for item in above:
        if not isinstance(item, Mapping) or key not in item:
            raise ExecutorArgumentError(
                f"pod_template: every item of {field} needs a {key!r}, so that it can be merged: {item!r}"
            )
        merged[item[key]] = merge(merged.get(item[key]), item)
    return list(merged.values())
