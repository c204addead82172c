"""The tab of a job in a browser, of an Airflow that is served below a path."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect


@pytest.fixture
def page(open_page):
    page = open_page("vera")
    # The page of MLflow that the job's page leads to.
    page.context.route("https://mlflow.example/**", lambda route: route.fulfill(body="<h1>MLflow</h1>"))
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    return page


@pytest.mark.timeout(900)
def test_a_job_tells_what_it_is_and_what_has_changed(server, runs, page, look):
    newer = server.trigger("shown", {"rate": 0.25})
    server.wait(lambda: server.run("shown", newer)["state"] == "success", "the run to end")
    record = server.xcom("shown", newer, "train", "nemo_job")
    page.goto(f"{server.url}/dags/shown/runs/{quote(newer)}/tasks/train")
    page.get_by_role("link", name="Job", exact=True).click()
    main = page.locator("main.nemo")

    expect(main.get_by_text(record["key"])).to_be_visible()
    expect(main.get_by_role("region", name="Phases").get_by_text("running")).to_be_visible()
    look(page, "job")

    main.get_by_role("tab", name="Config", exact=True).click()
    rate = main.get_by_role("treeitem", name="rate", exact=False)
    expect(rate).to_contain_text(re.compile(r"0\.\d+ → 0\.25"))  # since the run before
    assert "section=config" in page.url
    look(page, "job-config")

    main.get_by_role("tab", name="Metrics", exact=True).click()
    expect(main.get_by_text("loss").first).to_be_visible()
    look(page, "job-metrics")
    main.get_by_role("tab", name="System", exact=True).click()
    expect(main.get_by_role("tabpanel")).not_to_contain_text("Loading")

    # What leads out of Airflow opens beside it.
    with page.context.expect_page() as opened:
        main.get_by_role("link", name="Open", exact=False).click()
    expect(opened.value.get_by_role("heading", name="MLflow")).to_be_visible()
    assert opened.value.url == record["run"]["url"]
    assert opened.value.evaluate("window.opener") is None
    assert not page.said


@pytest.mark.timeout(600)
def test_a_task_without_a_job_says_so_in_a_line(server, runs, page):
    page.goto(f"{server.url}/dags/named_secrets/runs/none/tasks/without/plugin/nemo_job")
    expect(page.locator("main.nemo").get_by_role("status")).to_contain_text("There is no such task in this DAG run.")


@pytest.mark.timeout(900)
def test_a_browser_in_hindi_has_its_own_dates_and_numbers(server, runs, open_page):
    page = open_page("vera", locale="hi-IN")
    broken = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(f"{server.url}/dags/shown/runs/{quote(runs['shown'])}/tasks/train/plugin/nemo_job")
    main = page.locator("main.nemo")
    expect(main.get_by_role("tab", name="Config", exact=True)).to_be_visible()
    expect(main).to_contain_text(re.compile("[\u0900-\u097f]"))  # the months
    assert page.evaluate("document.documentElement.lang") == "hi"
    page.evaluate("document.documentElement.lang = 'en'")  # as when the user chooses another, or it is loaded late
    expect(main).not_to_contain_text(re.compile("[\u0900-\u097f]"))
    page.goto(f"{server.url}/plugin/nemo_experiments")
    expect(main.get_by_role("row").nth(1)).to_be_visible()
    assert not broken


@pytest.mark.timeout(900)
def test_a_config_of_10000_values_is_searched_and_scrolled(server, end_of, open_page):
    run_id = server.trigger("large")
    assert end_of("large", run_id) == "success"
    page = open_page("vera")
    page.goto(f"{server.url}/dags/large/runs/{quote(run_id)}/tasks/take/plugin/nemo_job?section=config")
    main = page.locator("main.nemo")
    tree = main.get_by_role("tree", name="Config")
    expect(tree.get_by_role("treeitem", name="values", exact=False)).to_be_visible()
    find = main.get_by_label("Search paths and values")
    find.fill("group73")
    expect(tree.get_by_role("treeitem", name="leaf0", exact=False)).to_contain_text("7300")
    tree.focus()
    page.keyboard.press("End")
    expect(tree.get_by_role("treeitem", name="leaf99", exact=False)).to_contain_text("7399")
    find.fill("leaf")
    tree.focus()
    page.keyboard.press("End")
    expect(tree.get_by_role("treeitem", name="group99", exact=False)).to_be_visible()
    assert tree.get_by_role("treeitem").count() < 100  # those in view alone are in the page
