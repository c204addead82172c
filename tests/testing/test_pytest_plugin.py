"""The pytest plugin, as the tests of a project use it: tasks and configs run for real."""

import os
import sys
from pathlib import Path

import pytest

from nemo_airflow import Config
from nemo_airflow.exceptions import JobFailed, SettingsError


def test_task_for_a_cluster_runs_here_with_its_upstream_and_is_a_value_afterwards(run_task, project):
    before = dict(os.environ)
    run = run_task(project.pipeline, "train", params={"train.steps": 3})
    assert run.result == {"steps": 3, "lr": 0.1}
    assert [line for line in run.lines if line.startswith("step")] == ["step 0", "step 1", "step 2"]
    assert run.metrics["loss"] == [1.0, 1 / 2, 1 / 3]
    assert run.artifacts["model.txt"].read_text() == "weights"
    assert len(run.digest) == 64
    assert run_task(project.pipeline, "score").result == 20.0
    assert dict(os.environ) == before
    assert project.trained.job_executor.value.kind == "slurm", "the DAG is as it was"
    assert project.trained.retries == 3


def test_code_that_is_not_committed_is_run(run_task, project):
    trainer = Path(sys.modules[project.train.__module__].__file__)
    text = trainer.read_text()
    try:
        trainer.write_text(text.replace("* 10.0", "* 100.0"))
        assert run_task(project.pipeline, "score").result == 200.0
    finally:
        trainer.write_text(text)


def test_mapped_task_is_run_by_its_index(run_task, project):
    with pytest.raises(SettingsError, match=r"'one' is mapped: give map_index=0"):
        run_task(project.pipeline, "one")
    assert run_task(project.pipeline, "one", map_index=1).result["steps"] == 2


def test_failed_job_fails_the_test_with_its_error_and_traceback(run_task, project):
    with pytest.raises(JobFailed, match="ValueError: no data") as caught:
        run_task(project.pipeline, "fail")
    assert "in fail" in caught.value.traceback
    assert project.told == [], "a test tells nobody"
    with pytest.raises(SettingsError, match="did you mean 'score'"):
        run_task(project.pipeline, "scor")


def test_config_runs_without_a_dag(run_config, project):
    run = run_config(Config(project.train, steps=1))
    assert (run.result, run.metrics["loss"]) == ({"steps": 1, "lr": 0.1}, [1.0])
    with pytest.raises(JobFailed, match="ValueError: no data"):
        run_config(Config(project.fail))
