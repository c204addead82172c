"""Artifacts that a job is given, and data sets that it names, are inputs of its run in MLflow."""

from __future__ import annotations

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import mlflow.data
import pytest
from mlflow import MlflowClient
from tracking_cases import make_job, open_run

from nemo_airflow.language.artifact import Artifact
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import PartlyRefusedError, RunInput, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.outbox import Outbox

pytestmark = pytest.mark.stores("sqlite", "server", "postgres")


def test_artifacts_that_a_job_is_given_are_inputs_of_its_run_once(tracker: MLflowTracker, uri: str) -> None:
    given = Artifact("ab" * 32, 3, file="model.bin", name="model", output="model.bin", job="maker", run_id="1" * 32)
    job = make_job("test_run_inputs")
    root = {**job.plan["root"], "models": [given.to_json(), given.to_json()]}
    job = dataclasses.replace(job, plan={**job.plan, "root": root})
    ref = open_run(tracker, job)
    open_run(tracker, job)
    run = MlflowClient(uri).get_run(ref.run_id)
    [found] = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("model", given.digest[:36])
    assert json.loads(found.dataset.source)["run_id"] == given.run_id
    assert run.data.tags["nemo_airflow.input.model"] == f"{given.run_id} {given.digest}"


def test_data_sets_that_the_job_names_are_inputs_with_a_source_that_mlflow_reads(
    tracker: MLflowTracker, uri: str
) -> None:
    ref = open_run(tracker, make_job("test_named_inputs"))
    found = [
        RunInput("train", "ab" * 32, '{"uri": "s3://bucket/train"}', "s3", "training"),
        RunInput("page", "v1", '{"url": "https://host.invalid/a.csv"}', "http"),
        RunInput("local", "v2", '{"uri": "/data/rows.csv"}', "local"),
    ]
    for _ in range(2):
        tracker.inputs(ref, found)
    inputs = {each.dataset.name: each for each in MlflowClient(uri).get_run(ref.run_id).inputs.dataset_inputs}
    assert sorted(inputs) == ["local", "page", "train"]
    assert [(tag.key, tag.value) for tag in inputs["train"].tags] == [("mlflow.data.context", "training")]
    assert inputs["train"].dataset.digest == ("ab" * 32)[:36]
    sources = {name: mlflow.data.get_source(each.dataset) for name, each in inputs.items()}
    assert sources["train"].uri == "s3://bucket/train"
    assert sources["page"].url == "https://host.invalid/a.csv"
    assert sources["local"].uri == "/data/rows.csv"


def test_a_data_set_that_many_jobs_name_at_once_is_an_input_of_each(tracker: MLflowTracker, uri: str) -> None:
    refs = [open_run(tracker, make_job(f"test_shared_input_{number}")) for number in range(4)]
    names = [f"shared-{number}" for number in range(4)]  # MLflow refuses the second of two who make one at once
    barrier = threading.Barrier(len(refs))

    def name_all(ref: RunRef) -> None:
        for name in names:
            barrier.wait(300)
            tracker.inputs(ref, [RunInput(name, "v1", "{}", "s3")])

    with ThreadPoolExecutor(len(refs)) as several:
        list(several.map(name_all, refs))
    for ref in refs:
        inputs = MlflowClient(uri).get_run(ref.run_id).inputs.dataset_inputs
        assert sorted(each.dataset.name for each in inputs) == names


def test_an_input_that_mlflow_refuses_costs_itself_alone(tracker: MLflowTracker, uri: str) -> None:
    ref = open_run(tracker, make_job("test_refused_input"))
    long = RunInput("long", "v1", json.dumps({"uri": "s3://" + "x" * 70_000}), "s3")
    good = [RunInput(f"part-{n}", "v1", "{}", "s3") for n in range(5)]
    with pytest.raises(PartlyRefusedError, match=r"input 'long' \(the other 5 of 6 are recorded\)"):
        tracker.inputs(ref, [*good[:2], long, *good[2:]])
    names = {each.dataset.name for each in MlflowClient(uri).get_run(ref.run_id).inputs.dataset_inputs}
    assert names == {each.name for each in good}


def test_inputs_of_a_job_that_names_many_wait_as_one_call() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(calls.inputs([RunInput(f"part-{number}", "v1", "{}", "s3")]))
    outbox.put(calls.tags({"a": "b"}))
    assert [call.verb for call in outbox.calls] == ["inputs", "tags"]
    assert len(outbox.calls[0].arguments["inputs"]) == 3
