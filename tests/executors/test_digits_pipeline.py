"""The example pipeline, unchanged, on the back-ends that one variable names: its model goes from job to job."""

import importlib
import json
import sys
from pathlib import Path

import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from dag_database import register
from lab.backends import HOME

DAGS = Path(__file__).parents[2] / "dags"

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def pipeline(monkeypatch, mlflow_database):
    """Runs the pipeline where an executor of that JSON form says; returns the states of its tasks, and its results."""
    sys.path.insert(0, str(DAGS))  # not undone: the DAG's code is imported in threads that outlive a test
    dag = importlib.import_module("retrain_digits").dag

    def run(**executor):
        monkeypatch.setenv("AIRFLOW_VAR_DIGITS_EXECUTOR", json.dumps(executor))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_database)
        register(dag)
        dag_run = dag.test(run_conf={"until": "2026-11-30", "train.optimizer.epochs": 8, "train.model.hidden": [32]})
        states = {ti.task_id: ti.state for ti in dag_run.get_task_instances()}
        with create_session() as session:
            rows = session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag.dag_id)).all()
            return states, {(row.task_id, row.key): XComModel.deserialize_value(row) for row in rows}

    return run


def check(states, results, kind):
    assert {task for task, state in states.items() if state == "skipped"} == {"approve"}, states
    assert states["promote"] == "success", states
    assert {results[(task, "nemo_job")]["handle"]["kind"] for task in ("check", "train", "compare")} == {kind}
    assert results[("compare", "return_value")]["challenger"]["accuracy"] > 0.85
    assert results[("promote", "return_value")]["version"] == "1"


def test_the_pipeline_runs_in_containers(pipeline, lab_docker, lab_image, lab_torch):
    where = {"docker_url": lab_docker, "container_image": lab_image, "volumes": [f"{HOME}/torch:{HOME}/torch:ro"]}
    check(*pipeline(kind="docker", python=lab_torch, **where), "docker")


def test_the_pipeline_runs_on_slurm(pipeline, ssh_conn_id, lab_slurm, lab_torch):
    check(*pipeline(kind="slurm", ssh_conn_id=ssh_conn_id, root="~/digits", python=lab_torch, time="10"), "slurm")


def test_the_pipeline_runs_on_kubernetes(pipeline, lab_kubeconfig, lab_image, lab_torch):
    volume = {"name": "torch", "hostPath": {"path": f"{HOME}/torch"}}
    where = {
        "config_file": lab_kubeconfig,
        "container_image": lab_image,
        "volumes": [volume],
        "volume_mounts": [{"name": "torch", "mountPath": f"{HOME}/torch", "readOnly": True}],
        "linger": 60.0,
    }
    check(*pipeline(kind="kubernetes", python=lab_torch, **where), "kubernetes")
