"""A backfill of the example by Airflow's own command: it evaluates twice the same, and leaves the champion alone."""

import subprocess
import sys

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

DAG = "retrain_digits"
WEEK = ["--from-date", "2026-03-01", "--to-date", "2026-03-07"]


def backfill(server, *options):
    """Returns the tasks' results, by task and key, of the one run of a backfill."""
    done = len(completed(server))
    command = [sys.executable, "-m", "airflow", "backfill", "create", "--dag-id", DAG, *WEEK, *options]
    subprocess.run(command, env=server.env, check=True, capture_output=True, text=True)
    server.wait(lambda: len(completed(server)) > done, "the end of the backfill")
    [run] = server.call("GET", f"/dags/{DAG}/dagRuns?run_type=backfill")["dag_runs"]
    run_id = run["dag_run_id"]
    assert run["state"] == "success", server.tasks(DAG, run_id)
    return server.xcom(DAG, run_id, "compare"), server.xcom(DAG, run_id, "decide", "decision")


def completed(server):
    return [each for each in server.call("GET", f"/backfills?dag_id={DAG}")["backfills"] if each["completed_at"]]


def champion(client):
    try:
        return client.get_model_version_by_alias("digits", "champion").version
    except MlflowException:  # there is none
        return None


@pytest.mark.timeout(900)
def test_a_backfill_evaluates_twice_the_same_and_promotes_nothing(airflow_server):
    client = MlflowClient(f"sqlite:///{airflow_server.home}/nemo/mlflow.db")
    before = champion(client)
    airflow_server.unpause(DAG)

    first, decided = backfill(airflow_server)
    assert decided["reason"] == "a backfill only evaluates: the data is that before 2026-03-08"
    assert (decided["decision"], decided["cause"]) == ("refuse", "a backfill")
    assert client.get_model_version("digits", decided["version"]).tags["reason"] == decided["reason"]

    again, decided_again = backfill(airflow_server, "--reprocess-behavior", "completed")
    assert decided_again["version"] != decided["version"]
    for side in ("challenger", "slices"):
        assert again[side] == first[side]
    assert champion(client) == before
