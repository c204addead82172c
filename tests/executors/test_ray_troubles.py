"""Jobs on a real Ray cluster whose dashboard is behind something that refuses, or answers in its place."""

import asyncio
import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp import web
from lab.answering_proxy import AnsweringProxy, pass_all
from lab.ray_cluster import ray_address  # noqa: F401 - a fixture

from nemo_airflow import blocking
from nemo_airflow.exceptions import AccessRefused, BackendUnavailable
from nemo_airflow.executors.ray import RayExecutor
from nemo_airflow.executors.ray.address import Endpoint
from nemo_airflow.executors.ray.api import RayApi
from nemo_airflow.follow import Follower
from nemo_airflow.job import Job, JobHandle, JobState

# The fixture of the shared cluster comes by import.
# ruff: noqa: F811


@pytest.fixture
def proxy(ray_address):
    with AnsweringProxy(ray_address) as proxy:
        yield proxy


def script_job(text):
    root = {"_target_": "nemo_airflow.runner.script:run", "inline": text}
    return Job(key=f"ray-{uuid.uuid4().hex[:20]}", name="script", plan={"version": 1, "root": root})


def waiting_job(file):
    return script_job(f"echo begun; until [ -e {file} ]; do sleep 0.1; done; echo end")


def wait_until(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.1)


class Following:
    """A job that is followed in a thread, beside the test."""

    def __init__(self, executor, job):
        self.lines, self.said, self.outcome = [], [], None
        self.driver = executor.connect()
        self.handle = blocking.run(self.driver.submit(executor.render(job)))
        self._follower = Follower(
            executor, self.handle, on_line=lambda line: self.lines.append(line.text), warn=self.said.append
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        self.outcome = blocking.run(self._follower.run(), 180)

    def end(self):
        self._thread.join()
        blocking.run(self.driver.close())
        return self.outcome

    def wait_for_line(self, text):
        self._wait_for(lambda: text in self.lines, f"{text!r} on the stream")

    def wait_for_word(self, text):
        self._wait_for(lambda: any(text in said for said in self.said), f"{text!r} to be said")

    def _wait_for(self, condition, what):
        wait_until(lambda: condition() or self.outcome, what)
        assert condition(), f"the job has ended before {what}: {self.outcome}; said: {self.said}"


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


def test_outputs_of_eight_jobs_at_once_need_no_thread_of_others(ray_address, tmp_path):
    executor = RayExecutor(address=ray_address)
    text = 'head -c 3000000 /dev/urandom >"$NEMO_AIRFLOW_OUTPUT_DIR/model.bin"'
    jobs = [Following(executor, script_job(text)) for _ in range(2)]
    assert [job.end().status.state for job in jobs] == [JobState.SUCCEEDED] * 2

    async def collect_all():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        drivers = [executor.connect() for _ in range(4)]
        over = threading.Event()
        try:
            loop.run_in_executor(None, over.wait)  # whatever others wait for
            collects = [
                driver.collect(job.handle, tmp_path / f"{number}-{job.handle.key}")
                for number, driver in enumerate(drivers)
                for job in jobs
            ]
            return await asyncio.wait_for(asyncio.gather(*collects), 60)
        finally:
            over.set()
            for driver in drivers:
                await driver.close()

    assert [[str(path) for path in paths] for paths in asyncio.run(collect_all())] == [["model.bin"]] * 8
    assert {path.stat().st_size for path in tmp_path.rglob("model.bin")} == {3_000_000}
