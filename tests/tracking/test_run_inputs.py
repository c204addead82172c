"""The artifacts that a job is given are inputs of its run in MLflow."""

from __future__ import annotations

import dataclasses
import json

from mlflow import MlflowClient
from tracking_cases import make_job, open_run

from nemo_airflow.runner.artifacts import Artifact
from nemo_airflow.tracking.mlflow import MLflowTracker


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
