"""Airflow's Test button of a connection examines the back-end, and says what mends it."""

import json

import httpx
import pytest
from airflow.models import Connection
from lab.connections import ssh_connection
from lab.logins import own_login
from lab.sky_server import sky_server  # noqa: F401 - a fixture

from nemo_airflow import SkypilotExecutor, SlurmExecutor
from nemo_airflow.doctor.back_ends import examine_executor
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.executors.skypilot import server
from nemo_airflow.hooks.back_ends import SlurmHook

# ruff: noqa: F811


def press(monkeypatch, **fields):
    """Does what Airflow does for the button: the connection is in the environment for as long as it is tested."""
    extra = {name: value for name, value in fields.pop("extra", {}).items() if value is not None}
    connection = Connection(conn_id="pressed", extra=json.dumps(extra), **fields)
    monkeypatch.setenv("AIRFLOW_CONN_PRESSED", connection.get_uri())
    return connection.test_connection()


@pytest.fixture
def cluster(lab, lab_slurm):
    with own_login(lab, lab_slurm) as login:
        fields = json.loads(ssh_connection(login.ssh))
        yield login, {**fields, "conn_type": "nemo_slurm", "extra": json.loads(fields["extra"])}


def test_a_cluster_that_is_well_and_a_connection_that_an_executor_takes(cluster, monkeypatch):
    _login, fields = cluster
    well, text = press(monkeypatch, **fields)
    assert well, text
    assert "ok sbatch: " in text
    assert "ok partition, account and resources: " in text
    findings = examine_executor(SlurmExecutor(ssh_conn_id="pressed", root="~/other"))
    assert not [finding for finding in findings if finding.verdict == "fail"]


def test_what_is_broken_comes_first_with_what_mends_it(cluster, monkeypatch):
    login, fields = cluster
    login.replace("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    well, text = press(monkeypatch, **{**fields, "extra": {**fields["extra"], "partition": "nope"}})
    assert not well
    lines = text.splitlines()
    failed = [line for line in lines if line.startswith("fail ")]
    assert lines[: len(failed)] == failed
    assert {line.partition(":")[0] for line in failed} == {"fail queue", "fail partition, account and resources"}
    assert all("; to mend it: " in line for line in failed)


def test_a_ray_cluster_that_is_away_is_said(monkeypatch):
    well, text = press(monkeypatch, conn_type="nemo_ray", host="http://127.0.0.1:9")
    assert not well
    assert text.startswith("fail reached: ")
    assert "127.0.0.1:9" in text


def test_an_mlflow_server_that_is_away_is_said_without_its_password(monkeypatch):
    well, text = press(
        monkeypatch, conn_type="mlflow", host="http://127.0.0.1", port=9, login="ann", password="sesame-4711"
    )
    assert not well
    assert text.startswith("fail MLflow: ")
    assert "sesame" not in text


def test_skypilots_server_is_that_of_the_connection_and_one_for_a_process(sky_server, monkeypatch):
    for name in ("_default", "_chosen"):  # as in a new process: the tests of another file have a server of their own
        monkeypatch.setattr(server, name, None)
    well, text = press(monkeypatch, conn_type="nemo_skypilot", host=sky_server.url)
    assert (well, text.splitlines()[0][:12]) == (True, "ok reached: ")
    assert SkypilotExecutor(skypilot_conn_id="pressed").connection_key() != SkypilotExecutor().connection_key()
    well, text = press(monkeypatch, conn_type="nemo_skypilot", host="elsewhere.example")
    assert not well
    assert "names http://elsewhere.example:46580, but this process talks to" in text


def test_a_connection_without_a_host_is_said(monkeypatch):
    for conn_type in ("nemo_ray", "nemo_slurm"):
        well, text = press(monkeypatch, conn_type=conn_type)
        assert not well
        assert "pressed" in text
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "postgres://h")
    with pytest.raises(SettingsError, match="has the type 'postgres', which no executor uses: set it to nemo_slurm"):
        SlurmHook("other").get_conn()


def test_airflow_runs_the_test_in_a_worker_and_tells_what_it_found(airflow_server, tokens):
    address, login = "/api/v2/connections/enqueue-test", {"Authorization": f"Bearer {tokens['ann']}"}
    with httpx.Client(base_url=airflow_server.url, headers=login, timeout=300) as client:
        away = {"connection_id": "away", "conn_type": "nemo_ray", "host": "http://127.0.0.1:9"}
        asked = client.post(address, json=away)
        assert asked.status_code == 202, asked.text

        def found():
            answer = client.get(address, headers={"Airflow-Connection-Test-Token": asked.json()["token"]})
            test = answer.raise_for_status().json()
            return test if test["state"] in ("success", "failed") else None

        test = airflow_server.wait(found, "the end of the test of a connection")
    assert test["state"] == "failed"
    assert test["result_message"].startswith("fail reached: ")
