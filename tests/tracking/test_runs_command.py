"""Runs of jobs are looked for in MLflow by what people know of them, in the terminal and as a table of pandas."""

import datetime
import functools
import itertools
import json
import math
import uuid

import pytest
from tracking_cases import PLAN, make_job, open_run

import nemo_airflow
from nemo_airflow.cli import main
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow import MLflowTracker


@pytest.fixture
def dag(uri):
    """The name of a DAG with four runs: of lr 0.1 to 0.4, whose loss is ten times that, or NaN for the last."""
    return made(uri)


@functools.cache
def made(uri):
    dag, tracker = f"dag {uuid.uuid4().hex[:8]}", MLflowTracker(tracking_uri=uri)
    for number in range(1, 5):
        labels = {"dag_id": dag, "task_id": f"task{number % 2}", "user": "ann" if number < 3 else "it's bob"}
        plan = {**PLAN, "root": {**PLAN["root"], "lr": number / 10}}
        job = make_job(f"run {number} {dag}", plan=plan, labels=labels)
        ref = open_run(tracker, job, parent=dag)
        tracker.started(ref, JobHandle(job.key, "slurm" if number % 2 else "docker", "7"), "script")
        tracker.config(ref, plan)
        tracker.metrics(ref, [Metric("val/loss", math.nan if number == 4 else float(number), 3, 1.7e9)], 10)
        if number < 4:
            state = JobState.FAILED if number == 3 else JobState.SUCCEEDED
            failure = FailureKind.OUT_OF_MEMORY if number == 3 else None
            tracker.ended(ref, JobStatus(state, int(number == 3), failure=failure), error="")
    return dag


def number_of(lr):
    return round(float(lr) * 10)


def found(capsys, uri, *options):
    """The numbers of the runs that the command lists."""
    assert main(["runs", "--tracking-uri", uri, *options, "-o", "json"]) == 0
    return [number_of(run["params"]["lr"]) for run in json.loads(capsys.readouterr().out)["runs"]]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], [4, 3, 2, 1]),
        (["--state", "failed"], [3]),
        (["--state", "running"], [4]),
        (["--back-end", "docker"], [4, 2]),
        (["--task", "task1"], [3, 1]),
        (["--user", "it's bob"], [4, 3]),
        (["--config", "lr=0.2"], [2]),
        (["--config", "model.hidden=32", "--config", "lr=0.3"], [3]),
        (["--tag", "nemo_airflow.failure=out_of_memory"], [3]),
        (["--metric", "val/loss < 2.5", "--metric", "val/loss>=2"], [2]),
        (["--since", "1h"], [4, 3, 2, 1]),
        (["--until", "1h"], []),
        (["--since", "2001-01-01", "--until", "2001-02-03T12:00"], []),
        (["--metric", "val/loss>0", "--sort", "val/loss"], [1, 2, 3]),
        (["--sort=-params.lr"], [4, 3, 2, 1]),
        (["--sort", "params.lr"], [1, 2, 3, 4]),
        (["--sort", "user", "--limit", "2"], [2, 1]),
    ],
)
def test_runs_are_found_by_what_is_known_of_them(options, numbers, dag, uri, capsys):
    assert found(capsys, uri, "--dag", dag, *options) == numbers


