"""What OpenLineage, OpenTelemetry and Airflow's metrics are told of a task that runs."""

import asyncio
import datetime
import json
import re
import time
from pathlib import Path

import pytest
from airflow.sdk import DAG
from dag_database import register
from lineage_jobs import make, use
from provider_jobs import trace

from nemo_airflow import Config, LocalExecutor, NemoRunOperator
from nemo_airflow.assets import model_asset
from nemo_airflow.job import JobHandle
from nemo_airflow.triggers.metrics import METRICS
from nemo_airflow.triggers.run import NemoRunTrigger

PAGE = Path(__file__).parents[2] / "docs" / "provider.md"


@pytest.fixture
def where(tmp_path, monkeypatch):
    """Arguments of tasks whose jobs run here."""
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "home"))
    env = {"PYTHONPATH": str(Path(__file__).parent)}
    return {"job_executor": LocalExecutor(root=str(tmp_path / "jobs")), "env": env, "tracker": None}


@pytest.fixture
def events(tmp_path, monkeypatch):
    """Has OpenLineage's own listener write its events into a file; returns a function that reads those of tasks."""
    file = tmp_path / "events.jsonl"
    transport = {"type": "file", "log_file_path": str(file), "append": True}
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__TRANSPORT", json.dumps(transport))
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__EXECUTE_IN_THREAD", "True")
    from airflow.providers.openlineage import conf
    from airflow.providers.openlineage.plugins.listener import OpenLineageListener
    from airflow.sdk.listener import get_listener_manager

    cached = [each for each in vars(conf).values() if hasattr(each, "cache_clear")]
    for each in cached:
        each.cache_clear()
    manager = get_listener_manager()
    # Where it was first asked for just now, the plugin has added its own.
    if not any(isinstance(each, OpenLineageListener) for each in manager.pm.get_plugins()):
        manager.add_listener(OpenLineageListener())
    yield lambda: [event for line in file.read_text().splitlines() if "." in (event := json.loads(line))["job"]["name"]]
    for each in manager.pm.get_plugins():
        if isinstance(each, OpenLineageListener):
            manager.pm.unregister(each)
    for each in cached:
        each.cache_clear()


