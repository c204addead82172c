"""Which registered models a DAG run is about: champion and challenger, what both measure, and what was decided."""

import types
import uuid

import pytest
from mlflow import MlflowClient

from nemo_airflow.plugin.api.dag_run_models import read_models
from nemo_airflow.promotion import PromotedModel
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.jobs import JobRuns

pytestmark = pytest.mark.stores("sqlite", "server")


class Session:
    """Airflow's database, in which no job has returned anything."""

    def execute(self, statement):
        return []


@pytest.fixture
def client(uri):
    return MlflowClient(uri)


@pytest.fixture
def name():
    return f"digits-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def train(client, name, tmp_path):
    """Makes the run of a job that has trained a model, and registers that; returns the run's id."""
    experiment = client.create_experiment(name, artifact_location=f"file://{tmp_path}/artifacts")

    def train(dag_run_id, accuracy, dag_id="retrain", **tags):
        about = {fields.KEY: "k", fields.PLAN_DIGEST: "d", "airflow.dag_id": dag_id, "airflow.run_id": dag_run_id}
        run_id = client.create_run(experiment, tags={**about, "airflow.task_id": "train"}).info.run_id
        client.log_metric(run_id, "accuracy", accuracy)
        client.log_text(run_id, "flavors: {}", "models/net/MLmodel")
        PromotedModel(name, client=client).register(run_id, "net", tags)
        return run_id

    return train


@pytest.fixture
def read(uri):
    def read(dag_run_id, may_read=lambda dag_id: True):
        store = JobRuns(uri)
        own = {run.run_id: run for run in store.of_dag_run("retrain", dag_run_id)}
        dag_run = types.SimpleNamespace(dag_id="retrain", run_id=dag_run_id)
        found = types.SimpleNamespace(dag_run=dag_run, records={})
        return read_models(Session(), types.SimpleNamespace(may_read=may_read), found, store, own)

    return read


def test_a_challenger_is_shown_beside_the_champion_until_it_is_promoted_and_after(client, name, train, read):
    model = PromotedModel(name, client=client)
    first, second = f"first-{name}", f"second-{name}"
    train(first, 0.8)
    model.promote("1", why="the first", operation=f"retrain/{first}/1")
    train(second, 0.9, decision="ask", reason="it may be chance")

    [shown] = read(second)
    assert [(each.version, each.role, each.aliases) for each in shown.versions] == [
        ("1", "champion", ["champion"]), ("2", "challenger", []),
    ]  # fmt: skip
    assert (shown.decision, shown.reason) == ("ask", "it may be chance")
    assert [(each.name, each.champion, each.challenger) for each in shown.metrics] == [("accuracy", 0.8, 0.9)]
    assert shown.versions[1].place.task_id == "train"

    model.promote("2", why="approved", by="ann", operation=f"retrain/{second}/2")
    [shown] = read(second)
    assert [(each.version, each.role) for each in shown.versions] == [("1", "champion"), ("2", "challenger")]
    assert (shown.decision, shown.reason) == ("promotion", "approved")
    assert [(each.version, each.is_of_run) for each in shown.changes] == [("2", True), ("1", False)]

    [shown] = read(first)  # there was no champion before it
    assert [(each.version, each.role) for each in shown.versions] == [("1", "challenger")]
    assert read(f"third-{name}") == []


def test_the_run_of_a_champion_that_one_may_not_see_is_not_told_of(client, name, train, read):
    train(f"hidden-{name}", 0.8, dag_id="hidden")
    PromotedModel(name, client=client).promote("1", why="the first")
    train(f"shown-{name}", 0.9)
    [shown] = read(f"shown-{name}", may_read=lambda dag_id: dag_id == "retrain")
    champion, challenger = shown.versions
    assert (champion.version, champion.mlflow_run_id, champion.place) == ("1", "", None)
    assert challenger.mlflow_run_id
    assert [each.name for each in shown.metrics if each.champion is not None] == []
