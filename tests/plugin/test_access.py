"""Who may see a job, however the request is written, and what is shown to nobody."""

import re
from urllib.parse import quote

import httpx
import pytest
from shared_airflow import PATCH_SECRET

ROUTES = pytest.mark.parametrize("route", ["api/v1/job", "api/v1/job/attempts"])


@pytest.fixture
def get(server, runs):
    """Gets a route of the plugin, for a task of a DAG."""

    def get(route, dag_id="private", token=None, cookie=None, query=None):
        query = query or {"dag_id": dag_id, "dag_run_id": runs.get(dag_id, ""), "task_id": "train"}
        return httpx.get(
            f"{server.url}/nemo-airflow/{route}",
            params=query,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            cookies={"_token": cookie} if cookie else {},
            timeout=300,
        )

    return get


@ROUTES
def test_nobody_sees_a_job_without_a_log_in(get, route):
    assert get(route).status_code == 401


@ROUTES
@pytest.mark.parametrize("way", ["token", "cookie"])
def test_a_token_that_airflow_did_not_sign_is_none(get, tokens, route, way):
    head, body, signature = tokens["ann"].split(".")
    assert get(route, **{way: f"{head}.{body}.{signature[::-1]}"}).status_code in (401, 403)
    assert get(route, **{way: "nonsense"}).status_code in (401, 403)


@ROUTES
def test_who_may_not_read_the_dag_sees_no_job_of_it(get, tokens, route):
    assert get(route, token=tokens["otto"]).status_code == 403
    assert get(route, cookie=tokens["otto"]).status_code == 403
    assert get(route, "shown", token=tokens["otto"]).status_code == 200


@ROUTES
def test_who_may_read_the_dag_but_no_xcoms_sees_no_job_of_it(get, tokens, route):
    assert get(route, token=tokens["uma"]).status_code == 403
    assert get(route, "shown", token=tokens["uma"]).status_code == 200


@ROUTES
@pytest.mark.parametrize("user", ["ann", "vera"])
def test_who_may_read_the_dag_sees_its_jobs(get, tokens, server, runs, route, user):
    key = server.xcom("private", runs["private"], "train", "nemo_job")["key"]
    for way in ("token", "cookie"):
        answer = get(route, **{way: tokens[user]})
        assert answer.status_code == 200
        assert key in answer.text


@ROUTES
@pytest.mark.parametrize(
    "others", [("shown", "private"), ("private", "shown"), ("private", "~"), ("~",), ("",), ("%",)]
)
def test_no_way_to_write_the_dag_id_leads_around_the_refusal(get, tokens, server, runs, route, others):
    key = server.xcom("private", runs["private"], "train", "nemo_job")["key"]
    query = [("dag_run_id", runs["private"]), ("task_id", "train"), *(("dag_id", other) for other in others)]
    answer = get(route, token=tokens["otto"], query=query)
    assert answer.status_code in (200, 403, 404)
    assert key not in answer.text


@pytest.mark.parametrize("route", ["api/v1/job", "api/v1/job/config", "api/v1/runs"])
def test_the_record_holds_no_patch_and_no_route_but_that_of_the_code_tells_it(get, tokens, server, runs, route):
    package = server.xcom("shown", runs["shown"], "train", "nemo_job")["package"]
    assert package["dirty"] is True
    assert "patch" not in package
    assert re.fullmatch("[0-9a-f]{64}", package["patch_digest"])
    assert PATCH_SECRET not in get(route, "shown", token=tokens["ann"]).text


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,hi", " javascript:alert(1)", "//e.example"])
def test_what_is_no_web_address_is_no_link(get, tokens, server, runs, address):
    record = server.xcom("hostile", runs["hostile"], "train", "nemo_job")
    put(server, runs["hostile"], {**record, "run": {**record["run"], "url": address}}, dag_id="hostile")
    answer = get("api/v1/job", "hostile", token=tokens["ann"])
    assert answer.status_code == 200
    assert address.strip() not in answer.text


def test_a_record_that_names_a_run_of_another_dag_shows_nothing_of_it(get, tokens, server, runs):
    """A record is an XCom: who may edit those of one DAG must not read the runs of another by it."""
    hidden = server.xcom("private", runs["private"], "train", "nemo_job")["run"]["run_id"]
    run_id = server.trigger("shown")
    server.wait(lambda: server.run("shown", run_id)["state"] == "success", "the run to end")
    record = server.xcom("shown", run_id, "train", "nemo_job")
    put(server, run_id, {**record, "run": {**record["run"], "run_id": hidden}})
    place = {"dag_id": "shown", "dag_run_id": run_id, "task_id": "train"}
    seen = {user: get("api/v1/job", token=tokens[user], query=place).json() for user in ("otto", "vera")}
    assert seen["vera"]["tracker"]["away"] == ""
    assert "you may not read" in seen["otto"]["tracker"]["away"]
    assert get("api/v1/job/metrics", token=tokens["vera"], query=place).json()["from_follower"] is False
    assert get("api/v1/job/metrics", token=tokens["otto"], query=place).json()["from_follower"] is True
    for route in ("job/code", "job/files", "job/notes"):
        assert get(f"api/v1/{route}", token=tokens["otto"], query=place).status_code == 503


@pytest.mark.parametrize("run_id", ["x", "../..", "0" * 32, "%00"])
def test_a_run_that_is_not_there_is_said_to_be_gone(get, tokens, run_id):
    answer = get("api/v1/job", token=tokens["ann"], query={"mlflow_run_id": run_id})
    assert (answer.status_code, "MLflow has no run" in answer.text) == (404, True)


def test_the_link_of_a_task_to_its_run_is_a_web_address(server, runs):
    def links(dag_id):
        return server.call("GET", f"/dags/{dag_id}/dagRuns/{runs[dag_id]}/taskInstances/train/links")["extra_links"]

    assert links("shown")["MLflow run"].startswith("https://mlflow.example/#/experiments/")
    assert links("hostile")["MLflow run"] is None


def test_links_of_a_task_lead_to_its_job_and_its_comparison(server, runs):
    links = server.call("GET", f"/dags/shown/dagRuns/{runs['shown']}/taskInstances/train/links")["extra_links"]
    assert links["Job"] == f"{server.url}/dags/shown/runs/{quote(runs['shown'])}/tasks/train/plugin/nemo_job"
    assert links["Compare with previous"] == f"{links['Job']}?section=config&changed=1"


def put(server, run_id, record, dag_id="shown"):
    """Writes a record over that of a task, as anybody may who may edit XComs."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/train/xcomEntries/nemo_job"
    server.call("PATCH", path, {"value": record})
