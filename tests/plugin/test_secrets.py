"""A secret of a connection, given to a job: nowhere but in the job itself is it in plain text."""

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

SECRET = 'S3cr3t/t0ken "+" va|ue'
"""With characters that JSON, Python, a shell and an address each write in their own way."""

PARTS = ("S3cr3t", "t0ken", "va|ue", "va%7Cue")


@pytest.fixture(scope="module")
def run(server, end_of):
    """The run of the DAG ``secrets``, and what the API told of its task while that was deferred."""
    server.call("POST", "/connections", {"connection_id": "hf", "conn_type": "http", "password": SECRET})
    run_id = server.trigger("secrets")
    waiting = server.wait(
        lambda: (task := server.task("secrets", run_id, "tell"))["state"] in ("deferred", "failed") and task,
        "the task to be deferred",
    )
    Path(server.env["PLUGIN_TEST_GO"]).touch()
    assert end_of("secrets", run_id) == "failed"  # one of its two tasks
    assert {task["task_id"]: task["state"] for task in server.tasks("secrets", run_id)} == {
        "tell": "success",
        "fail": "failed",
    }
    return run_id, waiting


def shows_nothing(text):
    found = [part for part in PARTS if part in text]
    assert not found, text[max(text.index(found[0]) - 300, 0) :][:600]
    return True


def mlflow_runs(server):
    client = MlflowClient(f"sqlite:///{server.home}/nemo/mlflow.db")
    experiment = client.get_experiment_by_name("secrets")
    runs = client.search_runs([experiment.experiment_id])
    return client, {
        run.data.tags.get("airflow.task_id", ""): run for run in runs if "mlflow.parentRunId" in run.data.tags
    }


def test_the_job_itself_has_the_secret(server, run):
    run_id, _ = run
    result = server.xcom("secrets", run_id, "tell")
    assert result["digest"] == hashlib.sha256(SECRET.encode()).hexdigest()


def test_what_it_returns_reports_and_writes_is_masked(server, run):
    run_id, _ = run
    assert server.xcom("secrets", run_id, "tell")["token"] == "***"
    for task_id in ("tell", "fail"):
        lines = [str(record.get("event")) for record in server.log("secrets", run_id, task_id, 1)]
        assert all(shows_nothing(line) for line in lines)
        assert any("***" in line for line in lines)
    assert "*** <- slowly" in [str(record.get("event")) for record in server.log("secrets", run_id, "tell", 1)]


def test_airflows_api_shows_it_nowhere(server, run):
    run_id, waiting = run
    if waiting["state"] == "deferred":
        assert waiting["trigger"]["kwargs"]
    assert shows_nothing(json.dumps(waiting))
    assert shows_nothing(json.dumps(server.tasks("secrets", run_id)))
    for task_id in ("tell", "fail"):
        path = f"/dags/secrets/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries"
        for entry in server.call("GET", path)["xcom_entries"]:
            assert shows_nothing(json.dumps(server.xcom("secrets", run_id, task_id, entry["key"])))


def test_mlflow_has_it_nowhere(server, run):
    client, runs = mlflow_runs(server)
    tell = runs["tell"]
    assert tell.data.params["token"] == "***"
    assert tell.data.params["header"] == "Bearer ***"
    assert "nemo_airflow.param_conflicts" not in tell.data.tags
    assert tell.data.tags["tagged"] == "***"
    assert tell.data.tags["spoken"] == "token=***"
    assert "401 Unauthorized for ***" in runs["fail"].data.tags["nemo_airflow.error"]
    for task_id, names in {"tell": ("plan.json", "job_script.txt", "log.txt"), "fail": ("traceback.txt",)}.items():
        run = runs[task_id]
        assert shows_nothing(json.dumps(run.to_dictionary()))
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(client.download_artifacts(run.info.run_id, "", folder))
            assert {f"nemo_airflow/{name}" for name in names} <= {
                file.relative_to(kept).as_posix() for file in kept.rglob("*")
            }
            assert all(shows_nothing(file.read_text(errors="replace")) for file in kept.rglob("*") if file.is_file())


def test_the_record_of_the_job_is_of_the_masked_config(server, run):
    run_id, _ = run
    _, runs = mlflow_runs(server)
    record = server.xcom("secrets", run_id, "tell", "nemo_job")
    assert record["config"]["token"] == "***"
    assert record["plan_digest"] == runs["tell"].data.tags["nemo_airflow.plan_digest"]
    digest = record["plan_digest"]
    kept = json.loads((server.home / "nemo" / "configs" / digest[:2] / f"{digest}.json").read_text())
    assert kept["root"]["header"] == "Bearer ***"


def test_no_file_but_the_jobs_own_has_it(server, run):
    jobs = server.home / "nemo" / "jobs"
    assert any(SECRET in json.loads(file.read_text())["env"].values() for file in jobs.glob("*/job.json"))
    files = [file for file in server.home.rglob("*") if file.is_file() and file.name != "job.json"]
    assert any(file.parent.parent == jobs and file.name == "log" for file in files)
    for file in files:
        if file.parts[-2:] != ("dags", "plugin_dags.py"):
            data = file.read_bytes()
            found = [part for part in PARTS if part.encode() in data]
            assert not found, (file, data[max(data.index(found[0].encode()) - 200, 0) :][:400])
