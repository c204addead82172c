"""A secret that a job is given by its name, in a deferred task of a real Airflow: only the job's environment has it."""

import contextlib
import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient

SECRET = 'N4med/t0ken "+" bar|el'
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nQEFAASCBKcwggSjAgEAAoIB\n-----END KEY-----\n"
PARTS = ("N4med", "bar|el", "bar%7Cel", "MIIEvQIBADANBgkqhkiG9w0B", "QEFAASCBKcwggSjAgEAAoIB")


def found_in(text):
    return [part for part in PARTS if part in text]


def command_lines():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text(errors="replace")


@pytest.fixture(scope="module")
def run(server, end_of):
    """The run of the DAG, what the API told of its task while that was deferred, and the command lines then."""
    extra = json.dumps({"key": KEY})
    connection = {"connection_id": "named", "conn_type": "http", "password": SECRET, "extra": extra}
    server.call("POST", "/connections", connection)
    run_id = server.trigger("named_secrets")
    waiting = server.wait(
        lambda: (task := server.task("named_secrets", run_id, "tell"))["state"] in ("deferred", "failed") and task,
        "the task to be deferred",
    )
    lines = list(command_lines())
    Path(f"{server.env['PLUGIN_TEST_GO']}-named").touch()
    assert end_of("named_secrets", run_id) == "failed"  # one of its two tasks
    return run_id, waiting, lines


def test_the_job_has_them_and_what_comes_back_is_masked(server, run):
    run_id, _, _ = run
    assert server.xcom("named_secrets", run_id, "tell") == {
        "token": "***",
        "digests": [hashlib.sha256(text.encode()).hexdigest() for text in (SECRET, KEY)],
    }
    lines = [str(record.get("event")) for record in server.log("named_secrets", run_id, "tell", 1)]
    assert [line for line in lines if found_in(line)] == []
    assert any(line.startswith("the token is ***") for line in lines)
    assert lines.count("a line: ***") == 4


def test_no_command_line_has_them_while_the_task_waits(run):
    _, waiting, lines = run
    assert waiting["state"] == "deferred"
    assert any("runner/__main__.py" in line for line in lines)
    assert [line for line in lines if found_in(line)] == []


def test_airflows_api_shows_names_alone(server, run):
    run_id, waiting, _ = run
    assert json.loads(json.dumps(waiting["trigger"]))["kwargs"]
    shown = json.dumps(waiting) + json.dumps(server.tasks("named_secrets", run_id))
    path = f"/dags/named_secrets/dagRuns/{run_id}/taskInstances/tell/xcomEntries"
    for entry in server.call("GET", path)["xcom_entries"]:
        shown += json.dumps(server.xcom("named_secrets", run_id, "tell", entry["key"]))
    assert "rendered_fields" in shown
    assert found_in(shown) == []


def test_mlflow_has_them_nowhere(server, run):
    client = MlflowClient(f"sqlite:///{server.home}/nemo/mlflow.db")
    experiment = client.get_experiment_by_name("named_secrets")
    runs = {run.data.tags.get("airflow.task_id"): run for run in client.search_runs([experiment.experiment_id])}
    run = runs["tell"]
    assert run.data.tags["spoken"] == "token=***"
    assert found_in(json.dumps(run.to_dictionary())) == []
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(client.download_artifacts(run.info.run_id, "", folder))
        files = {file.relative_to(kept).as_posix(): file.read_text(errors="replace")
                 for file in kept.rglob("*") if file.is_file()}  # fmt: skip
    assert {"nemo_airflow/plan.json", "nemo_airflow/job_script.txt", "nemo_airflow/log.txt"} <= files.keys()
    assert "# secret TOKEN=<secret of connection 'named'>" in files["nemo_airflow/job_script.txt"]
    assert [name for name, text in files.items() if found_in(text)] == []
    assert "without" not in runs  # a job that was never submitted has no run


def test_no_file_of_this_airflow_has_them(server, run):
    files = [file for file in server.home.rglob("*") if file.is_file()]
    assert any(file.name == "job.json" for file in files)
    assert any(file.name == "airflow.db" for file in files)
    assert [file for file in files if found_in(file.read_bytes().decode(errors="replace"))] == []


def test_a_task_whose_secret_is_not_there_fails_at_once_with_the_name_and_what_to_do(server, run):
    run_id, _, _ = run
    assert server.task("named_secrets", run_id, "without")["try_number"] == 1
    log = json.dumps(server.log("named_secrets", run_id, "without", 1))
    assert "secret TOKEN: connection 'nobody' is not defined: add it with `airflow connections add nobody" in log