def run(dag, expected="success"):
    register(dag)
    ended = dag.test(logical_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    assert ended.state == expected


@pytest.fixture
def lineage(airflow_database, events, where):
    """The events of a DAG in which a job makes a model, after a deferral, and two are given it, of which one fails."""
    with DAG("lineage", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        outlets = [model_asset("digits", alias="champion")]
        made = NemoRunOperator(
            task_id="make", config=Config(make, text="weights"), defer_after=0, outlets=outlets, **where
        )
        model = made.output["model"]
        NemoRunOperator(task_id="use", config=Config(use, model=model), deferrable=False, **where)
        NemoRunOperator(task_id="fail", config=Config(use, model=model, bad=True), deferrable=False, **where)
    run(dag, "failed")
    return {(event["job"]["name"], event["eventType"]): event for event in events()}


def names(datasets):
    return [(each["namespace"], each["name"]) for each in datasets]


def test_openlineage_is_told_what_jobs_made_and_were_given_also_after_a_deferral(lineage):
    made = lineage["lineage.make", "COMPLETE"]
    facet = made["run"]["facets"]["nemo_airflow"]
    assert facet["backEnd"] == "local"
    assert facet["key"]
    assert re.fullmatch("[0-9a-f]{64}", facet["configDigest"].removeprefix("sha256:"))
    asset, model = made["outputs"]
    assert (asset["namespace"], asset["name"]) == ("mlflow", "models/digits@champion")
    assert (model["namespace"], model["name"]) == ("nemo-airflow", f"{facet['key']}/model")
    assert re.fullmatch("[0-9a-f]{64}", model["facets"]["version"]["datasetVersion"])
    for event in (lineage["lineage.use", "COMPLETE"], lineage["lineage.fail", "FAIL"]):
        assert names(event["inputs"]) == names([model])
        assert not event["outputs"]
    assert names(lineage["lineage.make", "START"]["outputs"]) == names([asset])
    failed = lineage["lineage.fail", "FAIL"]["run"]["facets"]
    assert failed["nemo_airflow"]["failure"] == "out_of_memory"
    assert "too large" in failed["errorMessage"]["message"]


class Taken:
    """Airflow's interface of a program that takes metrics."""

    def __init__(self):
        self.taken = []

    def incr(self, stat, count=1, rate=1, *, tags=None):
        self.taken.append((stat, tags))

    def timing(self, stat, dt, *, tags=None):
        self.taken.append((stat, tags))
        assert dt >= 0

    def timer(self, stat=None, *args, tags=None, **kwargs):
        from airflow.sdk._shared.observability.metrics.protocols import Timer

        self.taken.append((stat, tags))
        return Timer()

    def __getattr__(self, name):
        return lambda *args, **kwargs: None


@pytest.fixture
def metrics():
    """What is counted and timed by the names of this project."""
    from airflow.sdk._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.sdk.observability import stats

    taken = Taken()
    stats.initialize(factory=lambda: taken, export_legacy_names=False)
    yield lambda: [(name, tags) for name, tags in taken.taken if name and name.startswith("nemo_airflow.")]
    stats.initialize(factory=NoStatsLogger, export_legacy_names=True)


def test_jobs_are_counted_and_timed_and_the_trace_reaches_them(airflow_database, metrics, where):
    from opentelemetry.sdk.trace import TracerProvider

    with DAG("measured", schedule=None, start_date=datetime.datetime(2026, 1, 1)) as dag:
        NemoRunOperator(task_id="well", config=Config(trace), deferrable=False, **where)
        NemoRunOperator(task_id="deferred", config=Config(trace), defer_after=0, **where)
        NemoRunOperator(task_id="keeps", config=Config(make, text="x"), deferrable=False, **where)
        NemoRunOperator(task_id="fails", config=Config(use, model=Path("x"), bad=True), deferrable=False, **where)
    register(dag)
    with TracerProvider().get_tracer("test").start_as_current_span("all") as span:
        ended = dag.test(logical_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))
    found = metrics()
    assert {tags["kind"] for _, tags in found} == {"local"}
    counts = {name: [each for each, _ in found].count(name) for name, _ in found}
    assert counts == {
        "nemo_airflow.job.submitted": 4,
        "nemo_airflow.job.waited": 4,
        "nemo_airflow.job.ran": 4,
        "nemo_airflow.job.succeeded": 3,
        "nemo_airflow.job.failed.out_of_memory": 1,
        "nemo_airflow.outputs.kept": 1,
    }
    parents = [ti.xcom_pull(task_ids=ti.task_id) for ti in ended.get_task_instances() if ti.task_id != "fails"]
    traces = [text for text in parents if isinstance(text, str)]
    assert [text.split("-")[1] for text in traces] == [f"{span.get_span_context().trace_id:032x}"] * 2


def test_a_triggerer_counts_by_its_own_metrics_what_it_could_not_follow():
    from airflow._shared.observability.metrics.base_stats_logger import NoStatsLogger
    from airflow.observability import stats

    taken = Taken()
    stats.initialize(factory=lambda: taken, export_legacy_names=False)
    handle = JobHandle("job", "ssh", "1", "", 1.0).to_json()
    trigger = NemoRunTrigger({"kind": "uninstalled"}, handle, deferred_at=time.time() - 60)
    trigger.trigger_id, trigger.task_instance = 7, None

    async def first_event():
        return await anext(aiter(trigger.run()))

    try:
        event = asyncio.run(first_event())
    finally:
        stats.initialize(factory=NoStatsLogger, export_legacy_names=True)
    assert "'uninstalled'" in event.payload["error"]
    assert taken.taken == [("nemo_airflow.trigger.lost", {"kind": "ssh"})]


def test_no_trace_is_handed_on_where_there_is_none(monkeypatch):
    from nemo_airflow.operators.tracing import trace_env

    assert trace_env() == {}


def test_the_page_names_every_metric():
    text = PAGE.read_text()
    for name, (kind, what) in METRICS.items():
        assert f"| `{name}` | {kind} | {what} |\n" in text
