"""A task that wants to be told of its job's metrics, while the job runs."""

import datetime
import json
from pathlib import Path

import alert_jobs
import pytest
from airflow.sdk import DAG, AsyncCallback
from airflow.serialization.serialized_objects import DagSerialization
from dag_database import register
from mlflow import MlflowClient

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoRunOperator
from nemo_airflow.exceptions import ConfigError
from nemo_airflow.notifications import NemoRunNotifier
from nemo_airflow.operators.parse_checks import check_mapped_alerts


@pytest.mark.usefixtures("airflow_database")
@pytest.mark.parametrize(
    "where", [{"defer_after": 0}, {"deferrable": False}], ids=["in the triggerer", "in the worker"]
)
def test_people_are_told_once_while_the_job_runs_and_the_run_has_a_tag(where, tmp_path, mlflow_database):
    gate = str(tmp_path / "told")
    with DAG(f"alerts_{len(where)}{'deferrable' in where}", start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoRunOperator(
            task_id="train",
            config=Config(alert_jobs.diverge, gate=gate),
            job_executor=LocalExecutor(root=str(tmp_path / "jobs"), grace=1),
            env={"PYTHONPATH": str(Path(__file__).parent)},
            tracker=MLflowTracker(tracking_uri=mlflow_database),
            alert_if=["loss > 2 for 3 steps", "loss > 1000"],
            on_alert_callback=[AsyncCallback(alert_jobs.tell, {"gate": gate})],
            **where,
        )
    register(dag)
    [task] = dag.test().get_task_instances()
    assert task.state == "success"
    [told] = map(json.loads, Path(gate).read_text().splitlines())
    assert told == {
        "condition": "loss > 2 for 3 steps", "metric": "loss", "value": 5.0, "step": 5, "task": "train",
        "reason": "loss > 2 for 3 steps: loss is 5 at step 5",
    }  # fmt: skip
    client = MlflowClient(mlflow_database)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert {run.data.tags.get("alert.loss") for run in runs} - {None} == {told["reason"]}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"alert_if": "loss >"}, "'loss >' is not a condition"),
        ({"alert_if": "loss > 1", "on_alert_callback": print}, "give AsyncCallback"),
        ({"on_alert_callback": AsyncCallback(alert_jobs.tell, {})}, "without alert_if"),
        (
            {"alert_if": "loss > 1", "on_alert_callback": AsyncCallback(alert_jobs.tell, {"x": object()})},
            "are not JSON",
        ),
    ],
)
def test_what_nobody_could_be_told_of_is_refused_where_it_is_written(wrong, says):
    with pytest.raises(ConfigError, match=says):
        NemoRunOperator(task_id="t", config=Config(alert_jobs.diverge, gate=""), **wrong)


def test_mapped_task_takes_the_callback_as_data_since_its_dag_has_to_be_the_same_each_time():
    def texts(callback):
        for _ in range(2):
            with DAG("mapped", start_date=datetime.datetime(2026, 1, 1)) as dag:
                given = {"alert_if": "loss > 1", "on_alert_callback": callback()}
                NemoRunOperator.partial(task_id="t", **given).expand(config=[Config(alert_jobs.diverge, gate="")])
            yield json.dumps(DagSerialization.to_dict(dag), sort_keys=True)

    first, second = texts(lambda: AsyncCallback(alert_jobs.tell, {"gate": "g"}).serialize())
    assert first == second
    check_mapped_alerts("loss > 1", AsyncCallback(alert_jobs.tell, {"gate": "g"}).serialize())
    first, second = texts(lambda: AsyncCallback(alert_jobs.tell, {"gate": "g"}))
    assert first != second
    with pytest.raises(ConfigError, match="give AsyncCallback"):
        check_mapped_alerts("loss > 1", AsyncCallback(alert_jobs.tell, {"gate": "g"}))


def test_notifier_of_this_project_is_such_a_callback():
    assert AsyncCallback(NemoRunNotifier, {"conn_id": "chat"}).path == "nemo_airflow.notifications.run.NemoRunNotifier"
