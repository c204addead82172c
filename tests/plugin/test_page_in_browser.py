"""The Job tab in a browser, of an Airflow that is served below a path."""

from urllib.parse import quote

import pytest
from playwright.sync_api import expect


@pytest.fixture
def page(open_page):
    page = open_page("vera")
    # The page of MLflow that the job's page leads to.
    page.context.route("https://mlflow.example/**", lambda route: route.fulfill(body="<h1>MLflow</h1>"))
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    return page


@pytest.mark.timeout(600)
def test_the_job_tab_below_a_path_compares_runs_and_its_link_opens(server, runs, page, tmp_path):
    newer = server.trigger("shown", {"rate": 0.25})
    server.wait(lambda: server.run("shown", newer)["state"] == "success", "the run to end")
    record = server.xcom("shown", newer, "train", "nemo_job")

    page.goto(f"{server.url}/dags/shown/runs/{quote(newer)}/tasks/train")
    page.get_by_role("link", name="Job", exact=True).click()
    frame = page.frame_locator("iframe")
    expect(frame.get_by_text(record["key"])).to_be_visible()
    expect(frame.locator("#config").get_by_role("row", name="rate")).to_contain_text("0.25")
    expect(frame.locator("pre.tree").first).to_contain_text("rate")

    # A choice needs no button where scripts run, and what it leads to is below the path as well.
    expect(frame.get_by_role("button", name="Compare")).to_be_hidden()
    frame.get_by_label("Compared with").select_option(runs["shown"])
    expect(frame.locator("#changes")).to_contain_text(runs["shown"])
    expect(frame.get_by_label("Compared with")).to_have_value(runs["shown"])
    expect(frame.locator("#changes").get_by_role("row", name="rate")).to_contain_text("0.1")
    page.screenshot(path=tmp_path / "job.png")

    # Airflow's frame allows no window: the link opens one all the same.
    with page.context.expect_page() as opened:
        frame.get_by_role("link", name="https://mlflow.example/").click()
    expect(opened.value.get_by_role("heading", name="MLflow")).to_be_visible()
    assert opened.value.url == record["run"]["url"]
    assert opened.value.evaluate("window.opener") is None
    assert frame.get_by_text(record["key"]).is_visible()

    assert not [text for text in page.said if "Content Security Policy" in text or text.startswith("Blocked")]


@pytest.mark.timeout(600)
def test_the_page_alone_is_whole_as_well(server, runs, page):
    page.goto(f"{server.url}/nemo-airflow/job?dag_id=shown&run_id={quote(runs['shown'])}&task_id=train")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="https://mlflow.example/").click()
    expect(opened.value.get_by_role("heading", name="MLflow")).to_be_visible()
    assert not [text for text in page.said if "Content Security Policy" in text]
