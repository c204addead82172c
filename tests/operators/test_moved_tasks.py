"""A task that was moved or cleared while its job ran: the old job is ended where it runs, and no other one is."""

import dataclasses
import time

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from operator_dags import jobs_in

from nemo_airflow import Config, LocalExecutor, NemoRunOperator, SSHExecutor, Torchrun, blocking
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.operators.preparation import changed_fields
from nemo_airflow.testing.services import service_of


@pytest.fixture
def submit(task_context, defaults):
    """Returns a function that does a try of one task, whose worker is away before the job has ended."""
    submitted = []

    def submit_to(executor):
        with DAG("moved", schedule=None) as dag:
            operator = NemoRunOperator(
                task_id="t",
                config=Config(jobs.sleep, seconds=600),
                defer_after=0,
                **{**defaults, "job_executor": executor},
            )
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(task_context(dag))
        handle = JobHandle.from_json(deferred.value.trigger.serialize()[1]["handle"])
        submitted.append((executor, handle))
        return handle

    yield submit_to
    for executor, handle in submitted:
        blocking.run(executor.connect().cancel([handle]))


def state(executor, handle):
    return blocking.run(service_of(executor.connect()).status([handle]))[handle.key].state


def wait_for_end(executor, handle):
    deadline = time.monotonic() + 300
    while not state(executor, handle).is_final:
        assert time.monotonic() < deadline, f"job {handle.key} still runs"
        time.sleep(0.05)


def test_job_from_before_a_clear_that_dropped_its_record_is_found_and_ended(submit, store, tmp_path):
    executor = LocalExecutor(root=str(tmp_path / "jobs"), grace=1)
    first = submit(executor)
    store.clear()  # as Airflow does on a clear where it is set to; the run's start is another then
    second = submit(executor)
    wait_for_end(executor, first)
    assert state(executor, first) is JobState.CANCELLED
    assert state(executor, second) is JobState.RUNNING


def test_old_job_is_cancelled_where_it_runs(submit, tmp_path):
    old, new = (LocalExecutor(root=str(tmp_path / name), grace=1) for name in ("old", "new"))
    first = submit(old)
    second = submit(new)
    wait_for_end(old, first)
    assert state(old, first) is JobState.CANCELLED
    assert state(new, second) is JobState.RUNNING
    assert len(jobs_in(tmp_path / "old")) == len(jobs_in(tmp_path / "new")) == 1


def test_old_back_end_that_is_gone_keeps_no_task_from_its_new_one(submit, store, tmp_path, caplog, capfd):
    old, new = LocalExecutor(root=str(tmp_path / "old"), grace=1), LocalExecutor(root=str(tmp_path / "new"), grace=1)
    first = submit(old)
    store["nemo_job"]["executor"] = SSHExecutor(ssh_conn_id="is_no_more").to_json()
    second = submit(new)
    assert state(new, second) is JobState.RUNNING
    told = caplog.text + "".join(capfd.readouterr())
    assert f"Job {first.key} of an earlier attempt may still run where the task ran before (ssh)" in told


@dataclasses.dataclass(frozen=True)
class OfTheNextRelease(LocalExecutor):
    """Has a field more."""

    quiet: bool = False


def test_field_that_a_release_adds_makes_no_other_job_and_one_that_is_set_does():
    executor = {"time": 60, "env": {"A": "1"}, "launcher": Torchrun()}
    assert changed_fields(LocalExecutor(**executor)) == changed_fields(OfTheNextRelease(**executor))
    assert changed_fields(LocalExecutor()) == {"kind": "local"}
    assert changed_fields(OfTheNextRelease(quiet=True)) == {"kind": "local", "quiet": True}
    launchers = [Torchrun(), Torchrun(rdzv_backend="static"), None]
    told = [changed_fields(LocalExecutor(launcher=launcher)) for launcher in launchers]
    assert all(told.count(one) == 1 for one in told)
