"""The jobs of a DAG run and the back-ends, in a browser."""

import json
import socket
import time
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from nemo_airflow import LocalExecutor, blocking
from nemo_airflow.job import Job

PASSWORD = "back-end-password-0815"


@pytest.mark.timeout(600)
def test_the_jobs_of_a_dag_run_are_drawn_and_listed(server, runs, open_page, look):
    page = open_page("vera")
    page.goto(f"{server.url}/dags/shown/runs/{quote(runs['shown'])}/plugin/nemo_jobs")
    graph = page.get_by_role("group", name="Graph of the tasks with jobs")
    expect(graph.get_by_role("link", name="train")).to_contain_text("succeeded")
    row = page.get_by_role("table", name="All jobs").get_by_role("row", name="train")
    expect(row).to_contain_text("local")
    expect(page.get_by_text("1 job", exact=True)).to_be_visible()
    look(page, "dag-run")
    page.set_viewport_size({"width": 400, "height": 800})
    expect(row).to_be_attached()
    page.set_viewport_size({"width": 1280, "height": 1100})
    graph.get_by_role("link", name="train").click()
    page.wait_for_url("**/tasks/train/plugin/nemo_job")


@pytest.fixture
def dead_connection(server):
    """A connection to a port where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = taken.getsockname()[1]
        about = {"connection_id": "dead_end", "conn_type": "nemo_slurm", "host": "127.0.0.1", "port": port}
        extra = json.dumps({"private_key_passphrase": PASSWORD})
        server.call("POST", "/connections", {**about, "login": "hpc", "password": PASSWORD, "extra": extra})
        yield port
        server.call("DELETE", "/connections/dead_end", accept="*/*")


@pytest.fixture
def orphan(server, runs):
    """A job that runs on this machine, whose task has ended."""
    record = server.xcom("shown", runs["shown"], "train", "nemo_job")
    jobs = server.home / "nemo" / "jobs"
    labels = json.loads((jobs / record["key"] / "job.json").read_text())["labels"]
    executor = LocalExecutor(root=str(jobs), grace=1)
    plan = {"version": 1, "root": {"_target_": "time:sleep", "_args_": [600]}}
    driver = executor.connect()
    job = Job(key="orphan-of-shown", name="sleep", plan=plan, allow=("time:sleep",), labels=labels)
    handle = blocking.run(driver.submit(executor.render(job)))
    # Submitted so long ago that the state of its task does not change any more.
    claim = jobs / handle.key / "claim"
    claim.write_text(json.dumps({**json.loads(claim.read_text()), "ts": time.time() - 3600}))
    yield handle
    blocking.run(driver.cancel([handle]))


@pytest.mark.timeout(600)
def test_back_ends_are_examined_and_an_orphan_is_ended(server, orphan, dead_connection, open_page, look):
    page = open_page("ann")
    answers = []
    page.on("response", lambda answer: answers.append(answer) if "/api/v1/back-ends" in answer.url else None)
    page.goto(f"{server.url}/plugin/nemo_back_ends")

    dead = page.get_by_role("region", name="dead_end")
    expect(dead).to_contain_text("jobs cannot run there")
    expect(dead).to_contain_text(f"cannot connect to hpc@127.0.0.1:{dead_connection}")

    expect(page.get_by_role("region", name="exported", exact=True)).to_contain_text("cannot connect to")
    expect(page.get_by_role("region", name="of_a_vault")).to_contain_text("connection 'of_a_vault' is not defined")
    assert not page.get_by_role("region", name="exported_http").count(), "no executor uses it"

    local = page.get_by_role("region", name="local", exact=True)
    expect(local).to_contain_text("works")
    expect(local.get_by_role("row", name="shown.train")).to_contain_text("orphan: task is success")
    page.get_by_role("button", name="Count").click()
    disk = page.get_by_role("table", name="Disk")
    expect(disk.get_by_role("row", name="Folders of jobs on local")).to_contain_text("0 folders of jobs that ended")
    look(page, "back-ends")

    local.get_by_role("button", name="End 1 orphan").click()
    asked = page.get_by_role("dialog", name="End orphans on local?")
    expect(asked).to_contain_text("shown.train")
    asked.get_by_role("button", name="End 1 orphan").click()
    expect(page.get_by_text("1 of 1 jobs told to end.")).to_be_visible()
    expect(local.get_by_text("no jobs of ours there")).to_be_visible()
    end = json.loads((server.home / "nemo" / "jobs" / orphan.key / "end.json").read_text())
    assert end["state"] == "cancelled"

    assert not [answer.url for answer in answers if PASSWORD in answer.text()]
    [logged] = server.call("GET", "/eventLogs?event=nemo_reap_orphans")["event_logs"]
    assert logged["owner"] == "ann"
    assert orphan.key in logged["extra"]


@pytest.mark.timeout(600)
def test_who_may_not_read_connections_is_told_so(server, open_page):
    page = open_page("vera")
    page.goto(f"{server.url}/plugin/nemo_back_ends")
    expect(page.get_by_role("alert")).to_contain_text("You may not read connections in Airflow")
