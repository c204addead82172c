"""What a pod, or a group of them, says of its job. Pure: objects of the API in, facts out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.pod import (
    IMAGE_ERROR,
    IMAGE_REASONS,
    STARTING,
    annotation,
    condition,
    container_end,
    ended_at,
    grace_of,
    image_of,
    is_deleted,
    is_finished,
    is_overdue,
    is_running,
    is_unsettled,
    label,
    line,
    memory_limit,
    name_of,
    node_of,
    seconds,
    settled,
    waiting,
)
from nemo_airflow.executors.seen import RUNNING, Fact
from nemo_airflow.job import FailureKind, JobState, JobStatus

_SETTLES_WITHIN = 15.0
"""Seconds, after the grace period of a pod that has ended, within which its node says how its container has."""

_EXIT_ALREADY_CLAIMED = 75
_BY_SIGTERM = 128 + 15
_BY_SIGKILL = 128 + 9

_HOPELESS_IMAGE = ("InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_NOT_THERE = ("not found", "manifest unknown", "does not exist", "unauthorized", "denied", "no basic auth")
_SETUP = ("CreateContainerConfigError", "CreateContainerError", "PreCreateHookError", "RunContainerError")

STILL_CREATED = "its node is still creating it"
"""Stands for a reason that the pod does not say, only its events do: a volume that is not there ..."""

_NODE_REASONS = frozenset({
    "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfpods",
    "UnexpectedAdmissionError", "Unknown",
})  # fmt: skip
"""Reasons of a pod that failed by no fault of its job."""

_DISRUPTIONS = {
    "PreemptionByScheduler": FailureKind.PREEMPTED,
    "PreemptionByKubeScheduler": FailureKind.PREEMPTED,
    "EvictionByEvictionAPI": FailureKind.PREEMPTED,
    "DeletionByTaintManager": FailureKind.NODE_FAILURE,
    "DeletionByPodGC": FailureKind.NODE_FAILURE,
    "TerminationByKubelet": FailureKind.NODE_FAILURE,
}
"""Reasons of the condition DisruptionTarget; see "Disruptions" in the Kubernetes documentation."""


def job_fact(pods: Sequence[Mapping[str, Any]], now: float) -> Fact | None:
    """Returns the word on a job; None where pods of it are missing, and with them the word.

    Args:
        pods: All pods of the job that there are, in the order of their ranks.
        now: Seconds since the epoch.
    """
    if verdict := next((text for pod in pods if (text := annotation(pod, manifest.VERDICT))), ""):
        return RUNNING if any(map(is_running, pods)) else Fact(JobStatus.from_json(json.loads(verdict)))
    fact = _group_fact(pods, now)
    if fact is None or not fact.status.state.is_final:
        return fact
    alive = [pod for pod in pods if not is_leaving(pod)]
    partial = any(container_end(pod) is None for pod in alive)
    # Else what still runs is a sidecar that does not know that the job has ended.
    settling = max((grace_of(pod) + _SETTLES_WITHIN for pod in pods if is_unsettled(pod)), default=0.0)
    return dataclasses.replace(fact, partial=partial, leftover=bool(alive) and not partial, settling=settling)


def _group_fact(pods: Sequence[Mapping[str, Any]], now: float) -> Fact | None:
    nodes = node_count(pods)
    facts = [pod_fact(pod, now) for pod in pods]
    if nodes == 1:
        return facts[0]
    statuses = [fact.status for fact in facts]
    if all(status.state is JobState.SUCCEEDED for status in statuses) and len(pods) == nodes:
        return facts[0]
    cancelled = any(annotation(pod, manifest.CANCELLED) for pod in pods)
    if cancelled and all(status.state.is_final for status in statuses):
        return Fact(JobStatus(JobState.CANCELLED, _BY_SIGTERM, FailureKind.CANCELLED))
    if not cancelled and (failed := _first_failure(pods, statuses)):
        return Fact(failed)
    if len(pods) < nodes:
        return None
    stuck = [(fact, pod) for fact, pod in zip(facts, pods, strict=True) if fact.stuck is not None]
    for fact, pod in sorted(stuck, key=lambda item: not item[0].held):
        reason = f"pod {name_of(pod)}: {fact.status.reason}"
        return dataclasses.replace(fact, status=JobStatus(JobState.PENDING, reason=reason))
    return next((fact for fact in facts if fact.status.state is JobState.PENDING), RUNNING)


def group_status(others: Sequence[Mapping[str, Any]], ends: Sequence[JobStatus], nodes: int) -> JobStatus:
    """Returns how a group ends whose first pod's job has succeeded; RUNNING while others run.

    Args:
        others: The pods of the group that there are, but for the first.
        ends: How their jobs have ended, or how they fare.
        nodes: Pods that the group began with.
    """
    if failed := _first_failure(others, ends):
        return failed
    if len(others) < nodes - 1:
        reason = f"pods {_missing(others, range(1, nodes))} of the job are gone: they were deleted"
        return JobStatus(JobState.LOST, failure=FailureKind.LOST, reason=reason)
    if not all(end.state.is_final for end in ends):
        return JobStatus(JobState.RUNNING)
    return next((end for end in ends if end.state is JobState.CANCELLED), JobStatus(JobState.SUCCEEDED, 0))


def missing_pods(pods: Sequence[Mapping[str, Any]]) -> str:
    """Returns the message for a job that lacks some of its pods."""
    return f"pods {_missing(pods, range(node_count(pods)))} of the job are not there"


def node_count(pods: Sequence[Mapping[str, Any]]) -> int:
    """Returns the number of pods of a job, which each of them has in an annotation."""
    return int(annotation(pods[0], manifest.NODES) or 1)


def is_leaving(pod: Mapping[str, Any]) -> bool:
    """Returns whether the pod has ended, or was told to."""
    return is_finished(pod) or bool(annotation(pod, manifest.VERDICT)) or is_deleted(pod)


def _missing(pods: Sequence[Mapping[str, Any]], ranks: Iterable[int]) -> str:
    present = {label(pod, manifest.RANK) for pod in pods}
    return ", ".join(f"-{rank}" for rank in ranks if str(rank) not in present)


def _first_failure(pods: Sequence[Mapping[str, Any]], statuses: Sequence[JobStatus]) -> JobStatus | None:
    """Returns the failure of the pod that failed first, which is the cause of the others'."""
    failed = [
        (ended_at(pod), name_of(pod), status)
        for pod, status in zip(pods, statuses, strict=True)
        if status.state in (JobState.FAILED, JobState.LOST)
    ]
    if not failed:
        return None
    _, name, status = min(failed, key=lambda item: item[:2])
    return JobStatus(status.state, status.exit_code, status.failure, f"pod {name}: {status.reason}")


