"""The example pipeline as somebody uses it in a browser, on a real Airflow."""

import shutil
from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect, sync_playwright

DAG = "retrain_digits"
FIELD = "train.optimizer.learning_rate"


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "install a browser: apt-get install chromium"
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield running
        running.close()


@pytest.fixture
def page(browser, airflow_server):
    # The page is a large bundle, and the machine is busy with the jobs.
    page = browser.new_page(base_url=airflow_server.url, viewport={"width": 1280, "height": 1100})
    page.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    yield page
    page.close()


def end_of(server, run_id):
    state = server.wait(lambda: (s := server.run(DAG, run_id)["state"]) in ("success", "failed") and s, run_id, 240)
    assert state == "success", {task["task_id"]: task["state"] for task in server.tasks(DAG, run_id)}


def run_with(server, learning_rate):
    runs = server.call("GET", f"/dags/{DAG}/dagRuns?run_type=manual")["dag_runs"]
    return next((run["dag_run_id"] for run in runs if run["conf"].get(FIELD) == learning_rate), None)


@pytest.mark.timeout(900)
def test_a_value_changed_in_the_trigger_form_is_in_the_run_on_its_page_and_in_mlflow(airflow_server, page):
    first = airflow_server.trigger(DAG)
    end_of(airflow_server, first)

    page.goto(f"/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_role("button", name="train.optimizer", exact=True).click()
    field = form.locator(f'input[name="element_{FIELD}"]')
    expect(field).to_have_value("0.005")
    expect(form.get_by_text("Size of the first steps.")).to_be_visible()
    field.fill("0.02")
    field.blur()
    form.get_by_role("button", name="Trigger", exact=True).last.click()
    run_id = airflow_server.wait(lambda: run_with(airflow_server, 0.02), "the run that the form starts", 60)
    end_of(airflow_server, run_id)

    record = airflow_server.xcom(DAG, run_id, "train", "nemo_job")
    client = MlflowClient(f"sqlite:///{airflow_server.home}/nemo/mlflow.db")
    run = client.get_run(record["run"]["run_id"])
    assert run.data.params["optimizer.learning_rate"] == "0.02"
    assert run.data.params["optimizer.epochs"] == "12"
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(12))
    assert "model.joblib" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}

    outcome = airflow_server.xcom(DAG, run_id, "promote")
    champion = client.get_model_version_by_alias("digits", "champion")
    assert str(champion.version) == outcome["champion_after"]
    assert (champion.run_id == run.info.run_id) is outcome["promoted"]
    assert outcome["champion_before"], "the run before it made one"
    kept = client.get_model_version("digits", outcome["version"])
    assert kept.description == outcome["reason"]

    page.goto(f"/dags/{DAG}/runs/{quote(run_id)}/tasks/train")
    expect(page.get_by_text("epoch 12 of 12").first).to_be_visible()
    page.get_by_role("link", name="Job", exact=True).click()
    job = page.frame_locator("iframe")
    expect(job.locator("#config").get_by_role("row", name="optimizer.learning_rate")).to_contain_text("0.02")
    expect(job.get_by_text(record["key"])).to_be_visible()
    changed = job.locator("#changes").get_by_role("row", name="optimizer.learning_rate")
    expect(changed).to_contain_text("0.005")
    expect(changed).to_contain_text("0.02")
    expect(job.get_by_label("Compared with")).to_have_value(first)
    picture = job.locator(".picture svg")
    expect(picture).to_contain_text("learning_rate")
    expect(picture).to_contain_text("0.005 → 0.02")
