"""The pages' list of jobs: MLflow's runs and what only Airflow knows, and none of what the user may not see."""

from __future__ import annotations

import copy
import datetime
import math
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert
from tracking_cases import PLAN, make_job, open_run

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.plugin.api import airflow_jobs, listing, overview, runs
from nemo_airflow.plugin.api.rights import Rights, _rights
from nemo_airflow.tracking.base import Metric, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker

Get = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("airflow_database")


class Reader(Rights):
    """The rights of a user who may read some DAGs."""

    def __init__(self, *dag_ids: str) -> None:
        super().__init__(None)
        self._dag_ids = dag_ids

    def may_read(self, dag_id: str) -> bool:
        return dag_id in self._dag_ids

    def may_stop(self, dag_id: str) -> bool:
        return self.may_read(dag_id)


@pytest.fixture
def get(uri: str, monkeypatch: pytest.MonkeyPatch) -> Get:
    """Gets a route, as a user who may read some DAGs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("NEMO_AIRFLOW_MLFLOW_CONN_ID", "")
    monkeypatch.setattr(airflow_jobs, "_DAGS_KEPT", -1.0)
    monkeypatch.setattr(listing, "_KEPT", -1.0)

    def get(path: str, *dag_ids: str, status: int = 200, **query: Any) -> Any:
        app = FastAPI()
        for module in (runs, overview):
            app.include_router(module.router)
        app.dependency_overrides[_rights] = lambda: Reader(*dag_ids)
        answer = TestClient(app).get(f"/{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    return get


def tracked(
    tracker: MLflowTracker, dag_id: str, number: int, at: float, rate: float = 0.1, ended: bool = True
) -> RunRef:
    """Makes a run in MLflow and the record that its task leaves."""
    plan: Any = copy.deepcopy(PLAN)
    plan["root"] |= {"lr": rate}
    job = make_job(f"{dag_id} {number}", plan=plan)
    job.labels["dag_id"], job.labels["run_id"] = dag_id, f"run-{number}"
    ref = tracker.open(job, experiment=f"list {dag_id}", parent="", shares_filesystem=True, at=at)
    tracker.metrics(ref, [Metric("loss", rate * (step + 1), step, at + step) for step in range(100)], 0)
    if ended:
        tracker.ended(ref, JobStatus(JobState.SUCCEEDED))
    record(dag_id, number, at, "success" if ended else "running", job.key, ref)
    return ref


def record(dag_id: str, number: int, at: float, state: str, key: str, ref: RunRef | None = None, **more: Any) -> None:
    """Leaves the record of a job in Airflow's database, as its task does."""
    when = datetime.datetime.fromtimestamp(at, datetime.UTC)
    run_id = f"run-{number}"
    value = {
        "key": key,
        "handle": {"kind": "slurm", "cluster": "lab", "id": "7"},
        "run": {**ref.to_json(), "conn_id": None} if ref else None,
        **more,
    }
    place = {"dag_id": dag_id, "run_id": run_id, "task_id": "train", "map_index": -1}
    with create_session() as session:
        dag_run = DagRun(dag_id, run_id, run_type="manual", run_after=when, state="running")
        session.add(dag_run)
        session.flush()
        session.execute(
            insert(TaskInstance).values(
                id=uuid.uuid4(), **place, state=state, pool="default_pool", pool_slots=1, try_number=1, max_tries=0,
                end_date=when if state in ("success", "failed") else None, priority_weight=1, span_status="ended",
            )
        )  # fmt: skip
        session.execute(
            insert(XComModel).values(
                dag_run_id=dag_run.id, **place, key="nemo_job", value=value, timestamp=when,
            )
        )  # fmt: skip


@pytest.fixture(autouse=True)
def empty_airflow(airflow_database: None) -> None:
    with create_session() as session:
        for model in (XComModel, TaskInstance, DagRun):
            session.execute(delete(model))


def names(answer: Any) -> list[str]:
    return [f"{run['place']['dag_id']} {run['place']['dag_run_id']}" for run in answer["runs"]]


def pages(get: Get, *dag_ids: str, **query: Any) -> list[str]:
    """Returns what all pages together have, and asserts that no job is on two of them."""
    found, page = [], ""
    for _ in range(30):
        answer = get("runs", *dag_ids, page=page, **query)
        found += names(answer)
        page = answer["next_page"]
        if not page:
            assert len(set(found)) == len(found)
            return found
    raise AssertionError("no last page")


