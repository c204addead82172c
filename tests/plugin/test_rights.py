"""Who may use each route of the API: all routes of its OpenAPI document, so that a new one cannot be forgotten."""

import json

import pytest
from api_routes import DOCUMENT, READING, ROUTES, WRITING, example, named

OF_ADMINISTRATORS = "back-ends"
"""Part of the paths of routes that ask for other rights than those of a DAG."""


def ways(route):
    """Returns the ways in which a route can be told of a job."""
    names = {parameter["name"] for parameter in DOCUMENT["paths"][route[0]][route[1]].get("parameters", ())}
    if "mlflow_run_id" not in names:
        return ["place"]
    return ["place", "mlflow_run_id"] if "dag_id" in names else ["mlflow_run_id"]


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_nobody_is_answered_without_a_log_in(call, route):
    assert call(route).status_code == 401


@pytest.mark.parametrize("user", ["otto", "uma", "rita", "nora"])
@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_who_may_not_see_the_jobs_of_a_dag_is_told_nothing_of_them(call, known, route, user):
    for by in ways(route):
        answer = call(route, user, by=by)
        assert answer.status_code in (200, 403, 404), answer.text
        told = answer.text
        for name in ("key", "mlflow_run_id", "dag_run_id"):
            assert known("private")[name] not in told
        if route in WRITING and answer.status_code == 200:
            assert "refused" in told or "may not" in told


@pytest.mark.parametrize("route", READING, ids=named)
def test_who_may_see_them_reads_all(call, route):
    for by in ways(route):
        for user, dag_id in (("vera", "private"), ("rita", "shown")):
            answer = call(route, user, dag_id, by)
            refused = OF_ADMINISTRATORS in route[0]
            assert answer.status_code == 403 if refused else answer.status_code in (200, 404), answer.text


@pytest.mark.parametrize("route", WRITING, ids=named)
def test_who_may_only_read_changes_nothing(call, route):
    for by in ways(route):
        answer = call(route, "vera", by=by)
        assert answer.status_code == 403 or "may not" in answer.text, answer.text


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
@pytest.mark.parametrize("route", WRITING, ids=named)
def test_what_another_site_can_send_is_no_action(call, known, route, kind):
    """Airflow has no CSRF token: neither a form nor a text may do anything, even of a user who may do all."""
    [content] = DOCUMENT["paths"][route[0]][route[1]]["requestBody"]["content"].items()
    assert content[0] == "application/json"
    body = json.dumps(example(content[1]["schema"], known("shown"))).encode()
    answer = call(route, "ann", "shown", content=body, kind=kind)
    assert answer.status_code == 422, answer.text


def test_no_route_that_reads_has_a_body():
    assert not [route for route in READING if "requestBody" in DOCUMENT["paths"][route[0]][route[1]]]
