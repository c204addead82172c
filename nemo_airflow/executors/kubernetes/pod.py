"""Reads a pod as the API server has it: names, times, and how its job's container fares."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.job import JsonObject

IMAGE_ERROR = "image-error"
"""Stands among the annotations of a pod in :class:`~nemo_airflow.executors.kubernetes.pods.Pods`: why its image did
not come. The pod itself says so only until the next attempt."""

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "SignatureValidationFailed")
"""Why a container waits whose image did not come, and may come yet."""

STARTING = ("ContainerCreating", "PodInitializing", "")
"""Why a container waits that is on its way."""

_NODE_GONE = 60.0
"""Seconds after the time by which a pod had to be ended, when its node counts as gone."""


def name_of(pod: Mapping[str, Any]) -> str:
    """Returns the pod's name."""
    return str(pod["metadata"]["name"])


def uid_of(pod: Mapping[str, Any]) -> str:
    """Returns the pod's uid: names come again, uids never."""
    return str(pod["metadata"]["uid"])


def node_of(pod: Mapping[str, Any]) -> str:
    """Returns the name of the pod's node, or an empty string when it has none yet."""
    return str(pod.get("spec", {}).get("nodeName") or "")


def python_of(pod: Mapping[str, Any]) -> str:
    """Returns the interpreter that the job's container was started with."""
    return str(_manifest(pod)["command"][0])


def label(pod: Mapping[str, Any], name: str) -> str:
    """Returns a label of a pod, or an empty string."""
    return str((pod["metadata"].get("labels") or {}).get(name) or "")


def annotation(pod: Mapping[str, Any], name: str) -> str:
    """Returns an annotation of a pod, or an empty string."""
    return str((pod["metadata"].get("annotations") or {}).get(name) or "")


def container_end(pod: Mapping[str, Any]) -> JsonObject | None:
    """Returns how the job's container ended, or None when it has not."""
    end = container(pod).get("state", {}).get("terminated")
    return dict(end) if end else None


def is_deleted(pod: Mapping[str, Any]) -> bool:
    """Returns whether the pod was deleted and only exists until it has ended."""
    return "deletionTimestamp" in pod["metadata"]


def is_running(pod: Mapping[str, Any]) -> bool:
    """Returns whether the job's container runs."""
    return "running" in container(pod).get("state", {})


def has_started(pod: Mapping[str, Any]) -> bool:
    """Returns whether the job's container runs or did run, so that it has a log."""
    return is_running(pod) or container_end(pod) is not None


def is_finished(pod: Mapping[str, Any]) -> bool:
    """Returns whether the pod has ended, though of its containers that may not be known; see :func:`is_unsettled`."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_over(pod: Mapping[str, Any]) -> bool:
    """Returns whether nothing of the pod runs any more."""
    return is_finished(pod) and not is_running(pod)


def is_unsettled(pod: Mapping[str, Any]) -> bool:
    """Returns whether the pod has ended, and its container is said to run.

    A node says so for as long as the container takes to end, and one of Kubernetes before 1.22 at times for ever.
    """
    return is_finished(pod) and is_running(pod)


def settled(pod: Mapping[str, Any], exit_code: int) -> JsonObject:
    """Returns an unsettled pod as it is when its container has ended."""
    ended = {"terminated": {**container(pod)["state"]["running"], "exitCode": exit_code}}
    containers = [
        {**status, "state": ended} if status.get("name") == manifest.CONTAINER else status
        for status in pod["status"]["containerStatuses"]
    ]
    return {**pod, "status": {**pod["status"], "containerStatuses": containers}}


def grace_of(pod: Mapping[str, Any]) -> float:
    """Returns the seconds between the two signals by which the pod's node ends it."""
    return float(pod.get("spec", {}).get("terminationGracePeriodSeconds") or 0)


def created_at(pod: Mapping[str, Any]) -> float:
    """Returns when the pod was made, in seconds since the epoch."""
    return seconds(pod["metadata"].get("creationTimestamp"), 0.0)


def memory_limit(pod: Mapping[str, Any]) -> str:
    """Returns the memory limit of the job's container as its manifest has it, or an empty string."""
    return str(_manifest(pod).get("resources", {}).get("limits", {}).get("memory") or "")


def image_of(pod: Mapping[str, Any]) -> str:
    """Returns the image of the job's container."""
    return str(_manifest(pod).get("image") or "")


def image_digest(pod: Mapping[str, Any]) -> str | None:
    """Returns what names the content of the job's image, as its node says it; None before it has started."""
    return str(container(pod).get("imageID") or "") or None


def ended_at(pod: Mapping[str, Any]) -> float:
    """Returns when the job's container ended, or the pod was made if it never started."""
    return seconds((container_end(pod) or {}).get("finishedAt"), created_at(pod))


def trim(pod: Mapping[str, Any]) -> JsonObject:
    """Returns what of a pod is looked at here: a tenth of it, and the cache holds thousands."""
    spec = pod.get("spec", {})
    job = _manifest(pod)
    container = {name: job[name] for name in ("name", "image", "resources") if name in job}
    container["command"] = job.get("command", [])[:1]
    kept = ("name", "uid", "labels", "annotations", "creationTimestamp", "deletionTimestamp")
    return {
        "metadata": {name: pod["metadata"][name] for name in kept if name in pod["metadata"]},
        "spec": {
            "nodeName": spec.get("nodeName"),
            "terminationGracePeriodSeconds": spec.get("terminationGracePeriodSeconds"),
            "containers": [container],
        },
        "status": pod.get("status", {}),
    }


def _manifest(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = pod.get("spec", {}).get("containers") or ()
    return next((container for container in containers if container.get("name") == manifest.CONTAINER), {})


def container(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the status of the job's container; empty before it has one."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    return next((status for status in statuses if status.get("name") == manifest.CONTAINER), {})


def waiting(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns what the pod's containers wait for: the first that has more to say than that it starts."""
    status = pod.get("status", {})
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    waits = [c.get("state", {}).get("waiting") for c in containers]
    known: list[Mapping[str, Any]] = [wait for wait in waits if wait]
    return next((wait for wait in known if wait.get("reason") not in STARTING), known[0] if known else {})


def condition(pod: Mapping[str, Any], kind: str) -> Mapping[str, Any] | None:
    """Returns a condition of the pod, or None."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == kind), None)


def is_overdue(pod: Mapping[str, Any], now: float) -> bool:
    """Returns whether the pod should long have been ended, and only its node can say that it was."""
    deadline = pod["metadata"].get("deletionTimestamp")
    return bool(deadline) and now - seconds(deadline, now) > _NODE_GONE


def image_error(pod: Mapping[str, Any]) -> str:
    """Returns why the image did not come, when the pod says so just now, or an empty string."""
    why = waiting(pod)
    return line(why.get("message")) if why.get("reason") in IMAGE_REASONS[:1] else ""


def seconds(text: Any, default: float) -> float:
    """Returns a time of the API in seconds since the epoch; the default where there is none."""
    return datetime.datetime.fromisoformat(str(text)).timestamp() if text else default


def line(text: Any) -> str:
    """Returns a message in one line that is not too long."""
    return " ".join(str(text or "").split())[:500]
