"""The parts of a job's tab with its code, environment, files, origins, notes and actions, in a browser."""

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import expect


@pytest.mark.timeout(900)
def test_a_job_is_looked_through_noted_and_started_again(server, runs, open_page, look):
    page = open_page("ann")
    page.goto(f"{server.url.rstrip('/')}/dags/shown/runs/{quote(runs['shown'])}/tasks/train/plugin/nemo_job")
    main = page.locator("main.nemo")

    def open_part(name):
        main.get_by_role("tab", name=name, exact=True).click()

    open_part("Code")
    expect(main.get_by_text("+key = ")).to_be_visible()
    expect(main.get_by_label("What was submitted", exact=True).last).to_contain_text("shown-train")
    main.get_by_label("Compare with").select_option("good")
    expect(main.get_by_text("There is no such run of this task")).to_be_visible()
    look(page, "job-code")
    open_part("Environment")
    main.get_by_label("Search packages").fill("nemo-airflow")
    expect(main.get_by_role("cell", name="nemo-airflow", exact=True)).to_be_visible()

    open_part("Files")
    expect(main.get_by_role("region", name="Preview of report.md").get_by_text("The loss is")).to_be_visible()
    expect(main.get_by_text('<script>document.title = "broken"</script>')).to_be_visible()
    assert main.get_by_role("link", name="nothing").count() == 0
    main.get_by_role("button", name="table.csv").click()
    expect(main.get_by_role("columnheader", name="loss")).to_be_visible()
    look(page, "job-files")
    main.get_by_role("button", name="page.html").click()
    expect(main.frame_locator("iframe").get_by_role("heading", name="A page")).to_be_visible()
    assert page.title() != "broken"
    main.get_by_role("button", name="picture.svg").click()
    expect(main.get_by_role("img", name="picture.svg")).to_have_js_property("naturalWidth", 40)
    main.get_by_role("button", name="more/", exact=False).first.click()
    expect(main.get_by_role("button", name="<b> & 'x'.txt")).to_be_visible()
    main.get_by_role("button", name="train.log", exact=True).click()
    main.get_by_label("Search the lines").fill("step 12345:")
    expect(main.get_by_role("status").filter(has_text="1 of")).to_be_visible()
    with page.expect_download() as saved:
        main.get_by_role("link", name="Download train.log").click()
    assert saved.value.path().stat().st_size == 668_890

    open_part("Origins")
    expect(main.get_by_text("The job was given no artifact")).to_be_visible()
    open_part("Notes")
    main.get_by_label("Name", exact=True).fill("quality")
    main.get_by_label("Value").fill("<b>good</b>")
    main.get_by_role("button", name="Set tag").click()
    expect(main.get_by_role("cell", name="<b>good</b>")).to_be_visible()
    main.get_by_role("button", name="Remove tag quality").click()
    expect(main.get_by_role("cell", name="<b>good</b>")).to_be_hidden()
    look(page, "job-notes")

    open_part("Actions")
    expect(main.get_by_text("nemo-airflow reproduce")).to_be_visible()
    main.get_by_role("button", name="Edit and trigger").click()
    form = page.get_by_role("dialog")
    form.get_by_label("rate").fill("much")
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_role("alert")).to_contain_text("rate: this is not a number")
    form.get_by_label("rate").fill("0.75")
    look(page, "job-again")
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_text("is started")).to_be_visible()
    newest = server.call("GET", "/dags/shown/dagRuns?order_by=-run_after&limit=1")["dag_runs"][0]
    assert newest["conf"] == {"rate": 0.75}
    page.keyboard.press("Escape")

    main.get_by_role("button", name="Reproduce").click()
    form = page.get_by_role("dialog", name="Reproduce")
    expect(form.get_by_label("overrides")).to_have_value("[]")
    expect(form.get_by_label("run", exact=True)).to_have_count(0)
    look(page, "job-reproduce")
    form.get_by_role("button", name="Trigger").click()
    expect(form.get_by_role("link", name="Open the run")).to_have_attribute("href", re.compile("reproduce_run/runs/"))
