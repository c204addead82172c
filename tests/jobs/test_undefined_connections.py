"""A connection that is not defined is no outage: a job behind it is given up at once, with one line."""

import asyncio

import pytest

from nemo_airflow import (
    GridEngineExecutor,
    KubernetesExecutor,
    RayExecutor,
    SkypilotExecutor,
    SlurmExecutor,
    SSHExecutor,
)
from nemo_airflow.exceptions import NotDefinedError
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle
from nemo_airflow.triggers.run import NemoRunTrigger

EXECUTORS = [
    SSHExecutor(ssh_conn_id="nowhere"),
    SlurmExecutor(ssh_conn_id="nowhere"),
    GridEngineExecutor(ssh_conn_id="nowhere"),
    KubernetesExecutor(container_image="i", kubernetes_conn_id="nowhere"),
    RayExecutor(ray_conn_id="nowhere"),
    SkypilotExecutor(skypilot_conn_id="nowhere"),
]
LINE = (
    "job job-1 cannot be followed, and may go on: connection 'nowhere' is not defined: "
    "add it with `airflow connections add nowhere ...`, or set AIRFLOW_CONN_NOWHERE"
)


@pytest.fixture(params=EXECUTORS, ids=lambda executor: executor.kind)
def executor(request, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_NOWHERE", raising=False)
    return request.param


async def test_follower_gives_up_at_once(executor):
    warnings = []
    follower = Follower(executor, JobHandle("job-1", executor.kind, "7"), on_line=print, warn=warnings.append)
    async with asyncio.timeout(60):
        with pytest.raises(NotDefinedError) as refused:
            await follower.run()
    assert str(refused.value) == LINE
    assert warnings == []


async def test_trigger_fires_at_once_with_the_kind_of_the_error(executor):
    trigger = NemoRunTrigger(executor=executor.to_json(), handle=JobHandle("job-1", executor.kind, "7").to_json())
    async with asyncio.timeout(60):
        (event,) = [event async for event in trigger.run()]
    assert (event.payload["error"], event.payload["is_undefined"]) == (LINE, True)
