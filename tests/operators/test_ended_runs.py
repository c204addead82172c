"""The run of a job that nobody follows to its end any more: it ends all the same, with the reason."""

import contextlib
import signal
import threading

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from deferred_tasks import fire
from mlflow import MlflowClient

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator, SlurmExecutor
from nemo_airflow.exceptions import BackendUnavailable, NemoAirflowError
from nemo_airflow.executors.local import LocalDriver


@pytest.fixture
def operator_of(defaults, mlflow_database):
    """Returns a function that makes the only task of a DAG, tracked, and gives both."""

    def made(config, **arguments):
        with DAG("ended_runs", schedule=None) as dag:
            tracked = {**defaults, "tracker": MLflowTracker(tracking_uri=mlflow_database), **arguments}
            return dag, NemoRunOperator(task_id="t", config=config, **tracked)

    return made


def runs_of(uri):
    """Returns the run of the job, and its parent."""
    client = MlflowClient(uri)
    return client.search_runs([client.get_experiment_by_name("ended_runs").experiment_id])


def ended(uri):
    """Returns the statuses of all runs, and the state and the error of the job's."""
    runs = runs_of(uri)
    (run,) = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert run.info.end_time
    tags = run.data.tags
    return {run.info.status for run in runs}, tags["nemo_airflow.state"], tags["nemo_airflow.error"]


@contextlib.contextmanager
def when_it_runs(root, act):
    """Does something beside a task as soon as its job runs."""
    over = threading.Event()

    def wait():
        while not over.wait(0.05):
            if any("asleep" in log.read_text() for log in root.glob("*/log")):
                return act()
        return None

    beside = threading.Thread(target=wait)
    beside.start()
    try:
        yield
    finally:
        over.set()
        beside.join()


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_user_ends_the_task_of_a_job_that_takes_its_time_to_end(
    operator_of, task_context, root, mlflow_database, deferrable
):
    executor = LocalExecutor(root=str(root), grace=10)
    dag, operator = operator_of(
        Config(jobs.sleep_on, seconds=600), job_executor=executor, defer_after=600, deferrable=deferrable
    )
    context = task_context(dag)
    context["ti"].get_task_states = lambda **_: {"run": {"t": "success"}}
    with when_it_runs(root, operator.on_kill), pytest.raises(AirflowFailException, match="ended by a user"):
        operator.execute(context)
    statuses, state, error = ended(mlflow_database)
    assert (statuses, state) == ({"KILLED", "FAILED"}, "cancelled")
    assert "a user has ended its task" in error, "the job's own end was waited for"


def test_a_task_runs_into_its_execution_timeout_in_a_worker(operator_of, task_context, root, mlflow_database):
    dag, operator = operator_of(Config(jobs.sleep_on, seconds=600), deferrable=False)

    def time_out(number, frame):  # as Airflow does
        raise AirflowTaskTimeout

    def interrupt():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, time_out)
    try:
        with when_it_runs(root, interrupt), pytest.raises(AirflowTaskTimeout):
            operator.execute(task_context(dag))
    finally:
        signal.signal(signal.SIGALRM, before)
    statuses, state, error = ended(mlflow_database)
    assert (statuses, state) == ({"FAILED"}, "failed")
    assert "the job did not end before the task's execution_timeout" in error


def test_the_back_end_refuses_the_job_of_a_task(operator_of, task_context, lab_slurm, ssh_conn_id, mlflow_database):
    executor = SlurmExecutor(ssh_conn_id=ssh_conn_id, root="~/refused", partition="nowhere")
    dag, operator = operator_of(Config(jobs.number), job_executor=executor)
    with pytest.raises(AirflowFailException, match="Invalid partition name"):
        operator.execute(task_context(dag))
    statuses, state, error = ended(mlflow_database)
    assert (statuses, state) == ({"FAILED"}, "failed")
    assert "Invalid partition name" in error


def test_the_back_end_is_away_until_the_last_try(operator_of, task_context, mlflow_database, monkeypatch):
    async def lose(*_):
        raise BackendUnavailable("the network is down")

    monkeypatch.setattr("nemo_airflow.operators.back_end.PATIENCE", 0.1)
    dag, operator = operator_of(Config(jobs.number))
    context = task_context(dag)
    for verb, try_number, statuses in (("submit", 1, {"RUNNING"}), ("find", 3, {"RUNNING"}), ("find", 4, {"FAILED"})):
        monkeypatch.setattr(LocalDriver, verb, lose)
        context["ti"].try_number = try_number
        with pytest.raises(BackendUnavailable):
            operator.execute(context)
        assert {run.info.status for run in runs_of(mlflow_database)} == statuses
    _, state, error = ended(mlflow_database)
    assert state == "lost"
    assert "the network is down; no try of its task is left that would follow it" in error


@pytest.mark.parametrize("where", ["worker", "triggerer"])
def test_the_back_end_is_away_for_longer_than_the_last_try_waits(
    operator_of, task_context, mlflow_database, monkeypatch, where
):
    async def lose(*_):
        raise BackendUnavailable("the network is down")

    def try_again():
        return operator.execute(context) if where == "worker" else operator.execute_complete(context, event)

    monkeypatch.setenv("NEMO_AIRFLOW_GIVE_UP_AFTER", "0.2")
    dag, operator = operator_of(Config(jobs.sleep, seconds=5), deferrable=where == "triggerer", defer_after=0)
    context = task_context(dag)
    with monkeypatch.context() as patch:
        patch.setattr(LocalDriver, "look", lose)
        patch.setattr(LocalDriver, "read", lose)
        if where == "triggerer":
            with pytest.raises(TaskDeferred) as deferred:
                operator.execute(context)
            event = fire(deferred)
        for try_number, statuses in ((3, {"RUNNING"}), (4, {"FAILED"})):
            context["ti"].try_number = try_number
            with pytest.raises(NemoAirflowError, match="GIVE_UP_AFTER"):
                try_again()
            assert {run.info.status for run in runs_of(mlflow_database)} == statuses
    _, state, reason = ended(mlflow_database)
    assert state == "lost"
    assert "the network is down; no try of its task is left that would follow it" in reason
