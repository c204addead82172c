"""What a follower has kept of a job's outputs stays kept, though another follows the job after it."""

import asyncio

import pytest
from mlflow import MlflowClient

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.packaging.store.address import open_store
from nemo_airflow.packaging.store.trees import get_tree
from nemo_airflow.tracking.base import OUTPUTS_DIGEST
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.run import TrackedRun


@pytest.fixture
def finish(tmp_path, database, job, monkeypatch):
    """Ends a job as one of its followers does, with these outputs, and returns whether everything was kept."""
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, "kept outputs", shares_filesystem=False).open()

    def end(name, outputs, collected):
        folder = tmp_path / name
        (folder / "outputs").mkdir(parents=True)
        (folder / "log.txt").write_text("a line\n")
        for file, text in outputs.items():
            (folder / "outputs" / file).write_text(text)

        async def follow():
            sink = run.sink(print)
            return await sink.finish(JobStatus(JobState.SUCCEEDED), folder, "", collected=collected)

        return asyncio.run(follow())

    end.run_id = run.ref.run_id
    return end


def outputs_of(run_id, database, tmp_path, into):
    digest = MlflowClient(database).get_run(run_id).data.tags[OUTPUTS_DIGEST]
    get_tree(open_store(str(tmp_path / "shared")), digest, tmp_path / into)
    return {path.name: path.read_text() for path in (tmp_path / into).rglob("*") if path.is_file()}


def test_follower_that_finds_the_outputs_gone_leaves_the_tag_of_those_that_are_kept(finish, database, tmp_path):
    assert finish("first", {"model": "weights"}, collected=True)
    finish("second", {}, collected=False)
    kept = outputs_of(finish.run_id, database, tmp_path, "again")
    assert kept == {"model": "weights", "log.txt": "a line\n"}


def test_a_job_without_outputs_has_its_log_in_the_shared_store(finish, database, tmp_path):
    assert finish("only", {}, collected=True)
    assert outputs_of(finish.run_id, database, tmp_path, "again") == {"log.txt": "a line\n"}


def test_outputs_that_the_tracker_did_not_take_are_not_called_kept(finish, monkeypatch):
    from nemo_airflow.exceptions import TrackingError

    def refuse(*_):
        raise TrackingError("no room", transient=False)

    monkeypatch.setattr(MLflowTracker, "artifacts", refuse)
    assert not finish("only", {"model": "weights"}, collected=True)
