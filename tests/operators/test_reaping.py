"""Jobs that no task waits for are found and ended; others are let be."""

import datetime
import itertools
import time

import mlflow
import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, task
from airflow.utils.session import create_session
from dag_database import register

from nemo_airflow import LocalExecutor, MLflowTracker, blocking, cli
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.installation import run_labels
from nemo_airflow.job import Job, JobState, JobStatus
from nemo_airflow.operators import NemoReapOperator
from nemo_airflow.testing.services import service_of

pytestmark = pytest.mark.usefixtures("airflow_database")

names = (f"reaping_test_{number}" for number in itertools.count())


@pytest.fixture
def executor(tmp_path):
    return LocalExecutor(root=str(tmp_path / "jobs"), grace=1)


@pytest.fixture
def run():
    """A DAG run whose tasks have ended."""
    with DAG(next(names), schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:

        @task
        def train(number):
            return number

        train.override(task_id="alone")(0)
        train.expand(number=[1, 2])
    register(dag)
    return dag.test()


@pytest.fixture
def submit(executor):
    handles = []
    driver = executor.connect()

    def submit_job(run, task_id="alone", map_index=-1, **changes):
        labels = {
            "dag_id": run.dag_id, "run_id": run.run_id, "task_id": task_id, "map_index": str(map_index),
            "try_number": "1", **run_labels(run.run_after), **changes,
        }  # fmt: skip
        plan = {"version": 1, "root": {"_target_": "time:sleep", "_args_": [600]}}
        job = Job(key=f"reap-{len(handles)}", name="sleep", plan=plan, allow=("time:sleep",), labels=labels)
        handles.append(blocking.run(driver.submit(executor.render(job))))
        return handles[-1]

    yield submit_job
    blocking.run(driver.cancel(handles))


def state(executor, handle):
    return blocking.run(service_of(executor.connect()).status([handle]))[handle.key].state


def wait_for_end(executor, handle):
    deadline = time.monotonic() + 300
    while not state(executor, handle).is_final:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return state(executor, handle)


def set_state(run, task_id, value):
    with create_session() as session:
        found = session.query(TaskInstance).filter_by(dag_id=run.dag_id, run_id=run.run_id, task_id=task_id).one()
        found.state = value


def reap(executor, *options):
    text = f"kind: local\nroot: {executor.root}"
    return cli.main(["reap", text, "--min-age", "0", *options])


def test_command_line_ends_the_jobs_of_ended_and_cleared_tasks_only(executor, run, submit, capsys):
    ended, mapped = submit(run), submit(run, "train", 1)
    others = [
        submit(run, dag_id="of_another_airflow"),
        submit(run, installation="another"),
        submit(run, task_id="no_such_task"),
    ]
    assert reap(executor, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert f"{ended.key}: {run.dag_id}.{run.run_id}.alone is success" in printed
    assert printed.endswith("2 orphans found\n")
    assert state(executor, ended) is JobState.RUNNING
    assert reap(executor) == 0
    assert "2 orphans cancelled" in capsys.readouterr().out
    assert [wait_for_end(executor, handle) for handle in (ended, mapped)] == [JobState.CANCELLED] * 2
    assert [state(executor, handle) for handle in others] == [JobState.RUNNING] * 3


def test_the_run_of_an_orphan_ends_and_one_that_has_ended_stays(
    executor, run, submit, mlflow_database, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
    tracker, plan, opened = MLflowTracker(), {"version": 1, "root": {"_target_": "time:sleep"}}, []
    for handle in (submit(run), submit(run, "train", 1)):
        job = Job(key=handle.key, name="sleep", plan=plan)
        opened.append(tracker.open(job, experiment="orphans", parent="a DAG run", shares_filesystem=False))
    tracker.ended(opened[1], JobStatus(JobState.FAILED, reason="it has failed"))
    assert reap(executor) == 0
    assert "still under way" not in capsys.readouterr().err
    left, ended = (mlflow.get_run(ref.run_id) for ref in opened)
    assert (left.info.status, left.data.tags["nemo_airflow.state"]) == ("KILLED", "cancelled")
    assert left.data.tags["nemo_airflow.error"] == "it was ended as an orphan: its task is success"
    assert (ended.info.status, ended.data.tags["nemo_airflow.error"]) == ("FAILED", "it has failed")
    assert mlflow.get_run(left.data.tags["mlflow.parentRunId"]).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("name", "value"),
    [("MLFLOW_TRACKING_URI", "http://127.0.0.1:9"), ("NEMO_AIRFLOW_MLFLOW_CONNECTION", "nowhere")],
    ids=["away", "not defined"],
)
def test_an_mlflow_that_does_not_answer_keeps_no_orphan(executor, run, submit, monkeypatch, capsys, name, value):
    monkeypatch.setenv(name, value)
    handles = [submit(run), submit(run, "train", 1)]
    assert reap(executor) == 0
    said = capsys.readouterr().err
    assert "still under way in MLflow, end them there by hand" in said
    assert all(handle.key in said for handle in handles)
    assert [wait_for_end(executor, handle) for handle in handles] == [JobState.CANCELLED] * 2


@pytest.mark.parametrize("value", ["running", "deferred", "queued", "up_for_retry"])
def test_job_that_a_task_waits_for_is_let_be(executor, run, submit, capsys, value):
    handle = submit(run)
    set_state(run, "alone", value)
    reap(executor)
    assert "0 orphans" in capsys.readouterr().out
    assert state(executor, handle) is JobState.RUNNING


def test_job_of_a_cleared_task_is_ended(executor, run, submit, capsys):
    handle = submit(run)
    set_state(run, "alone", None)
    reap(executor)
    assert "is cleared" in capsys.readouterr().out
    assert wait_for_end(executor, handle) is JobState.CANCELLED


def test_job_of_a_run_that_was_cleared_is_found_and_one_of_a_deleted_run_is_not(executor, run, submit, capsys):
    of_run, of_deleted = submit(run), submit(run, run_after="1999-01-01 00:00:00+00:00")
    with create_session() as session:
        # What Airflow does with a finished run that is cleared; it starts anew later.
        session.query(DagRun).filter_by(dag_id=run.dag_id, run_id=run.run_id).one().start_date = None
    reap(executor)
    assert "1 orphan cancelled" in capsys.readouterr().out
    assert wait_for_end(executor, of_run) is JobState.CANCELLED
    assert state(executor, of_deleted) is JobState.RUNNING


def test_young_jobs_are_let_be(executor, run, submit, capsys):
    submit(run)
    assert cli.main(["reap", f"kind: local\nroot: {executor.root}"]) == 0
    assert "0 orphans" in capsys.readouterr().out


def test_operator_ends_them_from_a_worker(executor, run, submit):
    ended, mapped = submit(run), submit(run, "train", 0)
    others = [submit(run, run_id="another"), submit(run, installation="another")]
    with DAG(next(names), schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoReapOperator(task_id="reap", executors=[executor], min_age=0)
    register(dag)
    done = dag.test()
    assert {ti.state for ti in done.get_task_instances()} == {"success"}
    assert [wait_for_end(executor, handle) for handle in (ended, mapped)] == [JobState.CANCELLED] * 2
    assert [state(executor, handle) for handle in others] == [JobState.RUNNING] * 2


def test_operator_refuses_what_is_no_executor():
    with pytest.raises(ConfigError, match="neither an executor"):
        NemoReapOperator(task_id="reap", executors=["slurm"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere.yaml", "cannot read an executor from 'nowhere.yaml'"),
        ("root: somewhere", "is not an executor"),
        ("kind: condor", "no executor of kind 'condor'"),
        ("kind: local\nroote: x", "no field roote"),
    ],
)
def test_executor_that_cannot_be_read_is_refused_in_one_line(text, said, capsys):
    assert cli.main(["reap", text]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.splitlines()) == 1
