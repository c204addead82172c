"""An MLflow that is away, or silent, costs a page its part of it, and Airflow nothing."""

import concurrent.futures
import socket

import httpx
import pytest
from api_routes import READING, named

ASKED = 40
"""Requests at one time: as many as Airflow's API server has threads."""


@pytest.fixture(scope="module")
def silent():
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(scope="module")
def closed():
    """A port at which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


def has_job_with_mlflow_at(server, end_of, conn_id, port):
    """Returns the run of a job whose MLflow is at this port by now."""
    connection = {"connection_id": conn_id, "conn_type": "http", "host": "127.0.0.1", "port": port}
    server.call("POST", "/connections", connection)
    run_id = server.trigger("shown")
    assert end_of("shown", run_id) == "success"
    record = server.xcom("shown", run_id, "train", "nemo_job")
    record["run"] = {**record["run"], "conn_id": conn_id, "uri": f"http://127.0.0.1:{port}"}
    entry = f"/dags/shown/dagRuns/{run_id}/taskInstances/train/xcomEntries/nemo_job"
    server.call("PATCH", entry, {"value": record, "map_index": -1})
    return run_id


@pytest.fixture(scope="module")
def job_away(server, end_of, closed):
    return has_job_with_mlflow_at(server, end_of, "mlflow_away", closed)


@pytest.mark.parametrize("route", READING, ids=named)
def test_each_route_says_in_a_line_that_mlflow_is_away_or_shows_what_airflow_knows(
    call,
    known,
    job_away,
    monkeypatch,
    route,
):
    monkeypatch.setitem(known("shown"), "dag_run_id", job_away)
    answer = call(route, "ann", "shown")
    assert answer.status_code in (200, 404, 503), answer.text
    if answer.status_code != 200:
        assert "\n" not in answer.json()["detail"]
    if answer.status_code == 503:
        assert answer.json()["detail"].startswith("MLflow does not answer: ")
        assert "cannot be reached" in answer.json()["detail"]


def test_the_page_of_a_job_tells_why_its_metrics_are_missing(call, known, job_away, monkeypatch):
    monkeypatch.setitem(known("shown"), "dag_run_id", job_away)
    [route] = [route for route in READING if route[0].endswith("/job")]
    job = call(route, "ann", "shown").json()
    assert job["state"] == "succeeded"
    assert "cannot be reached" in job["tracker"]["away"]


def test_a_silent_mlflow_leaves_airflow_its_threads_and_is_not_asked_by_everyone(server, end_of, tokens, silent):
    run_id = has_job_with_mlflow_at(server, end_of, "mlflow_silent", silent)
    place = {"dag_id": "shown", "dag_run_id": run_id, "task_id": "train"}
    headers = {"Authorization": f"Bearer {tokens['ann']}"}

    def ask(_):
        url = f"{server.url.rstrip('/')}/nemo-airflow/api/v1/job"
        return httpx.get(url, params=place, headers=headers, timeout=300).json()["tracker"]["away"]

    with concurrent.futures.ThreadPoolExecutor(ASKED) as threads:
        asked = [threads.submit(ask, number) for number in range(ASKED)]
        for _ in range(3):
            assert server.run("shown", run_id)["state"] == "success"
        assert not any(each.done() for each in asked)
        said = [each.result() for each in asked]
    assert all("ReadTimeout" in each for each in said)
    assert sum("it is asked again in" in each for each in said) >= ASKED / 2
