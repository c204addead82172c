"""Who may see a job's page, and what no page nor its JSON shows to anybody."""

import hashlib
import re
from urllib.parse import quote

import httpx
import pytest
from shared_airflow import PATCH_SECRET

ROUTES = pytest.mark.parametrize("route", ["job", "api/job"])


@pytest.fixture
def get(server, runs):
    """Gets a route of the plugin, for a task of a DAG."""

    def get(route, dag_id="private", token=None, cookie=None, query=None):
        query = query or {"dag_id": dag_id, "run_id": runs.get(dag_id, ""), "task_id": "train"}
        return httpx.get(
            f"{server.url}/nemo-airflow/{route}",
            params=query,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            cookies={"_token": cookie} if cookie else {},
            timeout=60,
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
    query = [("run_id", runs["private"]), ("task_id", "train"), *(("dag_id", other) for other in others)]
    answer = get(route, token=tokens["otto"], query=query)
    assert answer.status_code in (200, 403, 404)
    assert key not in answer.text


@ROUTES
def test_neither_page_nor_json_holds_the_patch(get, tokens, server, runs, route):
    package = server.xcom("shown", runs["shown"], "train", "nemo_job")["package"]
    assert package["dirty"] is True
    assert "patch" not in package
    assert re.fullmatch("[0-9a-f]{64}", package["patch_digest"])
    assert PATCH_SECRET not in get(route, "shown", token=tokens["ann"]).text


def test_the_patch_of_an_earlier_releases_record_stays_where_it_is(get, tokens, server, runs):
    record = server.xcom("shown", runs["shown"], "train", "nemo_job")
    run_id = server.trigger("shown")
    server.wait(lambda: server.run("shown", run_id)["state"] == "success", "the run to end")
    put(server, run_id, {**record, "package": {**record["package"], "patch": PATCH_SECRET}})
    answer = get("api/job", token=tokens["ann"], query={"dag_id": "shown", "run_id": run_id, "task_id": "train"})
    assert PATCH_SECRET not in answer.text
    assert answer.json()["package"]["patch_digest"] == hashlib.sha256(PATCH_SECRET.encode()).hexdigest()


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,hi", " javascript:alert(1)", "//e.example"])
def test_what_is_no_web_address_is_no_link(get, tokens, server, runs, address):
    record = server.xcom("hostile", runs["hostile"], "train", "nemo_job")
    put(server, runs["hostile"], {**record, "run": {**record["run"], "url": address}}, dag_id="hostile")
    page = get("job", "hostile", token=tokens["ann"]).text
    assert record["run"]["run_id"] in page
    assert "<a" not in page


def test_the_link_of_a_task_to_its_run_is_a_web_address(server, runs):
    def links(dag_id):
        return server.call("GET", f"/dags/{dag_id}/dagRuns/{runs[dag_id]}/taskInstances/train/links")["extra_links"]

    assert links("shown")["MLflow run"].startswith("https://mlflow.example/#/experiments/")
    assert links("hostile")["MLflow run"] is None


def test_links_of_a_task_lead_to_its_job_and_its_comparison(server, runs, tokens):
    links = server.call("GET", f"/dags/shown/dagRuns/{runs['shown']}/taskInstances/train/links")["extra_links"]
    assert links["Job"] == f"{server.url}/dags/shown/runs/{quote(runs['shown'])}/tasks/train/plugin/nemo_job"
    answer = httpx.get(
        links["Compare with previous"], headers={"Authorization": f"Bearer {tokens['ann']}"}, timeout=300
    )
    assert answer.status_code == 200
    assert 'id="config"' in answer.text


def test_the_page_runs_its_own_script_alone(get, tokens):
    answer = get("job", "shown", token=tokens["ann"])
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]+'", policy["script-src"])
    assert "unsafe" not in str(policy)
    assert not re.findall(r"<[^>]+\son\w+=", answer.text)


def put(server, run_id, record, dag_id="shown"):
    """Writes a record over that of a task, as anybody may who may edit XComs."""
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/train/xcomEntries/nemo_job"
    server.call("PATCH", path, {"value": record})
