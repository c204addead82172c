"""The phases of a job in the XCom of its task and in its run, by ``dag.test()`` with real jobs on this machine."""

import json
import time

import operator_jobs as jobs
import pytest
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from dag_database import register
from mlflow import MlflowClient
from operator_dags import new_dag

from nemo_airflow import Config, MLflowTracker, NemoRunOperator
from nemo_airflow.triggers.live import LIVE_KEY

pytestmark = pytest.mark.usefixtures("airflow_database")

followed_where = pytest.mark.parametrize(
    "where",
    [{"defer_after": 0}, {}, {"deferrable": False}],
    ids=["in the triggerer", "in the worker at first", "in the worker"],
)


def xcom_of(dag_run, key=LIVE_KEY):
    with create_session() as session:
        row = session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_run.dag_id, key=key)).one()
        return XComModel.deserialize_value(row)


@followed_where
def test_xcom_and_run_have_the_phases_of_a_job_from_its_submission_to_its_kept_outputs(
    defaults, mlflow_database, where
):
    tracked = {**defaults, **where, "tracker": MLflowTracker(tracking_uri=mlflow_database)}
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.keep, learning_rate=0.5), **tracked)
    register(dag)
    begun = time.time()
    dag_run = dag.test()
    live = xcom_of(dag_run)
    phases = live["phases"]
    assert [phase["state"] for phase in phases] == ["pending", "running", "ended", "keeping"]
    assert phases[2]["why"] == "succeeded"
    times = [begun, *(phase["at"] for phase in phases), phases[3]["until"], live["at"]]
    assert times == sorted(times)
    assert [phase.get("until") for phase in phases[:3]] == [phases[1]["at"], phases[2]["at"], None]
    assert live["key"] == xcom_of(dag_run, "nemo_job")["key"]
    assert (live["state"], live["metrics"], live["host"] != "") == ("ended", {"loss": 0.5}, True)
    assert phases[1]["at"] <= live["alive_at"] < live["at"]
    run = MlflowClient(mlflow_database).get_run(xcom_of(dag_run, "nemo_job")["run"]["run_id"])
    assert json.loads(run.data.tags["nemo_airflow.phases"]) == {"phases": phases}


@followed_where
def test_end_of_a_failed_job_has_its_kind_and_reason(defaults, where):
    with new_dag() as dag:
        NemoRunOperator(task_id="t", config=Config(jobs.fail, message="no luck"), **{**defaults, **where})
    register(dag)
    live = xcom_of(dag.test())
    assert [phase["state"] for phase in live["phases"]] == ["pending", "running", "ended"]
    assert live["why"] == "failed (user_error): RuntimeError: no luck"
