"""Jobs on a real Ray cluster whose dashboard is behind something that refuses, or answers in its place."""

import json

import pytest
from aiohttp import web
from job_cases import Following, collect_without_threads_of_others, script_job, wait_until, waiting_job
from lab.answering_proxy import AnsweringProxy, pass_all
from lab.ray_cluster import ray_address  # noqa: F401 - a fixture

from nemo_airflow import blocking
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable
from nemo_airflow.executors.ray import RayExecutor
from nemo_airflow.executors.ray.address import Endpoint
from nemo_airflow.executors.ray.api import RayApi
from nemo_airflow.job import JobHandle, JobState

# The fixture of the shared cluster comes by import.
# ruff: noqa: F811


@pytest.fixture
def proxy(ray_address):
    with AnsweringProxy(ray_address) as proxy:
        yield proxy


def demand(token):
    """Returns the answers of a gate that lets in who has the token."""

    def refuse_others(request):
        if request.headers.get("Authorization") == f"Bearer {token}":
            return None
        return web.Response(status=403, text="Forbidden: Invalid authentication token")

    return refuse_others


def test_token_that_is_replaced_ends_no_task_and_the_new_one_is_taken(proxy, tmp_path, monkeypatch):
    def connection_has(token):
        fields = {"conn_type": "ray", "host": proxy.url, "password": token}
        monkeypatch.setenv("AIRFLOW_CONN_GATED_RAY", json.dumps(fields))

    proxy.answer = demand("first")
    connection_has("first")
    executor = RayExecutor(ray_conn_id="gated_ray")
    following = Following(executor, waiting_job(tmp_path / "go"))
    following.wait_for_line("begun")
    proxy.answer = demand("second")
    following.wait_for_word("refused the login")
    with pytest.raises(AccessRefused, match="see the connection's password and headers"):
        blocking.run(following.driver.look([following.handle]))
    connection_has("second")
    assert blocking.run(following.driver.look([following.handle]))[following.handle.key].is_alive
    (tmp_path / "go").touch()
    assert following.end().status.state is JobState.SUCCEEDED
    assert following.lines == ["begun", "end"]
    assert any("tells again" in said for said in following.said)


def no_backend(request):
    """Answers as nginx does whose back-end is being replaced."""
    page = (
        "<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center><h1>404 Not Found</h1></center>\r\n"
    )
    return web.Response(status=404, text=page, content_type="text/html")


def sign_in_page(request):
    return web.Response(text="<html><head><title>Sign in</title></head></html>", content_type="text/html")


def sign_in_redirect(request):
    return web.Response(status=302, headers={"Location": "https://login.example.com/"})


def test_ingress_that_has_no_dashboard_for_a_while_loses_no_job(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_AIRFLOW_LOST_AFTER", "1")
    following = Following(RayExecutor(address=proxy.url), waiting_job(tmp_path / "go"))
    following.wait_for_line("begun")
    proxy.answer = no_backend
    following.wait_for_word("another server answers /api/jobs/")
    answered = proxy.answered
    wait_until(lambda: proxy.answered >= answered + 3, "three more such answers: enough to call a job lost")
    proxy.answer = pass_all
    (tmp_path / "go").touch()
    assert following.end().status.state is JobState.SUCCEEDED
    assert following.lines == ["begun", "end"]


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (no_backend, "HTTP 404: 404 Not Found"),
        (sign_in_page, "HTTP 200: a web page"),
        (sign_in_redirect, "HTTP 302: https://login.example.com/"),
    ],
)
def test_request_that_another_server_answers_is_not_taken_for_done(proxy, answer, what):
    executor = RayExecutor(address=proxy.url)
    driver, proxy.answer = executor.connect(), answer
    handles = [JobHandle(f"ray-{number}", "ray", f"ray-{number}") for number in range(5)]
    requests = [
        driver.submit(executor.render(script_job("true"))),
        driver.look(handles[:1]),
        driver.look(handles),
        driver.cancel(handles[:1]),
        driver.remove(handles[:1]),
        driver.survey(),
        RayApi(Endpoint(proxy.url)).submit({"submission_id": "ray-0"}),
        RayApi(Endpoint(proxy.url)).delete("ray-0"),
        RayApi(Endpoint(proxy.url)).has_package("code.zip"),
    ]
    for request in requests:
        with pytest.raises(BackendUnavailable, match=f"another server answers /api/.*{what}.* address"):
            blocking.run(request)
    proxy.answer = pass_all
    assert {seen.queue for seen in blocking.run(driver.look(handles[:1])).values()} == {None}
    blocking.run(driver.close())


def of_files(answer):
    """Returns answers to requests for files of a node alone."""
    return lambda request: answer(request) if request.path == "/api/v0/logs/file" else None


def test_web_page_in_the_place_of_a_log_is_not_taken_for_the_jobs_lines(proxy, tmp_path):
    following = Following(RayExecutor(address=proxy.url), waiting_job(tmp_path / "go"))
    following.wait_for_line("begun")
    proxy.answer = of_files(sign_in_page)
    following.wait_for_word("another server answers /api/v0/logs/file")
    (tmp_path / "go").touch()
    answered = proxy.answered
    wait_until(lambda: proxy.answered >= answered + 3, "three more such pages")
    proxy.answer = pass_all
    assert following.end().status.state is JobState.SUCCEEDED
    assert following.lines == ["begun", "end"]


def test_web_page_in_the_place_of_outputs_is_not_taken_for_them(proxy, tmp_path):
    following = Following(RayExecutor(address=proxy.url), script_job('echo 1 >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'))
    assert following.wait().succeeded
    proxy.answer = of_files(sign_in_page)
    with pytest.raises(BackendUnavailable, match="another server answers /api/v0/logs/file"):
        blocking.run(following.driver.collect(following.handle, tmp_path))
    assert not list(tmp_path.iterdir())
    proxy.answer = pass_all
    blocking.run(following.driver.collect(following.handle, tmp_path))
    assert (tmp_path / "model.bin").read_text() == "1\n"
    following.end()


def test_outputs_of_eight_jobs_at_once_need_no_thread_of_others(ray_address, tmp_path):
    executor = RayExecutor(address=ray_address)
    text = 'head -c 3000000 /dev/urandom >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'
    jobs = [Following(executor, script_job(text)) for _ in range(2)]
    assert [job.end().status.state for job in jobs] == [JobState.SUCCEEDED] * 2

    collected = collect_without_threads_of_others(executor, [job.handle for job in jobs], tmp_path)
    assert [[str(path) for path in paths] for paths in collected] == [["model.bin"]] * 8
    assert {path.stat().st_size for path in tmp_path.rglob("model.bin")} == {3_000_000}