def test_the_list_has_both_what_mlflow_knows_and_what_only_airflow_does_and_nothing_that_may_not_be_read(
    uri: str, get: Get
) -> None:
    tracker = MLflowTracker(tracking_uri=uri)
    began = time.time() - 10_000
    unique = uuid.uuid4().hex[:6]
    mine, theirs = f"mine-{unique}", f"theirs-{unique}"
    refs = {}
    for number in range(0, 12, 2):
        refs[number] = tracked(tracker, mine, number, began + number * 10, rate=(10 + number) / 100, ended=number != 10)
        tracked(tracker, theirs, number, began + number * 10 + 1, rate=0.001)
    for number in range(1, 12, 2):
        record(
            mine, number, began + number * 10, "failed" if number == 1 else "running", f"untracked-{unique}-{number}"
        )
        record(theirs, number, began + number * 10 + 1, "running", f"hidden-{unique}-{number}")

    expected = [f"{mine} run-{number}" for number in reversed(range(12))]
    for limit in (2, 3, 5, 50):
        assert pages(get, mine, limit=limit) == expected
    assert pages(get, mine, limit=3, dag_id=mine) == expected
    get("runs", mine, dag_id=theirs, status=403)
    get("runs", mine, page="nonsense", status=422)

    # What only MLflow can answer is asked of MLflow alone.
    assert pages(get, mine, config="lr=0.12") == [f"{mine} run-2"]
    assert pages(get, mine, metric=["loss<13", "loss>10.5"]) == [f"{mine} run-2"]
    assert names(get("runs", mine, sort="metrics.loss", limit=2)) == [f"{mine} run-0", f"{mine} run-2"]
    assert pages(get, mine, state="failed") == [f"{mine} run-1"]
    assert set(pages(get, mine, state="running", limit=4)) == {f"{mine} run-{n}" for n in (3, 5, 7, 9, 10, 11)}
    assert pages(get, mine, since=began + 35, until=began + 55) == [f"{mine} run-5", f"{mine} run-4"]

    [row] = get("runs", mine, config="lr=0.12", column=["metrics.loss", "params.lr", "tags.none"])["runs"]
    assert row["values"] == {"metrics.loss": pytest.approx(12.0), "params.lr": "0.12"}
    assert (row["back_end"], row["may_clear"], row["may_stop"]) == ("", True, False)

    best = get("runs/best", mine, goal="loss")
    assert (best["run"]["place"]["dag_run_id"], best["value"]) == ("run-0", pytest.approx(10.0))
    assert get("runs/best", mine, goal="loss", better="max")["run"]["place"]["dag_run_id"] == "run-10"
    assert get("runs/best", mine, goal="none")["run"] is None

    known = get("runs/names", mine)
    assert known["dags"] == [mine]
    assert "loss" in known["metrics"]
    assert "lr" in known["params"]
    assert not [name for name in known["tags"] if name.startswith(("mlflow.", "airflow.", "nemo_airflow."))]

    ids = [ref.run_id for ref in refs.values()]
    lines = get("runs/sparklines", mine, metric="loss", mlflow_run_id=[*ids, "f" * 32])["lines"]
    assert set(lines) == set(ids)
    assert (lines[ids[0]]["steps"][0], lines[ids[0]]["steps"][-1]) == (0, 99)
    assert len(lines[ids[0]]["steps"]) <= 50
    assert get("runs/sparklines", theirs, metric="loss", mlflow_run_id=ids)["lines"] == {}

    live = get("runs/live", mine)
    assert live["newest"] == f"untracked-{unique}-11"
    assert len(live["runs"]) == 6
    glance = get("overview", mine, failed_since=began)
    assert (glance["running"], glance["waiting"], glance["failed"], glance["gpus"]) == (6, 0, 1, None)
    assert all(job["place"]["dag_id"] == mine for job in glance["newest"])


def test_who_may_read_few_of_many_dags_sees_those_all_the_same(
    uri: str, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_MOST_REFUSED", 2)
    tracker = MLflowTracker(tracking_uri=uri)
    began, unique = time.time() - 5_000, uuid.uuid4().hex[:6]
    for number in range(6):
        for other in range(4):
            record(
                f"other-{other}-{unique}", number, began + number * 10 + other, "running", f"{unique}-{other}-{number}"
            )
        tracked(tracker, f"mine-{unique}", number, began + number * 10 + 5, rate=0.1 * (6 - number))
    record(f"mine-{unique}", 6, began + 100, "running", f"untracked-{unique}", machines={"nodes": 2, "gpus": 8})
    expected = [f"mine-{unique} run-{number}" for number in reversed(range(7))]
    assert pages(get, f"mine-{unique}", limit=2) == expected
    assert pages(get, f"mine-{unique}", limit=50) == expected
    assert pages(get, f"mine-{unique}", config="lr=0.1") == [f"mine-{unique} run-5"]
    assert pages(get, f"mine-{unique}", sort="metrics.loss", limit=2)[0] == f"mine-{unique} run-5"
    assert get("runs", f"mine-{unique}", sort="metrics.loss")["sorts_only"] == listing.MOST_SORTED
    assert get("runs/best", f"mine-{unique}", goal="loss")["run"]["place"]["dag_run_id"] == "run-5"
    assert get("overview", f"mine-{unique}")["gpus"] == 8


def test_while_mlflow_is_away_the_list_is_what_airflow_knows(
    uri: str, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = time.time() - 1_000
    for number in range(5):
        record("mine", number, began + number, "running", f"away-{number}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert pages(get, "mine", limit=2) == [f"mine run-{number}" for number in (4, 3, 2, 1, 0)]
    assert "127.0.0.1:9" in get("runs", "mine")["tracker"]["away"]
    assert get("runs/best", "mine", goal="loss")["run"] is None
    assert get("runs/names", "mine")["back_ends"] == ["slurm"]
    assert get("runs/sparklines", "mine", metric="loss", mlflow_run_id="f" * 32)["tracker"]["away"]


def test_a_metric_that_is_no_number_is_never_the_best(uri: str, get: Get) -> None:
    tracker = MLflowTracker(tracking_uri=uri)
    dag_id = f"nan-{uuid.uuid4().hex[:6]}"
    for number, value in enumerate((math.nan, 3.0, math.nan)):
        job = make_job(f"{dag_id} {number}")
        job.labels["dag_id"] = dag_id
        ref = open_run(tracker, job)
        tracker.metrics(ref, [Metric("score", value, 0, 1e9)], 0)
    assert get("runs/best", dag_id, goal="score", better="max", dag_id=dag_id)["value"] == 3.0
    assert get("runs/best", dag_id, goal="score", dag_id=dag_id)["value"] == 3.0
