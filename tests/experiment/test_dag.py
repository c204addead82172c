"""An experiment is a DAG of Airflow with the same jobs."""

import importlib
import sys
from pathlib import Path

import pytest
from airflow.sdk import DAG
from airflow.serialization.serialized_objects import DagSerialization
from dag_database import register

from nemo_airflow import Config, Experiment, LocalExecutor, NemoRunOperator

FILE = """
from datetime import UTC, datetime

from nemo_airflow import Config, Experiment, LocalExecutor
from {jobs} import note

experiment = Experiment("nightly", LocalExecutor(env={{"NOTES": {notes!r}}}), tracker=None)
first = experiment.add(Config(note, name="first"), name="first", outputs=["*.csv"])
pair = experiment.add([Config(note, name="left"), Config(note, name="right")], name="x.y", dependencies=[first])
experiment.add(Config(note, name="last"), name="last", dependencies=[first, pair])
dag = experiment.to_dag(schedule="@daily", start_date=datetime(2026, 1, 1, tzinfo=UTC))
"""


@pytest.fixture
def dag(jobs, notes, monkeypatch):
    """That of a file in the repository of the jobs, which Airflow reads in another folder."""
    name = f"nightly_{jobs.__name__}"
    Path(f"{name}.py").write_text(FILE.format(jobs=jobs.__name__, notes=str(notes)))
    monkeypatch.chdir("/")
    yield importlib.import_module(name).dag
    sys.modules.pop(name)


def test_a_dag_has_a_task_for_each_job_a_group_for_each_group_and_the_same_order(dag):
    assert dag.dag_id == "nightly"
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "first": set(), "x.y-0": {"first"}, "x.y-1": {"first"}, "last": {"first", "x.y-0", "x.y-1"},
    }  # fmt: skip
    assert all(isinstance(task, NemoRunOperator) and task.experiment == "nightly" for task in dag.tasks)
    assert dag.get_task("first").outputs == ("*.csv",)
    assert set(dag.task_group.children) == {"first", "x-y", "last"}
    assert Path(dag.fileloc).name.startswith("nightly_")
    assert all(task.packager.value.kind == "git" for task in dag.tasks)
    assert DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_ids == dag.task_ids


def test_a_dag_of_an_experiment_runs_its_jobs_in_their_order(dag, notes, airflow_database):
    register(dag)
    assert {task.state for task in dag.test().get_task_instances()} == {"success"}
    first, *pair, last = notes.read_text().split()
    assert (first, {*pair}, last) == ("first", {"left", "right"}, "last")


def test_an_experiment_that_was_run_is_a_dag_of_what_was_recorded(jobs, notes):
    experiment = Experiment("nightly", LocalExecutor(env={"NOTES": str(notes)}), tracker=None)
    experiment.add(Config(jobs.note, name="one"), name="one")
    experiment.run()
    dag = Experiment.from_id(experiment.id).to_dag("again")
    assert isinstance(dag, DAG)
    [task] = dag.tasks
    assert task.config.value.name == "one"
    assert task.packager.value.recorded.digest
