"""The list of all jobs in a browser, of an Airflow that is served below a path, and the jobs at a glance at home."""

import re

import httpx
import pytest
from playwright.sync_api import expect


@pytest.mark.timeout(900)
def test_the_list_is_searched_and_a_job_that_runs_is_stopped(server, runs, tokens, open_page, look, axe):
    endless = server.trigger("endless")
    headers = {"Authorization": f"Bearer {tokens['ann']}"}

    def newest():
        answer = httpx.get(f"{server.url}/nemo-airflow/api/v1/overview", headers=headers, timeout=300)
        return answer.raise_for_status().json()["newest"]

    server.wait(lambda: "endless" in str(newest()), "the job to be submitted")
    page = open_page("ann")
    said = []
    page.on("pageerror", lambda error: said.append(str(error)))

    # At a glance, at home; from there to the list.
    page.goto(f"{server.url}/")
    jobs = page.get_by_role("region", name="Jobs", exact=True)
    expect(jobs).to_contain_text(re.compile("[1-9]\\d* running"))
    jobs.get_by_role("link", name="All experiments").click()
    table = page.get_by_role("table", name="Jobs")
    for dag_id in ("shown", "private", "hostile", "endless"):
        expect(table.get_by_role("cell", name=dag_id, exact=True).first).to_be_visible()

    # Any metric and parameter is a column, and stands in the address.
    page.get_by_role("button", name="Columns").click()
    page.get_by_role("searchbox").fill("loss")
    page.get_by_label("metrics.loss").check()
    page.get_by_role("searchbox").fill("rate")
    page.get_by_label("params.rate").check()
    page.get_by_role("button", name="Close").click()
    expect(table.get_by_role("columnheader", name="rate")).to_be_visible()
    assert "column=metrics.loss&column=params.rate" in page.url
    page.get_by_label("Best by").first.fill("loss")
    page.keyboard.press("Enter")
    expect(page.get_by_text(re.compile(r"loss = 0\.\d"))).to_be_visible()
    expect(table.get_by_role("img", name="The best of all")).to_be_visible()
    look(page, "experiments", height=760)
    page.set_viewport_size({"width": 400, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    page.set_viewport_size({"width": 1280, "height": 1100})

    # Typing keeps the focus, though Airflow mounts a page anew at its first navigation.
    page.get_by_label("DAG", exact=True).press_sequentially("shown", delay=30)
    expect(page.get_by_label("DAG", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    expect(table.get_by_role("cell", name="private", exact=True)).to_have_count(0)
    expect(table.get_by_role("cell", name="shown", exact=True).first).to_be_visible()
    page.reload()
    expect(page.get_by_label("DAG", exact=True)).to_have_value("shown")
    expect(table.get_by_role("columnheader", name="loss", exact=True)).to_be_visible()
    page.get_by_role("button", name="More filters").click()
    page.get_by_label("name", exact=True).fill("loss")
    page.get_by_label("value", exact=True).fill("-1")
    page.get_by_role("button", name="Add").click()
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    page.get_by_role("button", name="Show all").first.click()

    # A job is stopped once that was asked: its task has failed, and Airflow's audit log tells who did it.
    row = table.get_by_role("row").filter(has=page.get_by_role("cell", name="endless", exact=True))
    expect(row).to_contain_text(re.compile("running|waiting"))
    row.get_by_role("checkbox").check()
    page.get_by_role("button", name="Stop", exact=True).click()
    asked = page.get_by_role("dialog", name="Stop 1 job?")
    expect(asked).to_contain_text("endless")
    asked.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("dialog", name="What was done")).to_contain_text("its job is being cancelled")
    page.get_by_role("button", name="Close").click()
    expect(row).to_contain_text("cancelled")  # "failed" until MLflow has its end
    server.wait(lambda: server.run("endless", endless)["state"] == "failed", "the run to fail")
    entries = httpx.get(
        f"{server.url}/api/v2/eventLogs", params={"dag_id": "endless"}, headers=headers, timeout=300
    ).json()
    assert [each["owner"] for each in entries["event_logs"] if each["event"] == "nemo_stop_job"] == ["ann"]

    # Side by side with others.
    for name in ("shown", "hostile"):
        page.get_by_role("row").filter(has=page.get_by_role("cell", name=name, exact=True)).first.get_by_role(
            "checkbox"
        ).check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url(re.compile("compare=[0-9a-f]{32}&compare=[0-9a-f]{32}"))
    assert not said


@pytest.mark.timeout(300)
def test_actions_say_for_each_job_what_was_done_and_who_may_not_is_refused(server, runs, tokens):
    place = {"dag_id": "shown", "dag_run_id": runs["shown"], "task_id": "train", "map_index": -1}
    other = {**place, "dag_id": "private", "dag_run_id": runs["private"]}

    def post(action, user, *places):
        headers = {"Authorization": f"Bearer {tokens[user]}"}
        address = f"{server.url}/nemo-airflow/api/v1/runs/{action}"
        return httpx.post(address, json={"places": places}, headers=headers, timeout=300)

    assert post("stop", "vera", place).status_code == 403
    [ended, gone] = post("stop", "ann", place, {**place, "task_id": "none"}).json()["jobs"]
    assert (ended["done"], ended["message"]) == (False, "The task has ended already: success.")
    assert (gone["done"], gone["message"]) == (False, "Airflow has no job of this task any more.")
    # A user may stop tasks, and not see the jobs of one DAG.
    [refused, seen] = post("stop", "uma", other, place).json()["jobs"]
    assert "may not" in refused["message"]
    assert seen["message"] == ended["message"]