def test_pages_follow_each_other_without_a_gap(dag, uri, capsys):
    page, numbers = "", []
    for _ in range(2):
        assert main(["runs", "--tracking-uri", uri, "--dag", dag, "--limit", "2", "--page", page, "-o", "json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        numbers += [number_of(run["params"]["lr"]) for run in answer["runs"]]
        page = answer["next_page"] or ""
    assert numbers == [4, 3, 2, 1]
    assert main(["runs", "--tracking-uri", uri, "--dag", dag, "--limit", "3"]) == 0
    assert "there are more: add --page " in capsys.readouterr().err


def test_any_metric_and_parameter_is_a_column(dag, uri, capsys):
    columns = "val/loss,lr,params.model.hidden,tags.nemo_airflow.failure,none"
    assert main(["runs", "--tracking-uri", uri, "--dag", dag, "--columns", columns]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[-5:] == columns.split(",")
    assert [row.split()[-3:] for row in (rows[0], rows[2])] == [["nan", "0.4", "32"], ["2", "0.2", "32"]]
    assert rows[1].split()[-4:] == ["3", "0.3", "32", "out_of_memory"]
    assert "failed (out_of_memory)" in rows[1]


def test_a_table_of_pandas_has_the_same_runs(dag, uri):
    frame = nemo_airflow.runs(dag=dag, config={"model.hidden": 32}, sort="params.lr", tracking_uri=uri)
    assert list(frame["params.lr"]) == ["0.1", "0.2", "0.3", "0.4"]
    assert list(frame["metrics.val/loss"])[:3] == [1.0, 2.0, 3.0]
    assert list(frame["state"]) == ["succeeded", "succeeded", "failed", "running"]
    assert (frame["started"] > datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1)).all()
    assert frame["seconds"].notna().tolist() == [True, True, True, False]
    recent = nemo_airflow.runs(dag=dag, since=datetime.timedelta(hours=1), metrics=["val/loss<2"], tracking_uri=uri)
    assert len(recent) == 1
    assert len(nemo_airflow.runs(dag=dag, limit=2, tracking_uri=uri)) == 2
    empty = nemo_airflow.runs(dag="none", tracking_uri=uri)
    assert (len(empty), "state" in empty.columns) == (0, True)


def test_more_runs_than_a_page_come_as_one_table(dag, uri, monkeypatch):
    monkeypatch.setattr("nemo_airflow.tracking.frames._PAGE", 3)
    frame = nemo_airflow.runs(dag=dag, tracking_uri=uri)
    assert list(map(number_of, frame["params.lr"])) == [4, 3, 2, 1]


WRONG = {
    ("--metric", "loss~1"): "'loss~1' does not compare a metric with a number: write 'loss<0.1'",
    ("--metric", "loss<small"): "does not compare a metric with a number",
    ("--since", "yesterday"): "'yesterday' is not a time: write 7d, 12h or 30m",
    ("--state", "succeded"): "'succeded' is not a state of a run; did you mean 'succeeded'?",
    ("--config", "lr"): "--config 'lr' has no value: write NAME=VALUE",
    ("--config", 'text=it\'s "so"'): "MLflow finds no value with both kinds of quotes",
    ("--tag", "a`b=1"): "MLflow finds no name with a backtick",
    ("--limit", "0"): "--limit 0: a page of runs has 1 to 50000",
}


@pytest.mark.stores("sqlite")
@pytest.mark.parametrize("options", WRONG)
def test_what_cannot_be_looked_for_is_said_in_one_line(options, uri, capsys):
    assert main(["runs", "--tracking-uri", uri, *options]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert WRONG[options] in line
    with pytest.raises(SettingsError, match="'' does not compare"):
        nemo_airflow.runs(metrics=[""], tracking_uri=uri)


@pytest.mark.stores("sqlite")
def test_where_there_is_none_the_store_is_named(uri, capsys):
    assert main(["runs", "--tracking-uri", uri, "--dag", "none"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("no run of sqlite:")


def test_every_option_is_explained_and_every_sort_is_known():
    """The help names what the query knows."""
    from nemo_airflow.tracking.mlflow.queries import RunQuery

    names = ("started", "ended", "name", "dag", "task", "state", "back-end", "user", "commit", "loss", "params.a.b")
    orders = [RunQuery(sort=sign + name).to_order()[0] for sign, name in itertools.product(("", "-"), names)]
    assert len(set(orders)) == 2 * len(names)
    assert all(order.partition(".")[0] in ("attributes", "tags", "metrics", "params") for order in orders)