def dumps(status: JobStatus) -> str:
    """Returns a status as the text of the annotation ``VERDICT``."""
    return json.dumps(status.to_json(), sort_keys=True)


def pod_fact(pod: Mapping[str, Any], now: float) -> Fact:
    """Returns the word on one pod's job.

    Args:
        pod: The pod.
        now: Seconds since the epoch.
    """
    if is_unsettled(pod):
        pod = settled(pod, _BY_SIGKILL)
    ended = container_end(pod)
    phase = pod.get("status", {}).get("phase")
    if (ended is not None and ended.get("exitCode") == 0) or (ended is None and phase == "Succeeded"):
        return Fact(JobStatus(JobState.SUCCEEDED, 0))  # whatever became of the pod after that
    if ended is not None or phase == "Failed":
        return Fact(_failed(pod, ended or {}))
    if is_overdue(pod, now):
        text = f"node {node_of(pod)} does not answer: the pod could not be ended"
        return Fact(JobStatus(JobState.FAILED, None, FailureKind.NODE_FAILURE, text))
    if is_running(pod):
        return RUNNING
    if phase == "Running":  # other containers of the pod are
        return Fact(JobStatus(JobState.PENDING, reason="the job's container has not started"))
    return _pending(pod, now)


def _failed(pod: Mapping[str, Any], ended: Mapping[str, Any]) -> JobStatus:
    """Returns how a pod's job ended without success."""
    code = ended.get("exitCode")
    status = pod.get("status", {})
    by_signal = code is None or code in (_BY_SIGTERM, _BY_SIGKILL)
    if annotation(pod, manifest.CANCELLED) and by_signal:
        return JobStatus(JobState.CANCELLED, _BY_SIGTERM if code is None else code, FailureKind.CANCELLED)
    if (disruption := _disruption(pod)) is not None:
        return JobStatus(JobState.FAILED, code, *disruption)
    reason, message = str(status.get("reason") or ""), line(status.get("message"))
    said = ": ".join(filter(None, (reason, message)))
    if reason == "Evicted":
        own = "exceeds the limit" in message or "exceeds the total limit" in message
        return JobStatus(JobState.FAILED, code, FailureKind.USER_ERROR if own else FailureKind.NODE_FAILURE, said)
    if reason == "Preempting":
        return JobStatus(JobState.FAILED, code, FailureKind.PREEMPTED, said)
    if reason == "DeadlineExceeded":
        return JobStatus(JobState.FAILED, code, FailureKind.TIMEOUT, said)
    if reason in _NODE_REASONS or reason.startswith("OutOf") or ended.get("reason") == "ContainerStatusUnknown":
        return JobStatus(JobState.FAILED, code, FailureKind.NODE_FAILURE, said or "the node has lost the container")
    if by_signal and pod.get("metadata", {}).get("deletionTimestamp"):
        return JobStatus(JobState.LOST, code, FailureKind.LOST, "the pod was deleted or preempted")
    return _container_failed(pod, ended, said)


