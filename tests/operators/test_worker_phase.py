"""When a worker follows its job, and when it leaves it to the triggerer."""

import datetime
import time
from pathlib import Path

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred
from deferred_tasks import fire

from nemo_airflow import Config, MLflowTracker, NemoRunOperator, PatternPackager, SlurmExecutor, blocking
from nemo_airflow.exceptions import ConfigError, SettingsError
from nemo_airflow.job import JobHandle
from nemo_airflow.operators.termination import is_ended_by_user
from nemo_airflow.testing.services import service_of

NEVER = 100_000
"""Seconds of ``defer_after`` after which no test waits."""


@pytest.fixture
def execute(task_context, defaults):
    """Returns a function that does a try of a task, and gives its result."""

    def executed(config, **arguments):
        with DAG("worker_phase", schedule=None) as dag:
            operator = NemoRunOperator(task_id="t", config=config, **{**defaults, **arguments})
        return operator.execute(task_context(dag))

    return executed


def handle_of(deferred):
    return JobHandle.from_json(deferred.value.trigger.serialize()[1]["handle"])


def wait_for_end(executor, handle):
    deadline = time.monotonic() + 300
    while not blocking.run(service_of(executor.connect()).status([handle]))[handle.key].state.is_final:
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.05)


def test_job_that_has_ended_when_a_try_finds_it_ends_there_even_if_tasks_defer_at_once(execute, defaults):
    config = Config(jobs.double, value=21)
    with pytest.raises(TaskDeferred) as deferred:
        execute(config, defer_after=0)
    wait_for_end(defaults["job_executor"], handle_of(deferred))
    assert execute(config, defer_after=0) == 42


def test_job_that_runs_when_a_try_finds_it_is_left_to_the_triggerer(execute, defaults):
    config = Config(jobs.sleep, seconds=600)
    handles = []
    for _ in range(2):
        with pytest.raises(TaskDeferred) as deferred:
            execute(config, defer_after=0)
        handles.append(handle_of(deferred))
    assert handles[0].key == handles[1].key
    assert deferred.value.trigger.serialize()[1]["attached"]
    blocking.run(defaults["job_executor"].connect().cancel(handles))
    wait_for_end(defaults["job_executor"], handles[0])


def test_job_that_a_try_finds_is_announced_again_with_its_package_and_run(task_context, defaults, mlflow_database):
    """Airflow drops what a task has pushed when its next try begins, and later tasks ask for the job's run."""
    with DAG("worker_phase", schedule=None) as dag:
        own = {"tracker": MLflowTracker(tracking_uri=mlflow_database), "defer_after": 0}
        packager = PatternPackager(path=str(Path(__file__).parent), include=["/operator_jobs.py"])
        config = Config(jobs.sleep, seconds=600)
        operator = NemoRunOperator(task_id="t", config=config, packager=packager, **{**defaults, **own})
    announced = []
    for _ in range(2):
        context = task_context(dag)
        pushed = {}
        context["ti"].xcom_push = lambda key, value, pushed=pushed: pushed.update({key: value})
        with pytest.raises(TaskDeferred) as deferred:
            operator.execute(context)
        announced.append(pushed)
    blocking.run(defaults["job_executor"].connect().cancel([handle_of(deferred)]))
    assert announced[0] == announced[1]
    assert announced[1]["nemo_job"]["run"]["run_id"]
    assert announced[1]["nemo_job"]["package"]["digest"]


def test_job_that_is_submitted_again_in_a_try_has_the_time_that_is_left_of_it(task_context, defaults):
    with DAG("worker_phase", schedule=None) as dag:
        limited = {"execution_timeout": datetime.timedelta(minutes=10), "defer_after": 0}
        operators = [
            NemoRunOperator(task_id=name, config=Config(jobs.sleep, seconds=600), **limited, **defaults)
            for name in "tu"
        ]
    context = task_context(dag)
    with pytest.raises(TaskDeferred):
        operators[0].execute(context)
    with pytest.raises(TaskDeferred) as attached:
        operators[0].execute(context)
    handle, executor = handle_of(attached), defaults["job_executor"]
    blocking.run(executor.connect().cancel([handle]))  # on behalf of the earlier try
    event = fire(attached)
    with pytest.raises(TaskDeferred) as again:
        operators[1].execute_complete(context, event)  # another process
    blocking.run(executor.connect().cancel([handle_of(again)]))
    assert handle_of(again).key != handle.key
    assert again.value.trigger.serialize()[1]["deadline"] == attached.value.trigger.deadline


def test_job_that_is_queued_is_left_to_the_triggerer(execute, lab_slurm, ssh_conn_id):
    later = {"begin": "now+7200"}
    executor = SlurmExecutor(ssh_conn_id=ssh_conn_id, root="~/queued", grace=1, additional_parameters=later)
    with pytest.raises(TaskDeferred) as deferred:
        execute(Config(jobs.number), job_executor=executor, defer_after=NEVER)
    handle = handle_of(deferred)
    blocking.run(executor.connect().cancel([handle]))
    wait_for_end(executor, handle)


def test_setting_holds_for_tasks_that_say_nothing(execute, defaults, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_DEFER_AFTER", "0")
    with pytest.raises(TaskDeferred) as deferred:
        execute(Config(jobs.number))
    wait_for_end(defaults["job_executor"], handle_of(deferred))


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_setting_that_is_no_number_of_seconds_is_told_before_anything_is_submitted(execute, store, monkeypatch, text):
    monkeypatch.setenv("NEMO_AIRFLOW_DEFER_AFTER", text)
    with pytest.raises(SettingsError, match=f"NEMO_AIRFLOW_DEFER_AFTER='{text}'"):
        execute(Config(jobs.number))
    assert not store


@pytest.mark.parametrize("seconds", [-1, "10", True])
def test_number_of_seconds_that_is_none_is_refused_where_it_is_written(seconds):
    with pytest.raises(ConfigError, match="defer_after="):
        NemoRunOperator(task_id="t", config=Config(jobs.number), defer_after=seconds)


@pytest.mark.parametrize(
    ("state", "by_user"),
    [
        ("success", True), ("failed", True), ("skipped", True), ("restarting", True), ("removed", True), (None, True),
        ("running", False), ("up_for_retry", False), ("scheduled", False), ("queued", False), ("deferred", False),
    ],
)  # fmt: skip
def test_state_of_the_task_tells_whether_a_user_has_ended_it(state, by_user):
    assert is_ended_by_user(state) is by_user


class EndedMeanwhile(NemoRunOperator):
    """Has its task ended by a user while the back-end takes the job."""

    def _new_submission(self, context, prepared):
        submission = super()._new_submission(context, prepared)
        submit = submission.back_end.submit

        def and_is_ended(request):
            handle = submit(request)
            self._termination.by_user.set()
            return handle

        submission.back_end.submit = and_is_ended
        return submission


def test_job_whose_task_was_ended_while_it_was_submitted_is_cancelled(task_context, defaults, store):
    with DAG("worker_phase", schedule=None) as dag:
        operator = EndedMeanwhile(task_id="t", config=Config(jobs.sleep, seconds=600), defer_after=NEVER, **defaults)
    with pytest.raises(AirflowFailException, match="ended by a user"):
        operator.execute(task_context(dag))
    driver = defaults["job_executor"].connect()
    key = store["nemo_job"]["key"]
    wait_for_end(defaults["job_executor"], blocking.run(driver.find([key]))[key])
