"""What pods, as the API server has them, tell of their job: a table."""

import json

import pytest

from nemo_airflow.executors.kubernetes import manifest
from nemo_airflow.executors.kubernetes.status import job_fact
from nemo_airflow.job import FailureKind, JobState, JobStatus

NOW = 1_000_000.0
CREATED = "1970-01-12T13:46:00Z"
"""40 s before that."""

RUNNING, SUCCEEDED, PENDING = JobState.RUNNING, JobState.SUCCEEDED, JobState.PENDING
FAILED, CANCELLED = JobState.FAILED, JobState.CANCELLED

RUNS = {"running": {"startedAt": CREATED}}


def ended(code, **more):
    return {"terminated": {"exitCode": code, "finishedAt": CREATED, **more}}


def waits(reason, message=""):
    return {"waiting": {"reason": reason, "message": message}}


def pod(state=None, phase="Running", rank=0, notes=(), deleted="", conditions=(), **status):
    metadata = {
        "name": f"job-{rank}",
        "uid": f"uid-{rank}",
        "labels": {manifest.RANK: str(rank)},
        "annotations": dict(notes),
        "creationTimestamp": CREATED,
        **({"deletionTimestamp": deleted} if deleted else {}),
    }
    container = {"name": manifest.CONTAINER, "image": "an-image"}
    statuses = [{"name": manifest.CONTAINER, "state": state}] if state else []
    status = {"phase": phase, "containerStatuses": statuses, "conditions": [*conditions], **status}
    spec = {"nodeName": "node-1", "terminationGracePeriodSeconds": 5, "containers": [container]}
    return {"metadata": metadata, "spec": spec, "status": status}


def group(*pods):
    for rank, each in enumerate(pods):
        each["metadata"]["name"] = f"job-{rank}"
        each["metadata"]["labels"][manifest.RANK] = str(rank)
        each["metadata"]["annotations"][manifest.NODES] = "2"
    return [*pods]


def waiting_for(reason, message="", **more):
    return [pod(waits(reason, message), "Pending", **more)]


def verdict(status):
    return [(manifest.VERDICT, json.dumps(status.to_json()))]


IMAGE, USER, QUOTA = FailureKind.IMAGE, FailureKind.USER_ERROR, FailureKind.QUOTA
TIMEOUT = [(manifest.PENDING_TIMEOUT, "30")]
LONG = [(manifest.PENDING_TIMEOUT, "3600")]
TOLD = [(manifest.CANCELLED, "true")]
GAVE_UP = verdict(JobStatus(FAILED, None, IMAGE, "no image"))
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "Insufficient cpu"}
PREEMPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
DEADLINE = {"reason": "DeadlineExceeded"}

# name: (pods, state, failure, what else the fact has)
CASES = {
    "its container runs": ([pod(RUNS)], RUNNING, None, {}),
    "its container is being made": (waiting_for("ContainerCreating"), PENDING, None, {}),
    "only its sidecars run": ([pod()], PENDING, None, {}),
    "it has ended well": ([pod(ended(0), "Succeeded")], SUCCEEDED, None, {}),
    "it has ended, but not its sidecar": ([pod(ended(0))], SUCCEEDED, None, {"leftover": True}),
    "it has failed, but not its sidecar": ([pod(ended(3))], FAILED, USER, {"leftover": True}),
    "an exit code": ([pod(ended(3), "Failed")], FAILED, USER, {}),
    "out of memory": ([pod(ended(137, reason="OOMKilled"), "Failed")], FAILED, FailureKind.OUT_OF_MEMORY, {}),
    "preempted": ([pod(ended(143), "Failed", conditions=[PREEMPTED])], FAILED, FailureKind.PREEMPTED, {}),
    "we have cancelled it": ([pod(ended(143), "Failed", notes=TOLD)], CANCELLED, FailureKind.CANCELLED, {}),
    "its deadline": ([pod(ended(143), "Failed", **DEADLINE)], FAILED, FailureKind.TIMEOUT, {}),
    "its pod has ended, and its container still does": (
        [pod(RUNS, "Failed", **DEADLINE)], FAILED, FailureKind.TIMEOUT, {"settling": 20.0}),
    "its node is gone with it": (
        [pod(RUNS, deleted="1970-01-12T13:40:00Z")], FAILED, FailureKind.NODE_FAILURE, {}),
    "no node has room": ([pod(None, "Pending", conditions=[UNSCHEDULABLE], notes=LONG)], PENDING, None, {}),
    "no node has had room for its time": (
        [pod(None, "Pending", conditions=[UNSCHEDULABLE], notes=TIMEOUT)], PENDING, None,
        {"stuck": QUOTA, "held": True}),
    "its image has no name": (waiting_for("InvalidImageName"), PENDING, None, {"stuck": IMAGE, "held": True}),
    "its image is nowhere": (
        waiting_for("ErrImagePull", "manifest unknown"), PENDING, None, {"stuck": IMAGE, "held": True}),
    "its registry is away": (waiting_for("ImagePullBackOff", "i/o timeout"), PENDING, None, {"stuck": IMAGE}),
    "its image has not come for its time": (
        waiting_for("ImagePullBackOff", "i/o timeout", notes=TIMEOUT), PENDING, None, {"stuck": IMAGE, "held": True}),
    "a secret is not there": (waiting_for("CreateContainerConfigError", "no secret"), PENDING, None, {"stuck": USER}),
    "it was given up": ([pod(ended(143), "Failed", notes=GAVE_UP)], FAILED, IMAGE, {}),
    "it was given up, and is ending": ([pod(RUNS, notes=GAVE_UP)], RUNNING, None, {}),
    "all of a group run": (group(pod(RUNS), pod(RUNS)), RUNNING, None, {}),
    "one of a group waits": (group(pod(RUNS), pod(None, "Pending")), PENDING, None, {}),
    "one of a group waits in vain": (
        group(pod(RUNS), *waiting_for("InvalidImageName")), PENDING, None, {"stuck": IMAGE, "held": True}),
    "one of a group has failed": (group(pod(RUNS), pod(ended(7), "Failed")), FAILED, USER, {"partial": True}),
    "one of a group has failed before another began": (
        group(pod(ended(7), "Failed"), pod(None, "Pending")), FAILED, USER, {"partial": True}),
    "one of a group has ended well": (group(pod(ended(0), "Succeeded"), pod(RUNS)), RUNNING, None, {}),
    "all of a group have ended well": (
        group(pod(ended(0), "Succeeded"), pod(ended(0), "Succeeded")), SUCCEEDED, None, {}),
    "a group was cancelled, and one has ended": (
        group(pod(ended(143), "Failed", notes=TOLD), pod(RUNS, notes=TOLD)), RUNNING, None, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_pods_tell_of_their_job(case):
    pods, state, failure, more = case
    fact = job_fact(pods, NOW)
    assert (fact.status.state, fact.status.failure) == (state, failure)
    usual = {"stuck": None, "held": False, "partial": False, "leftover": False, "settling": 0.0, "may_restart": False}
    assert {name: getattr(fact, name) for name in usual} == {**usual, **more}


def test_group_of_which_a_pod_is_missing_tells_nothing():
    assert job_fact(group(pod(RUNS), pod(RUNS))[1:], NOW) is None