def _container_failed(pod: Mapping[str, Any], ended: Mapping[str, Any], said: str) -> JobStatus:
    code, reason, message = ended.get("exitCode"), str(ended.get("reason") or ""), line(ended.get("message"))
    if reason == "OOMKilled":
        limit = f" of {value}" if (value := memory_limit(pod)) else ""
        text = f"OOMKilled: the container used more memory than its limit{limit}"
        return JobStatus(JobState.FAILED, code, FailureKind.OUT_OF_MEMORY, text)
    if code == _EXIT_ALREADY_CLAIMED:
        text = "the node has started the container a second time: what ran in the first is gone"
        return JobStatus(JobState.FAILED, code, FailureKind.NODE_FAILURE, text)
    if reason in ("ContainerCannotRun", "StartError"):
        return JobStatus(JobState.FAILED, code, FailureKind.IMAGE, f"the container cannot start: {message or reason}")
    if code is None and (init := _failed_init(pod)):
        return JobStatus(JobState.FAILED, None, FailureKind.USER_ERROR, init)
    if code == _BY_SIGKILL:
        message = message or "killed by SIGKILL: out of memory, or from outside"
    text = message or said or (f"ended with exit code {code}" if code is not None else "the pod failed")
    return JobStatus(JobState.FAILED, code, FailureKind.USER_ERROR, text)


def _failed_init(pod: Mapping[str, Any]) -> str:
    for status in pod.get("status", {}).get("initContainerStatuses") or ():
        ended = status.get("state", {}).get("terminated")
        if ended and ended.get("exitCode"):
            return f"init container {status['name']} ended with exit code {ended['exitCode']}"
    return ""


def _disruption(pod: Mapping[str, Any]) -> tuple[FailureKind, str] | None:
    target = condition(pod, "DisruptionTarget")
    if target is None or target.get("status") != "True":
        return None
    reason = str(target.get("reason") or "")
    said = ": ".join(filter(None, (reason, line(target.get("message")))))
    return _DISRUPTIONS.get(reason, FailureKind.NODE_FAILURE), said


def _pending(pod: Mapping[str, Any], now: float) -> Fact:
    """Returns what a pod waits for, and whether that will not come, or took longer than its executor allows."""
    scheduled = condition(pod, "PodScheduled") or {}
    wait = waiting(pod)
    reason, message = str(wait.get("reason") or ""), line(wait.get("message"))
    said = "" if reason in STARTING else ": ".join(filter(None, (reason, message)))
    if reason in STARTING and scheduled.get("status") == "False":
        said = ": ".join(filter(None, (str(scheduled.get("reason") or ""), line(scheduled.get("message")))))
    stuck, held = None, False
    if reason in _HOPELESS_IMAGE:
        stuck, held, said = FailureKind.IMAGE, True, f"image {image_of(pod)}: {said}"
    elif reason in IMAGE_REASONS:
        remembered = line(annotation(pod, IMAGE_ERROR)) or message
        hopeless = any(word in remembered.lower() for word in _NOT_THERE)
        stuck, held, said = FailureKind.IMAGE, hopeless, f"image {image_of(pod)}: {reason}: {remembered}"
    elif reason in _SETUP:
        stuck = FailureKind.USER_ERROR
    timeout = annotation(pod, manifest.PENDING_TIMEOUT)
    age = now - seconds(pod["metadata"].get("creationTimestamp"), now)
    if timeout and age > float(timeout):
        short = "Insufficient" in said or "quota" in said
        stuck = FailureKind.QUOTA if short else stuck or FailureKind.USER_ERROR
        held, said = True, f"the pod has not started within {float(timeout):g} s: {said or STILL_CREATED}"
    return Fact(JobStatus(JobState.PENDING, reason=said), stuck=stuck, held=held)
