"""What the tracker writes into MLflow, in a sqlite file and through a real server."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tracking_cases import PLAN, make_job, make_package, open_run

from nemo_airflow.exceptions import SettingsError, TrackingError
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState, JobStatus
from nemo_airflow.tracking import tracker_from_json
from nemo_airflow.tracking.artifacts import files_under
from nemo_airflow.tracking.base import RunRef, UploadWatch
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def client(uri: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(uri)


@pytest.fixture
def artifact(client: MlflowClient, opened: RunRef, tmp_path: Path) -> Callable[[str], str]:
    def read(path: str) -> str:
        return Path(client.download_artifacts(opened.run_id, path, str(tmp_path))).read_text()

    return read


def test_a_run_has_the_config_the_package_and_where_it_comes_from(
    tracker: MLflowTracker, client: MlflowClient, tmp_path: Path
) -> None:
    tracker = MLflowTracker(tracking_uri=tracker.tracking_uri, tags={"team": "vision"})
    ref = open_run(tracker, make_job("described", package=make_package(dirty=True, patch="--- a\n+++ b\n")))
    run = client.get_run(ref.run_id)
    assert run.info.status == "RUNNING"
    assert run.info.run_name == "train"
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["model.hidden"] == "32"
    expected = {
        "team": "vision",
        "mlflow.parentRunId": ref.parent_id,
        "mlflow.source.git.commit": "c" * 40,
        "nemo_airflow.package_digest": "d" * 64,
        "nemo_airflow.dirty": "true",
        "airflow.dag_id": "retrain",
        "airflow.run_id": "manual__1",
        "airflow.try_number": "1",
        "airflow.url": "http://airflow/task",
    }
    assert expected.items() <= run.data.tags.items()
    patch = client.download_artifacts(ref.run_id, "nemo_airflow/patch.diff", str(tmp_path))
    assert Path(patch).read_text() == "--- a\n+++ b\n"
    assert json.loads(Path(client.download_artifacts(ref.run_id, "nemo_airflow/plan.json")).read_text()) == PLAN


def test_a_run_and_its_parent_show_who_started_the_dag_run(tracker: MLflowTracker, client: MlflowClient) -> None:
    job = make_job("has-a-user")
    ref = open_run(tracker, make_job("has-a-user", labels={**job.labels, "user": "ann"}))
    for run_id in (ref.run_id, ref.parent_id):
        assert client.get_run(run_id).data.tags["mlflow.user"] == "ann"


def test_a_mapped_task_shows_its_index(tracker: MLflowTracker, client: MlflowClient) -> None:
    job = make_job("mapped")
    ref = open_run(tracker, make_job("mapped", labels={**job.labels, "map_index": "7"}))
    assert client.get_run(ref.run_id).info.run_name == "train[7]"


def test_tasks_of_one_dag_run_have_one_parent(tracker: MLflowTracker, client: MlflowClient) -> None:
    refs = [open_run(tracker, make_job(f"sibling-{n}"), parent='retrain it\'s "quoted" 100%') for n in range(2)]
    assert refs[0].parent_id == refs[1].parent_id
    assert refs[0].run_id != refs[1].run_id
    assert client.get_run(refs[0].parent_id).info.run_name == 'retrain it\'s "quoted" 100%'


def test_a_parent_ends_with_the_last_of_its_jobs(tracker: MLflowTracker, client: MlflowClient) -> None:
    first, last = (open_run(tracker, make_job(f"parallel-{n}"), parent="parallel jobs") for n in range(2))
    tracker.ended(first, JobStatus(JobState.SUCCEEDED))
    tracker.close_parent(first, succeeded=True)
    assert client.get_run(first.parent_id).info.status == "RUNNING"
    tracker.ended(last, JobStatus(JobState.SUCCEEDED))
    tracker.close_parent(last, succeeded=True)
    parent = client.get_run(first.parent_id).info
    assert parent.status == "FINISHED"
    assert parent.end_time >= client.get_run(last.run_id).info.end_time


def test_a_parent_stays_failed_while_other_jobs_succeed_and_ends_with_the_last(
    tracker: MLflowTracker, client: MlflowClient
) -> None:
    failed, last = (open_run(tracker, make_job(f"one-fails-{n}"), parent="one fails") for n in range(2))
    tracker.ended(failed, JobStatus(JobState.FAILED))
    tracker.close_parent(failed, succeeded=False)
    tracker.ended(last, JobStatus(JobState.SUCCEEDED))
    tracker.close_parent(last, succeeded=True)
    parent = client.get_run(failed.parent_id).info
    assert parent.status == "FAILED"
    assert parent.end_time >= client.get_run(last.run_id).info.end_time


def test_a_try_that_is_attached_again_goes_on_with_its_run(
    tracker: MLflowTracker, job: Job, opened: RunRef, client: MlflowClient
) -> None:
    tracker.ended(opened, JobStatus(JobState.FAILED))
    tracker.close_parent(opened, succeeded=False)
    assert open_run(tracker, job) == opened
    assert client.get_run(opened.run_id).info.status == "RUNNING"
    assert client.get_run(opened.parent_id).info.status == "RUNNING"
    tracker.ended(opened, JobStatus(JobState.SUCCEEDED))
    assert client.get_run(opened.run_id).info.status == "FINISHED"


def test_a_config_of_any_size_is_recorded(tracker: MLflowTracker, client: MlflowClient) -> None:
    plan = {"version": 1, "root": {"_target_": "m:f", "text": "x" * 9000, **{f"p{n}": n for n in range(250)}}}
    params = client.get_run(open_run(tracker, make_job("large-config", plan=plan)).run_id).data.params
    assert params["p249"] == "249"
    assert params["text"].startswith("xxx")
    assert len(params["text"]) <= 6000
    assert "9000 characters, sha256" in params["text"]


def test_a_parameter_that_is_resolved_otherwise_is_a_warning(
    tracker: MLflowTracker,
    opened: RunRef,
    client: MlflowClient,
    artifact: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    resolved = {"version": 1, "root": {**PLAN["root"], "lr": 0.2, "added": True}}  # type: ignore[dict-item]
    with caplog.at_level(logging.WARNING):
        tracker.documents(opened, tracker.config(opened, resolved))
    assert "another value for: lr" in caplog.text
    run = client.get_run(opened.run_id)
    assert run.data.params["lr"] == "0.1"
    assert run.data.params["added"].lower() == "true"
    assert run.data.tags["nemo_airflow.param_conflicts"] == "lr"
    assert json.loads(artifact("nemo_airflow/plan.json"))["root"]["lr"] == 0.2


def test_where_and_in_what_the_job_ran_is_recorded(
    tracker: MLflowTracker, opened: RunRef, client: MlflowClient, artifact: Callable[[str], str]
) -> None:
    script = tracker.started(opened, JobHandle("key", "slurm", "4711", "cluster-a"), "#!/bin/sh\ntrue\n")
    environment = {
        "python": "3.11.7",
        "host": "n1",
        "packages": {"numpy": "2.1", "attrs": "24"},
        "gpus": [{"name": "H100"}],
    }
    tracker.documents(opened, {**script, **tracker.environment(opened, environment)})
    tracker.tag(opened, {"dataset": "digits", "odd+name": "1", "empty": ""})
    tags = client.get_run(opened.run_id).data.tags
    assert (tags["nemo_airflow.backend"], tags["nemo_airflow.job_id"], tags["nemo_airflow.cluster"]) == (
        "slurm",
        "4711",
        "cluster-a",
    )
    assert (tags["nemo_airflow.gpus"], tags["dataset"], tags["odd:2b:name"]) == ("H100", "digits", "1")
    assert artifact("nemo_airflow/job_script.txt") == "#!/bin/sh\ntrue\n"
    assert artifact("nemo_airflow/requirements.txt") == "attrs==24\nnumpy==2.1\n"
    assert json.loads(artifact("nemo_airflow/environment.json")) == environment


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (JobStatus(JobState.SUCCEEDED, 0), "FINISHED"),
        (JobStatus(JobState.FAILED, 1, FailureKind.USER_ERROR, "ValueError: no"), "FAILED"),
        (JobStatus(JobState.LOST, failure=FailureKind.LOST), "FAILED"),
        (JobStatus(JobState.CANCELLED, 143, FailureKind.CANCELLED), "KILLED"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_run_ends_as_its_job_did(
    tracker: MLflowTracker, opened: RunRef, client: MlflowClient, status: JobStatus, expected: str
) -> None:
    tracker.ended(opened, status)
    run = client.get_run(opened.run_id)
    assert run.info.status == expected
    assert run.info.end_time > run.info.start_time
    tracker.ended(opened, JobStatus(JobState.SUCCEEDED))
    assert client.get_run(opened.run_id).to_dictionary() == run.to_dictionary()


def test_the_error_is_a_tag_and_its_traceback_an_artifact(
    tracker: MLflowTracker, opened: RunRef, client: MlflowClient, artifact: Callable[[str], str]
) -> None:
    error = "ValueError: no\n\nTraceback ...\n" + "x" * 1000
    status = JobStatus(JobState.FAILED, 1, FailureKind.USER_ERROR, "ValueError: no")
    tracker.documents(opened, tracker.ended(opened, status, error=error))
    assert client.get_run(opened.run_id).data.tags["nemo_airflow.error"] == error[:500]
    assert artifact("nemo_airflow/traceback.txt") == error


def test_files_are_kept_with_their_paths(
    tracker: MLflowTracker, opened: RunRef, client: MlflowClient, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"\0\1")
    (folder / "deep" / "er" / "naïve #1 100%.txt").write_text("text")
    files = {path.as_posix(): folder / path for path in files_under(folder)}
    stored: list[str] = []
    watch = UploadWatch()
    watch.stored = stored.append  # type: ignore[method-assign]
    for _ in range(2):
        tracker.artifacts(opened, files, watch)
    assert sorted(stored) == sorted([*files, *files])
    kept = Path(client.download_artifacts(opened.run_id, "", str(tmp_path)))
    assert (kept / "model.bin").read_bytes() == b"\0\1"
    assert (kept / "deep" / "er" / "naïve :23:1 100:25:.txt").read_text() == "text"


def test_the_job_is_told_of_its_run_where_it_can_reach_the_store(tracker: MLflowTracker, uri: str) -> None:
    elsewhere = open_run(tracker, make_job("share-elsewhere"), shares_filesystem=False)
    assert bool(elsewhere.env) == uri.startswith("http")
    never = MLflowTracker(tracking_uri=uri, share=False)
    assert open_run(never, make_job("share-never")).env == {}
    assert bool(open_run(tracker, make_job("share-same-disk")).env)


def test_the_page_of_a_run_is_the_servers_or_that_of_a_given_ui(tracker: MLflowTracker, uri: str) -> None:
    ref = open_run(tracker, make_job("page"))
    assert ref.url == (f"{uri}/#/experiments/{ref.experiment_id}/runs/{ref.run_id}" if uri.startswith("http") else "")
    given = MLflowTracker(tracking_uri=uri, ui_url="https://ui.example/")
    assert open_run(given, make_job("page-ui")).url.startswith("https://ui.example/#/experiments/")


def test_a_tracker_comes_back_from_json(tracker: MLflowTracker) -> None:
    full = MLflowTracker(tracking_uri=tracker.tracking_uri, conn_id="c", tags={"a": "b"}, share=False)
    assert tracker_from_json(json.loads(json.dumps(full.to_json()))) == full
    with pytest.raises(TrackingError, match="MLflowTracker has no field uri; its fields are"):
        tracker_from_json({"kind": "mlflow", "uri": "x"})
    with pytest.raises(TrackingError, match="no tracker of kind 'wandb'"):
        tracker_from_json({"kind": "wandb"})


def test_artifacts_of_a_local_store_lie_beside_its_database(store: Store, opened: RunRef, uri: str) -> None:
    where = store.run(opened.run_id).artifact_uri
    if uri.startswith("http"):
        assert where.startswith("mlflow-artifacts:")
    else:
        assert where.startswith(Path(uri.removeprefix("sqlite:///")).parent.as_uri() + "/mlartifacts/tests/")


def test_without_settings_the_store_is_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEMO_AIRFLOW_HOME", str(tmp_path / "not yet there"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    ref = open_run(MLflowTracker(), make_job("default"))
    assert ref.uri == f"sqlite:///{tmp_path / 'not yet there' / 'mlflow.db'}"
    assert (tmp_path / "not yet there" / "mlartifacts" / "tests").is_dir()


def test_a_folder_of_files_is_refused_as_a_store(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"is a folder of files, which MLflow no longer supports: use sqlite:"):
        open_run(MLflowTracker(tracking_uri=tmp_path.as_uri()), make_job("files"))


def test_a_login_in_the_address_is_refused() -> None:
    with pytest.raises(SettingsError, match="put it into a connection") as raised:
        MLflowTracker(tracking_uri="https://me:secret@mlflow.example")
    assert "secret" not in str(raised.value)


def test_a_missing_mlflow_is_named_with_the_command_to_install_it(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["mlflow"] = None  # as if it were not installed
from nemo_airflow.exceptions import MissingExtraError
from nemo_airflow.tracking.mlflow.store import Credentials, open_store
try:
    open_store("sqlite:///{tmp_path}/m.db", Credentials())
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "pip install 'nemo-airflow[mlflow]'" in done.stdout


def test_importing_the_room_loads_no_client_library() -> None:
    code = "import sys, nemo_airflow.tracking as t; [getattr(t, name) for name in t.__all__]"
    heavy = "print([m for m in ('airflow', 'mlflow', 'httpx', 'fiddle', 'requests', 'sqlalchemy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{heavy}"], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
