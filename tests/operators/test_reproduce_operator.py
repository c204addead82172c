"""A task runs what an earlier run was again, and reports; run by ``dag.test()`` with real jobs on this machine."""

import operator_jobs as jobs
import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from mlflow import MlflowClient
from operator_dags import new_dag, run
from sqlalchemy import select

from nemo_airflow import Config, LocalExecutor, MLflowTracker, NemoReproduceOperator, NemoRunOperator
from nemo_airflow.exceptions import ConfigError, SettingsError

pytestmark = pytest.mark.usefixtures("airflow_database")

RUN_ID = "{{ ti.xcom_pull(task_ids='train', key='nemo_job')['run']['run_id'] }}"


def reports_of(dag):
    with create_session() as session:
        found = select(XComModel).where(XComModel.dag_id == dag.dag_id, XComModel.key == "reproduction")
        rows = session.scalars(found).all()
        return {row.task_id: XComModel.deserialize_value(row) for row in rows}


def test_a_task_reproduces_a_run_reports_it_and_is_judged_by_what_it_requires(
    defaults, root, mlflow_database, capfd, caplog
):
    tracker = MLflowTracker(tracking_uri=mlflow_database)
    with new_dag() as dag:
        first = NemoRunOperator(
            task_id="train", config=Config(jobs.keep, learning_rate=0.5), **{**defaults, "tracker": tracker}
        )
        required = {"run": RUN_ID, "tracker": tracker, "require": ("end", "metrics", "outputs")}
        first >> [
            NemoReproduceOperator(task_id="again", defer_after=0, **required),
            NemoReproduceOperator(task_id="varied", on="kind: local", overrides=["learning_rate=0.25"], **required),
            NemoReproduceOperator(task_id="wrong", run="f" * 32, tracker=tracker),
        ]
    states, _ = run(dag)
    assert states == {
        ("train", -1): "success", ("again", -1): "success", ("varied", -1): "failed", ("wrong", -1): "failed",
    }  # fmt: skip
    reports = reports_of(dag)
    assert reports["again"]["results_same"] is True
    assert reports["again"]["parts"]["package"]["verdict"] == "not recorded"
    assert reports["varied"]["overrides"] == ["learning_rate=0.25"]
    client = MlflowClient(tracker.tracking_uri)
    new = client.get_run(reports["again"]["other_id"])
    assert new.data.tags["nemo_airflow.reproduces"] == reports["again"]["run_id"]
    assert new.data.tags["airflow.task_id"] == "again"
    original = client.get_run(reports["again"]["run_id"])
    assert original.data.tags[f"nemo_airflow.reproduced_by.{new.info.run_id}"] == reports["again"]["other_key"]
    printed = "".join(capfd.readouterr()) + caplog.text
    assert "metrics differs" in printed
    assert f"no job or run '{'f' * 32}' is in the MLflow store" in printed


def test_wrong_arguments_are_refused_where_they_are_written():
    with pytest.raises(ConfigError, match=r"require='metric' is no part of a report; one is plan, package"):
        NemoReproduceOperator(task_id="t", run="r", require=["metric"])
    with pytest.raises(ConfigError, match="tracker=None"):
        NemoReproduceOperator(task_id="t", run="r", tracker=None)
    with pytest.raises(SettingsError, match="tolerance -1"):
        NemoReproduceOperator(task_id="t", run="r", tolerance=-1)
    with pytest.raises(ConfigError, match="not an executor"):
        NemoReproduceOperator(task_id="t", run="r", on=3)
    assert NemoReproduceOperator(task_id="t", run="r", on=LocalExecutor(grace=2)).on.value.grace == 2
