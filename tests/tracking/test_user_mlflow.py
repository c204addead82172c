"""What the job's own ``mlflow`` does with the variables that the tracker gives it: each kind of script runs."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tracking_cases import make_job, open_run

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker


def run_user_code(ref: RunRef, code: str, **env: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **ref.env, **env},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def runs_below(client: MlflowClient, ref: RunRef, experiment: str = "") -> list[Run]:
    where = client.get_experiment_by_name(experiment).experiment_id if experiment else ref.experiment_id
    return client.search_runs([where], f"tags.`mlflow.parentRunId` = '{ref.run_id}'", order_by=["start_time"])


def test_a_run_of_user_code_is_below_the_jobs_and_leaves_its_end_alone(tracker: MLflowTracker, opened: RunRef) -> None:
    run_user_code(opened, "import mlflow\nwith mlflow.start_run(): mlflow.log_metric('from_user', 3)")
    client = MlflowClient(tracker.tracking_uri)
    (below,) = runs_below(client, opened)
    assert below.data.metrics == {"from_user": 3}
    assert client.get_run(opened.run_id).info.status == "RUNNING"
    tracker.ended(opened, JobStatus(JobState.FAILED, 1))
    assert client.get_run(opened.run_id).info.status == "FAILED"


@pytest.fixture
def ref(database: str, request: pytest.FixtureRequest) -> RunRef:
    return open_run(MLflowTracker(tracking_uri=database), make_job(request.node.name))


def test_a_script_that_sets_an_experiment_of_its_own_runs(database: str, ref: RunRef) -> None:
    code = "import mlflow\nmlflow.set_experiment('mine')\nwith mlflow.start_run(): mlflow.log_metric('loss', 1)"
    run_user_code(ref, code)
    (run,) = runs_below(MlflowClient(database), ref, "mine")
    assert run.data.metrics == {"loss": 1}


def test_the_folds_of_a_cross_validation_are_runs_of_their_own_below_the_jobs(database: str, ref: RunRef) -> None:
    code = """
import mlflow, os
for fold in range(3):
    with mlflow.start_run(run_name=f"fold{fold}"):
        mlflow.log_metric("acc", fold)
with mlflow.start_run(parent_run_id=os.environ["NEMO_AIRFLOW_RUN_ID"], run_name="summary"):
    with mlflow.start_run(nested=True, run_name="deeper"):
        pass
"""
    run_user_code(ref, code)
    client = MlflowClient(database)
    below = runs_below(client, ref)
    assert [(run.info.run_name, run.data.metrics) for run in below] == [
        *((f"fold{fold}", {"acc": fold}) for fold in range(3)),
        ("summary", {}),
    ]
    (deeper,) = client.search_runs([ref.experiment_id], f"tags.`mlflow.parentRunId` = '{below[-1].info.run_id}'")
    assert deeper.info.run_name == "deeper"
    assert client.get_run(ref.run_id).info.run_name == "train"


def test_user_code_may_log_the_configs_parameters_again_into_the_jobs_own_run(database: str) -> None:
    values = {"shuffle": True, "seed": None, "lr": 1e-05, "batch": 32, "name": "x", "empty": [], "large": 1e22}
    plan = {
        "version": 1,
        "root": {"_target_": "train:fit", **values, "pair": {"_tuple_": []}, "nan": {"_float_": "nan"}},
    }
    ref = open_run(MLflowTracker(tracking_uri=database), make_job("the same parameters", plan=plan))
    given = f"dict({values!r}, pair=(), nan=float('nan'))"
    run_user_code(
        ref,
        "import mlflow, os\nwith mlflow.start_run(run_id=os.environ['NEMO_AIRFLOW_RUN_ID']):\n"
        f"    mlflow.log_params({given})\n    mlflow.log_metric('loss', 1)",
    )
    run = MlflowClient(database).get_run(ref.run_id)
    assert run.data.metrics == {"loss": 1}
    assert {name: run.data.params[name] for name in values} == {name: str(value) for name, value in values.items()}


def test_runs_that_killed_user_code_left_open_end_with_the_job(database: str, ref: RunRef) -> None:
    run_user_code(ref, "import mlflow, os\nmlflow.start_run()\nos._exit(0)")
    client = MlflowClient(database)
    assert [run.info.status for run in runs_below(client, ref)] == ["RUNNING"]
    MLflowTracker(tracking_uri=database).ended(ref, JobStatus(JobState.CANCELLED))
    assert [run.info.status for run in runs_below(client, ref)] == ["KILLED"]


def test_runs_below_one_that_user_code_left_open_end_with_the_job(database: str, ref: RunRef) -> None:
    run_user_code(ref, "import mlflow, os\nmlflow.start_run()\nmlflow.start_run(nested=True)\nos._exit(0)")
    MLflowTracker(tracking_uri=database).ended(ref, JobStatus(JobState.FAILED, 1))
    client = MlflowClient(database)
    (outer,) = runs_below(client, ref)
    (inner,) = runs_below(client, dataclasses.replace(ref, run_id=outer.info.run_id))
    assert (outer.info.status, inner.info.status) == ("FAILED", "FAILED")
    assert inner.info.end_time


def test_a_run_that_user_code_left_open_below_the_parent_does_not_keep_it_open(database: str) -> None:
    tracker, client = MLflowTracker(tracking_uri=database), MlflowClient(database)
    first, second = (open_run(tracker, make_job(f"left open {n}"), parent="left open") for n in (1, 2))
    code = "import mlflow, os\nmlflow.start_run(parent_run_id=os.environ['PARENT'])\nos._exit(0)"
    run_user_code(first, code, PARENT=first.parent_id, MLFLOW_RUN_CONTEXT="")
    parent = dataclasses.replace(first, run_id=first.parent_id)
    (left,) = [run for run in runs_below(client, parent) if run.info.run_id not in (first.run_id, second.run_id)]
    for ref, expected in ((first, "RUNNING"), (second, "FINISHED")):
        tracker.ended(ref, JobStatus(JobState.SUCCEEDED, 0))
        tracker.close_parent(ref, succeeded=True)
        assert client.get_run(first.parent_id).info.status == expected
        assert client.get_run(left.info.run_id).info.status == expected
