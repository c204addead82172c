"""A task has succeeded when its outputs are kept: by a worker, once, and again by the next try where they were not."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from deferred_tasks import fire
from mlflow import MlflowClient

from nemo_airflow import Config, MLflowTracker, NemoRunOperator
from nemo_airflow.exceptions import JobFailed
from nemo_airflow.job import FailureKind
from nemo_airflow.operators.keeping import Keeping


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))


@pytest.fixture
def task(task_context, defaults, mlflow_database):
    """Returns a function that makes the task, with the context in which it is executed."""

    def made(config, **arguments):
        with DAG("keeping", schedule=None) as dag:
            operator = NemoRunOperator(
                task_id="t",
                config=config,
                **{**defaults, "tracker": MLflowTracker(tracking_uri=mlflow_database), **arguments},
            )
        return operator, task_context(dag)

    return made


def kept(uri):
    """Returns the files of the job's run besides its record, by path; None where there is no run yet."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("keeping").experiment_id])
    (run,) = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    return {file.path for file in client.list_artifacts(run.info.run_id)} - {"nemo_airflow"}


def test_worker_that_takes_the_event_keeps_what_the_triggerer_has_left_alone(task, mlflow_database):
    operator, context = task(Config(jobs.keep, learning_rate=0.5), defer_after=0)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    event = fire(deferred)
    assert kept(mlflow_database) == set()
    assert event["outcome"]["status"]["state"] == "succeeded"
    operator.execute_complete(context, event)
    assert kept(mlflow_database) == {"model.txt"}
    assert context["task_state_store"]["nemo_job"]["kept"] == {}


def test_outputs_that_cannot_be_kept_fail_the_task_and_the_next_try_keeps_them_without_a_job(
    task, mlflow_database, tmp_path, root
):
    store = tmp_path / "artifacts"
    store.write_text("a file where a folder should be")
    MlflowClient(mlflow_database).create_experiment("keeping", f"file://{store}/below")
    operator, context = task(Config(jobs.keep, learning_rate=0.5), defer_after=600)
    with pytest.raises(JobFailed) as failed:
        operator.execute(context)
    assert failed.value.kind == FailureKind.OUTPUTS
    message = str(failed.value)
    assert len(message.splitlines()) == 1
    assert "has succeeded, and its outputs are not kept: cannot keep artifacts in" in message
    assert f"nemo-airflow collect EXECUTOR {context['task_state_store']['nemo_job']['key']}" in message
    store.unlink()
    operator, context = task(Config(jobs.keep, learning_rate=0.5), defer_after=600)
    operator.execute(context)
    assert kept(mlflow_database) == {"model.txt"}
    assert len(list(root.glob("keeping*"))) == 1


def test_outputs_that_are_lost_fail_the_task_and_the_next_try_runs_a_new_job(task, mlflow_database, root):
    operator, context = task(Config(jobs.keep, learning_rate=0.5), defer_after=0)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    event = fire(deferred)
    (folder,) = root.glob("keeping*/outputs")
    shutil.rmtree(folder)
    with pytest.raises(JobFailed, match="has succeeded, and its outputs are lost") as failed:
        operator.execute_complete(context, event)
    assert failed.value.kind == FailureKind.OUTPUTS
    operator, context = task(Config(jobs.keep, learning_rate=0.5), defer_after=600)
    operator.execute(context)
    assert len(list(root.glob("keeping*"))) == 2


def test_outputs_of_which_one_is_refused_stay_on_the_back_end_at_every_try(
    task, mlflow_database, tmp_path, monkeypatch
):
    artifacts = tmp_path / "artifacts"
    MlflowClient(mlflow_database).create_experiment("keeping", artifacts.as_uri())
    released = []
    monkeypatch.setattr(Keeping, "_release", lambda keeping: released.append(keeping))
    operator, context = task(Config(jobs.keep_two), defer_after=0)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    event = fire(deferred)
    (run,) = [path for path in artifacts.iterdir() if (path / "artifacts/nemo_airflow/plan.json").exists()]
    (run / "artifacts/blocked").write_text("a file where a folder should be")
    for _ in range(2):  # the second as of a try whose worker died before the task had ended
        operator.execute_complete(context, event)
    assert "model.txt" in kept(mlflow_database)
    assert context["task_state_store"]["nemo_job"]["kept"] is None
    assert released == []


def test_outputs_of_a_failed_job_that_cannot_be_kept_leave_its_failure_as_it_is(
    task, mlflow_database, tmp_path, caplog
):
    store = tmp_path / "artifacts"
    store.write_text("a file where a folder should be")
    MlflowClient(mlflow_database).create_experiment("keeping", f"file://{store}/below")
    operator, context = task(Config(jobs.keep_and_fail), defer_after=600)
    with pytest.raises(JobFailed, match="ValueError: after the checkpoint") as failed:
        operator.execute(context)
    assert failed.value.kind == FailureKind.USER_ERROR


def test_two_processes_that_keep_the_same_outputs_do_it_one_after_the_other(task, mlflow_database, monkeypatch):
    operator, context = task(Config(jobs.keep, learning_rate=0.5), defer_after=0)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    event = fire(deferred)
    put, at_once, most, times = Keeping._put, [], [], []
    lock = threading.Lock()

    def slowly(keeping, passing):
        with lock:
            at_once.append(1)
            most.append(len(at_once))
        assert (passing.outputs / "model.txt").exists()
        time.sleep(1)
        times.append(passing.folder)
        assert put(keeping, passing)
        with lock:
            at_once.pop()
        return True

    monkeypatch.setattr(Keeping, "_put", slowly)
    with ThreadPoolExecutor(2) as pool:
        for ended in [pool.submit(operator.execute_complete, context, event) for _ in range(2)]:
            ended.result()
    assert max(most) == 1
    assert len(times) == 1  # the second found that they are kept
    assert kept(mlflow_database) == {"model.txt"}
    assert not times[0].exists()
