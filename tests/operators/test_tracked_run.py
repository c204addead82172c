"""The operator with a tracker, by ``dag.test()``: what is remembered of a job, and a tracker that is down."""

import datetime
import hashlib
import itertools
import json
from pathlib import Path

import operator_jobs as jobs
import pytest
from airflow.sdk import DAG
from dag_database import register
from mlflow import MlflowClient

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator, Recipe
from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.config import plan as plans
from nemo_airflow.store import open_store
from nemo_airflow.store.trees import get_tree

pytestmark = pytest.mark.usefixtures("airflow_database")

HERE = str(Path(__file__).parent)
names = (f"tracked_test_{number}" for number in itertools.count())


def run(tmp_path, tracker, config):
    with DAG(next(names), schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoRunOperator(
            task_id="t",
            config=config,
            job_executor=LocalExecutor(root=str(tmp_path / "jobs"), grace=1),
            tracker=tracker,
            env={"PYTHONPATH": HERE},
        )
    register(dag)
    dag_run = dag.test()
    return dag, {ti.task_id: ti.state for ti in dag_run.get_task_instances()}


def test_a_run_is_remembered_whole(tmp_path, mlflow_database):
    config = Config(jobs.keep, learning_rate=0.5)
    dag, states = run(tmp_path, MLflowTracker(tracking_uri=mlflow_database), config)
    assert states == {"t": "success"}
    client = MlflowClient(mlflow_database)
    experiment = client.get_experiment_by_name(dag.dag_id)
    runs = client.search_runs([experiment.experiment_id])
    child = next(run for run in runs if "mlflow.parentRunId" in run.data.tags)
    parent = next(run for run in runs if run.info.run_id == child.data.tags["mlflow.parentRunId"])
    assert {run.info.status for run in (child, parent)} == {"FINISHED"}
    assert child.data.params["learning_rate"] == "0.5"
    points = client.get_metric_history(child.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(0, 1.0), (1, 0.5)]
    record = {file.path for file in client.list_artifacts(child.info.run_id, "nemo_airflow")}
    assert record >= {f"nemo_airflow/{name}" for name in ("plan.json", "environment.json", "log.txt", "job_script.txt")}
    assert Path(client.download_artifacts(child.info.run_id, "model.txt", str(tmp_path))).read_text() == "weights"
    plan = Path(client.download_artifacts(child.info.run_id, "nemo_airflow/plan.json", str(tmp_path)))
    assert json.loads(plan.read_text())["root"]["learning_rate"] == 0.5


def test_the_data_and_the_model_that_a_job_names_are_in_mlflow(tmp_path, mlflow_database):
    (tmp_path / "rows.csv").write_text("1,2")
    config = Config(jobs.log_model_of, data=str(tmp_path / "rows.csv"))
    dag, states = run(tmp_path, MLflowTracker(tracking_uri=mlflow_database), config)
    assert states == {"t": "success"}
    client = MlflowClient(mlflow_database)
    runs = client.search_runs([client.get_experiment_by_name(dag.dag_id).experiment_id])
    child = next(run for run in runs if "mlflow.parentRunId" in run.data.tags)
    assert child.data.tags["mlflow.note.content"].startswith("Names the data that it reads and the model")
    [given] = child.inputs.dataset_inputs
    assert json.loads(given.dataset.source) == {"uri": str(tmp_path / "rows.csv")}
    assert given.dataset.digest == hashlib.sha256(b"1,2").hexdigest()[:36]
    [made] = child.outputs.model_outputs
    model = client.get_logged_model(made.model_id)
    assert (model.name, str(model.status)) == ("net", "READY")
    files = {file.path: file.file_size for file in client.list_logged_model_artifacts(made.model_id)}
    assert files["net.bin"] == len("weights")
    assert {"MLmodel", "input_example.json"} <= files.keys()
    assert "models" not in [file.path for file in client.list_artifacts(child.info.run_id)]


def test_what_a_recipe_resolved_to_is_the_runs_config_and_outputs_are_in_the_shared_store(
    tmp_path, monkeypatch, mlflow_database
):
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    recipe = Recipe("recipe_jobs:kept", ["model.name=big"], source=HERE, hidden=4)
    dag, states = run(tmp_path, MLflowTracker(tracking_uri=mlflow_database), recipe)
    assert states == {"t": "success"}
    client = MlflowClient(mlflow_database)
    runs = client.search_runs([client.get_experiment_by_name(dag.dag_id).experiment_id])
    child = next(run for run in runs if "mlflow.parentRunId" in run.data.tags)
    params, tags = child.data.params, child.data.tags
    assert (params["_target_"], params["model.name"], params["model.hidden"]) == ("recipe_jobs:keep", "big", "4")
    assert "hidden" not in params  # the factory's own, which is not the config
    assert "nemo_airflow.param_conflicts" not in tags
    assert tags["nemo_airflow.plan_digest"] == plans.digest(plans.to_plan(recipe))
    get_tree(open_store(str(tmp_path / "shared")), tags["nemo_airflow.outputs_digest"], tmp_path / "again")
    assert (tmp_path / "again" / "model.txt").read_text() == "big"


def test_a_tracker_that_is_down_does_not_lose_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_airflow.tracking.run._OPEN_AGAIN", 0.5)
    marker = tmp_path / "ran"
    config = Config(jobs.fail_until, marker=str(marker), runs=1)
    with hold_port() as nobody:
        tracker = MLflowTracker(tracking_uri=f"http://127.0.0.1:{port_of(nobody)}")
        _, states = run(tmp_path, tracker, config)
    assert states == {"t": "success"}
    assert marker.read_text() == "x"
