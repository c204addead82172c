"""The example pipeline as somebody uses it in a browser, on a real Airflow."""

from urllib.parse import quote

import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect

DAG = "retrain_digits"
FIELD = "train.optimizer.learning_rate"


@pytest.fixture
def page(open_page):
    return open_page("ann")


def run_with(server, learning_rate):
    runs = server.call("GET", f"/dags/{DAG}/dagRuns?run_type=manual")["dag_runs"]
    return next((run["dag_run_id"] for run in runs if run["conf"].get(FIELD) == learning_rate), None)


def states(server, run_id):
    return {task["task_id"]: task["state"] for task in server.tasks(DAG, run_id)}


@pytest.mark.timeout(900)
def test_a_value_changed_in_the_trigger_form_is_in_the_run_on_its_page_and_in_mlflow(airflow_server, end_of, page):
    first = airflow_server.trigger(DAG)
    assert end_of(DAG, first) == "success", states(airflow_server, first)

    page.goto(f"{airflow_server.url}/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    form.get_by_role("button", name="train.optimizer", exact=True).click()
    field = form.locator(f'input[name="element_{FIELD}"]')
    expect(field).to_have_value("0.005")
    expect(form.get_by_text("Size of the first steps.")).to_be_visible()
    field.fill("0.0002")
    field.blur()
    form.get_by_role("button", name="Trigger", exact=True).last.click()
    run_id = airflow_server.wait(lambda: run_with(airflow_server, 0.0002), "the run that the form starts")
    page.goto("about:blank")  # an open page of Airflow asks for news all the time
    assert end_of(DAG, run_id) == "success", states(airflow_server, run_id)

    record = airflow_server.xcom(DAG, run_id, "train", "nemo_job")
    client = MlflowClient(f"sqlite:///{airflow_server.home}/nemo/mlflow.db")
    run = client.get_run(record["run"]["run_id"])
    assert run.data.params["optimizer.learning_rate"] == "0.0002"
    assert run.data.params["optimizer.epochs"] == "12"
    assert run.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(12))
    assert "model.pkl" in {artifact.path for artifact in client.list_artifacts(run.info.run_id)}

    assert states(airflow_server, run_id)["promote"] == "skipped", "it learns too slowly"
    decision = airflow_server.xcom(DAG, run_id, "decide", "decision")
    champion = client.get_model_version_by_alias("digits", "champion")
    assert champion.run_id == airflow_server.xcom(DAG, first, "train", "nemo_job")["run"]["run_id"]
    kept = client.get_model_version("digits", decision["version"])
    assert kept.run_id == run.info.run_id
    assert kept.description == kept.tags["reason"] == decision["reason"]

    page.goto(f"{airflow_server.url}/dags/{DAG}/runs/{quote(run_id)}/tasks/train")
    expect(page.get_by_text("epoch 12 of 12").first).to_be_visible()
    page.get_by_role("link", name="Job", exact=True).click()
    job = page.locator("main.nemo")
    expect(job.get_by_text(record["key"])).to_be_visible()
    job.get_by_role("tab", name="Config", exact=True).click()
    rate = job.get_by_role("treeitem", name="learning_rate")
    expect(rate).to_contain_text("0.0002")
    expect(rate).to_contain_text("0.005")  # that of the run before
    expect(job.get_by_text(airflow_server.xcom(DAG, first, "train", "nemo_job")["key"])).to_be_visible()
