"""Runs are put side by side by the API of the pages: what differs, metrics, curves; and only those that may be read."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from tracking_cases import PLAN, make_job, make_package, open_run

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.plugin.api import compare
from nemo_airflow.plugin.api.rights import Rights, _rights
from nemo_airflow.tracking.base import Metric, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Credentials, open_store

Get = Callable[..., Any]


class MayRead(Rights):
    """The rights of a user who may read some DAGs."""

    def __init__(self, *dag_ids: str) -> None:
        super().__init__(None)
        self._dag_ids = dag_ids

    def may_read(self, dag_id: str) -> bool:
        return dag_id in self._dag_ids


@pytest.fixture
def get(uri: str, monkeypatch: pytest.MonkeyPatch) -> Get:
    """Gets a route, as a user who may read some DAGs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("NEMO_AIRFLOW_MLFLOW_CONN_ID", "")

    def get(path: str, *run_ids: str, dag_ids: tuple[str, ...] = ("retrain",), status: int = 200, **query: Any) -> Any:
        app = FastAPI()
        app.include_router(compare.router)
        app.dependency_overrides[_rights] = lambda: MayRead(*dag_ids)
        answer = TestClient(app).get(f"/{path}", params={"mlflow_run_id": run_ids, **query})
        assert answer.status_code == status, answer.text
        return answer.json()

    return get


def run_of(tracker: MLflowTracker, name: str, rate: float, hidden: int = 32, dag_id: str = "retrain") -> RunRef:
    plan: Any = copy.deepcopy(PLAN)
    plan["root"] |= {"lr": rate, "model": {"_target_": "train:Net", "hidden": hidden}}
    asked = {"executor": {"kind": "slurm", "time": "1:00:00", "nodes": hidden // 32}}
    job = make_job(name, plan=plan, package=make_package(digest=f"{hidden:0<64}"), asked=asked)
    job.labels["dag_id"] = dag_id
    ref = open_run(tracker, job)
    tracker.documents(ref, tracker.environment(ref, {"python": "3.11.7", "packages": {"torch": f"2.{hidden}"}}))
    values = [math.nan if step == 3 else rate * (step - 20) ** 2 for step in range(100)]
    tracker.metrics(ref, [Metric("loss", value, step, 1e9 + step) for step, value in enumerate(values)], 0)
    return ref


def test_runs_are_side_by_side(uri: str, get: Get) -> None:
    def made(section: str, *run_ids: str, **query: Any) -> Any:
        return get("compare/made", *run_ids, section=section, **query)

    tracker = MLflowTracker(tracking_uri=uri)
    first, second = run_of(tracker, "compared a", 0.1), run_of(tracker, "compared b", 0.25, hidden=64)
    other = run_of(tracker, "compared c", 0.5, dag_id="private")
    tracker.ended(first, JobStatus(JobState.SUCCEEDED))
    ids = (second.run_id, first.run_id)

    found = get("compare", *ids, other.run_id, "f" * 32, "' OR 1=1")
    assert [run["mlflow_run_id"] for run in found["runs"]] == list(ids)
    assert found["missing"] == 3  # of which one may not be read: that is not told
    assert [run["state"] for run in found["runs"]] == ["running", "succeeded"]
    [loss] = found["metrics"]
    assert loss == {"name": "loss", "values": [pytest.approx(0.25 * 79**2), pytest.approx(0.1 * 79**2)]}
    assert {"name": "lr", "values": ["0.25", "0.1"], "of": [0, 1]} in found["params"]
    assert "layers" not in str(found["params"])

    config = made("config", *ids)
    assert {"name": "model.hidden", "values": ["64", "32"], "of": [0, 1]} in config["rows"]
    assert len(config["rows"]) == 2
    whole = made("config", *ids, same=True)
    assert len(whole["rows"]) == 2 + config["same"]
    assert {"name": "model", "values": ["train:Net"], "of": [0, 0]} in whole["rows"]
    assert made("config", *ids, search="HID")["rows"] == config["rows"][1:]
    assert made("config", *ids, limit=1)["more"] == 1

    assert [row["name"] for row in made("code", *ids)["rows"]] == ["package"]
    assert made("environment", *ids)["rows"] == [{"name": "torch", "values": ["2.64", "2.32"], "of": [0, 1]}]
    assert made("inputs", *ids)["rows"] == []
    assert made("asked", *ids)["rows"] == [{"name": "executor.nodes", "values": ["2", "1"], "of": [0, 1]}]

    curves = {each["mlflow_run_id"]: each for each in get("compare/points", *ids, metric="loss", limit=10)["curves"]}
    assert set(curves) == set(ids)
    assert len(curves[first.run_id]["steps"]) <= 12
    assert (curves[first.run_id]["steps"][0], curves[first.run_id]["steps"][-1]) == (0, 99)
    assert "NaN" in get("compare/points", *ids, metric="loss")["curves"][0]["values"]
    assert get("compare/points", *ids, metric="none")["curves"] == []

    extremes = get("compare/extremes", *ids, metric="loss")
    assert (extremes["runs"], extremes["smallest"]) == (list(ids), [0.0, 0.0])
    assert extremes["largest"] == [pytest.approx(0.25 * 79**2), pytest.approx(0.1 * 79**2)]


def test_what_a_run_does_not_tell_is_not_recorded_rather_than_missing(uri: str, get: Get) -> None:
    tracker = MLflowTracker(tracking_uri=uri)
    told = run_of(tracker, "tells", 0.1)
    silent = open_run(tracker, make_job("silent", plan=PLAN))
    store = open_store(uri, Credentials())
    broken = store.create_run(store.run(told.run_id).experiment_id, "broken", {
        "nemo_airflow.key": "broken", "nemo_airflow.plan_digest": "0", "airflow.dag_id": "retrain",
    }, 1)  # fmt: skip
    ids = (told.run_id, silent.run_id, broken.run_id)

    def made(section: str, **query: Any) -> Any:
        return get("compare/made", *ids, section=section, **query)

    rows = made("environment", same=True)["rows"]
    assert {"name": "torch", "values": ["2.32"], "of": [0, -2, -2]} in rows
    assert made("environment")["rows"] == []
    assert [row["of"] for row in made("config", same=True, search="lr")["rows"]] == [[0, 0, -2]]


def test_who_may_read_none_of_the_runs_is_not_told_which_there_are(uri: str, get: Get) -> None:
    run = run_of(MLflowTracker(tracking_uri=uri), "unread", 0.1).run_id
    for path in ("compare", "compare/made", "compare/points", "compare/extremes"):
        asked = {"metric": "loss", "section": "config"}
        refused = {get(path, run_id, dag_ids=(), status=403, **asked)["detail"] for run_id in (run, "f" * 32)}
        assert len(refused) == 1
    assert "deleted" in get("compare", "f" * 32, dag_ids=("retrain", ""), status=404)["detail"]


def test_more_than_50_are_too_many(uri: str, get: Get) -> None:
    detail = get("compare", *(f"{number:032}" for number in range(51)), status=422)["detail"]
    assert detail == "51 runs are too many to compare: choose at most 50"


def test_an_mlflow_that_is_away_is_said(get: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for path in ("compare", "compare/made"):
        assert "MLflow does not answer" in get(path, "f" * 32, status=503, section="code")["detail"]
