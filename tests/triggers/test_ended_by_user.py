"""A user ends the task of a job that a triggerer follows: the job is cancelled, and its run ends."""

import asyncio
import contextlib
import uuid

import pytest
from mlflow import MlflowClient

from nemo_airflow import LocalExecutor, MLflowTracker, blocking
from nemo_airflow.job import Job
from nemo_airflow.tracking.run import TrackedRun
from nemo_airflow.triggers.run import NemoRunTrigger


@pytest.fixture
def follow(tmp_path, mlflow_database):
    """Returns a function that submits a job, and returns the trigger that is to follow it and the id of its run."""

    def start(script):
        executor = LocalExecutor(root=str(tmp_path / "jobs"), grace=1)
        root = {"_target_": "nemo_airflow.runner.script:run", "inline": script}
        job = Job(key=f"u{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root})
        run = TrackedRun(MLflowTracker(tracking_uri=mlflow_database), job, "ended", shares_filesystem=False).open()
        handle = blocking.run(executor.connect().submit(executor.render(job)))
        run = run.submitted(handle, "")
        return NemoRunTrigger(executor.to_json(), handle.to_json(), run.to_json()), run.ref.run_id

    return start


async def first_event(trigger):
    return await anext(trigger.run())


def test_the_run_of_a_job_that_a_user_ends_is_cancelled(follow, tmp_path, mlflow_database):
    trigger, run_id = follow("echo asleep; exec sleep 600")

    async def end_by_user():
        following = asyncio.create_task(first_event(trigger))
        async with asyncio.timeout(60):
            while not any("asleep" in log.read_text() for log in tmp_path.glob("jobs/*/log")):
                await asyncio.sleep(0.05)
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        await trigger.on_kill()

    asyncio.run(end_by_user())
    run = MlflowClient(mlflow_database).get_run(run_id)
    assert run.info.status == "KILLED"
    assert run.data.tags["nemo_airflow.state"] == "cancelled"
    assert "a user has ended its task" in run.data.tags["nemo_airflow.error"]
    assert run.info.end_time


def test_a_run_that_has_ended_stays_as_it_ended(follow, mlflow_database):
    trigger, run_id = follow("echo done")

    async def end_by_user_too_late():
        assert (await first_event(trigger)).payload["outcome"]["status"]["state"] == "succeeded"
        await trigger.on_kill()

    asyncio.run(end_by_user_too_late())
    assert MlflowClient(mlflow_database).get_run(run_id).data.tags["nemo_airflow.state"] == "succeeded"
