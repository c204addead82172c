"""The example's DAGs, unchanged, with real jobs on this machine: what becomes champion, what does not, and back."""

import json

import mlflow
import numpy as np
import operate_digits
import pytest
import retrain_digits
from airflow.models.asset import AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from dag_database import register
from digits.data import held_out_set
from digits_common import describe_cause
from webhook import open_webhook

from nemo_airflow.promotion import PromotedModel
from nemo_airflow.tracking.mlflow.usage import gpu_hours

pytestmark = pytest.mark.usefixtures("airflow_database")

JUNE = {"until": "2026-06-29"}


@pytest.fixture(scope="module")
def model(new_mlflow, tmp_path_factory):
    """The registered model, in an MLflow of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_mlflow(tmp_path_factory.mktemp("mlflow") / "mlflow.db"))
        yield PromotedModel("digits")


@pytest.fixture(scope="module")
def told():
    """What people are told of the DAGs' runs, in one line each."""
    with open_webhook() as (url, taken), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_CHAT", json.dumps({"conn_type": "apprise", "password": f"{url}/services/T/B/X"}))
        patch.setenv("AIRFLOW_VAR_DIGITS_CHAT", "chat")
        yield taken


@pytest.fixture
def said(told):
    """Returns what people have been told since it was asked for last: titles, and what is below them."""

    def said():
        texts = [sent["text"] for sent in told]
        told.clear()
        return texts

    return said


@pytest.fixture
def run(model, told):
    """Runs one of the DAGs; returns the states of its tasks, and what they have handed on by task and key."""

    def run(module, dag_id, **conf):
        dag = next(each for each in vars(module).values() if getattr(each, "dag_id", "") == dag_id)
        register(dag)
        dag_run = dag.test(run_conf=conf)
        states = {ti.task_id: str(ti.state) for ti in dag_run.get_task_instances()}
        with create_session() as session:
            rows = session.scalars(XComModel.get_many(run_id=dag_run.run_id, dag_ids=dag_id)).all()
            return states, {(row.task_id, row.key): XComModel.deserialize_value(row) for row in rows}

    return run


@pytest.fixture(scope="module")
def announced(airflow_database):
    """Returns the versions of which the champion's asset has had events since the first test of this module."""

    def announced():
        with create_session() as session:
            found = session.query(AssetEvent).join(AssetModel, AssetModel.id == AssetEvent.asset_id)
            events = found.filter(AssetModel.uri == "mlflow://models/digits@champion").order_by(AssetEvent.id).all()
            return [event.extra["version"] for event in events][before:]

    before = 0
    before = len(announced())  # other tests run the same DAGs
    return announced


def test_a_first_model_becomes_champion_and_is_loaded_by_mlflow_alone(run, model, said, announced):
    states, results = run(retrain_digits, "retrain_digits", **JUNE)
    assert {task for task, state in states.items() if state != "success"} == {"approve"}, states
    assert results[("promote", "return_value")]["version"] == "1"
    assert announced() == ["1"]
    [text] = said()
    assert text.startswith("retrain_digits.promote has promoted a model\n")
    assert "version 1: there was no champion" in text
    tags = model.current().tags
    assert (tags["until"], tags["decision"], tags["cause"]) == ("2026-06-29", "promote", "dag_test")
    assert [f"version 1: {change.why}" for change in model.changes()] == [results[("promote", "notice")]]
    loaded = mlflow.pyfunc.load_model("models:/digits@champion")
    images, labels = held_out_set("2026-06-29")
    accuracy = float((loaded.predict(images) == labels).mean())
    assert accuracy == results[("compare", "return_value")]["challenger"]["accuracy"]
    assert loaded.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {"dtype": "float64", "shape": (-1, 64)}
    assert np.array_equal(loaded.predict(images[:1]), loaded.predict(images)[:1])
    assert gpu_hours("retrain_digits", days=1) == 0


def test_a_model_of_the_past_is_registered_with_the_reason_and_not_announced(run, model, said, announced):
    states, results = run(retrain_digits, "retrain_digits", **{**JUNE, "until": "2026-03-02"})
    assert {task for task, state in states.items() if state == "skipped"} == {"approve", "promote"}, states
    why = "the champion has learned from newer data: until 2026-06-29, and not 2026-03-02"
    assert results[("promote", "notice")] == f"version 2 is not promoted: {why}"
    [text] = said()
    assert text.startswith("retrain_digits.promote has not promoted a model\n")
    assert f"version 2 is not promoted: {why}" in text
    assert results[("check", "return_value")]["champion"] == "1"
    assert results[("compare", "return_value")]["champion"]["accuracy"] > 0.5
    assert model.get("2").tags["reason"] == why
    assert (model.current().version, announced()) == ("1", ["1"])


def test_a_bad_model_set_by_hand_is_noticed_scored_challenged_and_rolled_back(run, model, said, announced):
    model.set_alias("challenger", "1")
    model.set_alias("champion", "2")
    register(retrain_digits.dag)
    states, _ = run(operate_digits, "watch_digits")
    assert set(states.values()) == {"success"}, states
    assert announced() == ["1", "2"]
    with create_session() as session:
        [asked] = session.query(DagRun).filter(DagRun.dag_id == "retrain_digits", DagRun.run_id.like("moved__%")).all()
        assert asked.run_id.startswith("moved__version_2__")
        assert describe_cause(asked.conf, asked, None) == "version 2 was made the champion by hand"
    states, _ = run(operate_digits, "watch_digits")
    assert set(states.values()) == {"skipped"}, "it is announced once"

    _, results = run(operate_digits, "score_digits", until="2026-06-29")
    assert 0.5 < results[("score", "return_value")]["agreement"] < 1

    _, results = run(operate_digits, "rollback_digits", why="it is of March")
    assert results[("rollback", "return_value")] == {
        "version": "1",
        "champion_before": "2",
        "reason": "it is of March",
    }
    [text] = said()
    assert text.startswith("rollback_digits.rollback has rolled a model back\n")
    assert "version 2 is replaced by version 1: it is of March" in text
    assert (model.current().version, announced()) == ("1", ["1", "2", "1"])
    assert model.get("2").tags["nemo_airflow.rolled_back"] == "it is of March"


def test_drift_since_the_champion_starts_one_retraining(run, model):
    register(retrain_digits.dag)
    for attempt, state in enumerate(("success", "skipped")):
        states, results = run(operate_digits, "drift_digits", until="2026-12-14")
        assert results[("measure", "return_value")]["drifted"], attempt
        assert states["retrain"] == state, states
    with create_session() as session:
        [asked] = session.query(DagRun).filter(DagRun.run_id == "drift__version_1").all()
        assert asked.conf["until"] == "2026-12-14"
        assert asked.conf["cause"].startswith("drift of ")
