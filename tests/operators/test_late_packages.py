"""A package that can only be sent to a job that has started keeps no worker while the job is queued."""

import asyncio
import datetime
import random
import shutil
import time
import uuid
from pathlib import Path

import kubernetes
import operator_jobs
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred

from nemo_airflow import Config, KubernetesExecutor, NemoRunOperator
from nemo_airflow.exceptions import JobFailed
from nemo_airflow.job import FailureKind, JobHandle
from nemo_airflow.packaging.pattern import PatternPackager
from nemo_airflow.triggers.run import NemoRunTrigger


@pytest.fixture
def node(lab_kubeconfig):
    """Returns a function that labels the lab's node."""
    labels = {}
    with kubernetes.config.new_client_from_config(lab_kubeconfig) as client:
        api = kubernetes.client.CoreV1Api(client)
        name = api.list_node().items[0].metadata.name

        def set_label(label):
            labels[label] = None
            api.patch_node(name, {"metadata": {"labels": {label: "true"}}})

        yield set_label
        api.patch_node(name, {"metadata": {"labels": labels}})


@pytest.fixture
def room():
    """Label of the node on which the task's job waits for room."""
    return f"nemo-airflow.room-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def task(lab_kubeconfig, lab_image, room, tmp_path, monkeypatch):
    """A function that makes the task: its package is too large for the Secrets, its job has no room."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    code = tmp_path / "code"
    code.mkdir()
    shutil.copy(Path(operator_jobs.__file__), code)
    (code / "weights.bin").write_bytes(random.Random(0).randbytes(5_000_000))
    executor = KubernetesExecutor(
        container_image=lab_image, config_file=lab_kubeconfig, node_selector={room: "true"}, grace=2, linger=20
    )

    def made(**arguments):
        with DAG("late_packages", schedule=None):
            return NemoRunOperator(
                task_id="t",
                config=Config(operator_jobs.double, value=21),
                job_executor=executor,
                packager=PatternPackager(path=str(code)),
                tracker=None,
                **arguments,
            )

    return made


def trigger_of(deferred):
    trigger = NemoRunTrigger(**deferred.value.trigger.serialize()[1])
    trigger.task_instance = None
    return trigger


async def event_of(trigger, meanwhile=lambda: asyncio.sleep(0)):
    async def first():
        return await anext(aiter(trigger.run()))

    async with asyncio.timeout(120):
        waiting = asyncio.create_task(first())
        await asyncio.sleep(1)
        assert not waiting.done()
        await meanwhile()
        return (await waiting).payload


def test_worker_sends_the_package_when_the_job_has_started(task, task_context, node, room):
    operator = task()
    context = task_context(operator.dag)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)

    async def make_room():
        await asyncio.to_thread(node, room)

    event = asyncio.run(event_of(trigger_of(deferred), make_room))
    assert event["started"]
    assert operator.execute_complete(context, event) == 42


def test_time_for_which_a_job_was_queued_counts_as_time_of_the_task(task, task_context, node, room):
    limited = {"execution_timeout": datetime.timedelta(minutes=10), "defer_after": 0}
    operator = task(**limited)
    context = task_context(operator.dag)
    with pytest.raises(TaskDeferred) as queued:
        operator.execute(context)

    async def make_room():
        await asyncio.to_thread(node, room)

    event = asyncio.run(event_of(trigger_of(queued), make_room))
    with pytest.raises(TaskDeferred) as started:
        task(**limited).execute_complete(context, event)  # another process
    trigger = trigger_of(started)
    asyncio.run(trigger.on_kill())
    assert trigger.deadline == trigger_of(queued).deadline


def test_user_who_ends_the_task_of_a_queued_job_ends_the_job(task, task_context):
    operator = task()
    context = task_context(operator.dag)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    trigger = trigger_of(deferred)
    event = asyncio.run(event_of(trigger, trigger.on_kill))
    assert event["outcome"]["status"]["failure"] == FailureKind.CANCELLED


def test_deadline_ends_a_job_that_has_not_started(task, task_context):
    operator = task()
    context = task_context(operator.dag)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    stored = {**deferred.value.trigger.serialize()[1], "deadline": time.time() + 3}
    trigger = NemoRunTrigger(**stored)
    trigger.task_instance = None
    event = asyncio.run(event_of(trigger))
    assert JobHandle.from_json(event["handle"]).key
    with pytest.raises(JobFailed, match="timeout"):
        operator.execute_complete(context, event)
