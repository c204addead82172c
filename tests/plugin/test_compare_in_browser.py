"""Runs are compared in a browser; what is shown stands in the address."""

import copy
import math
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import expect

from nemo_airflow.job import Job, JobState, JobStatus, Package
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow import MLflowTracker

PLAN = {
    "version": 1,
    "root": {"_target_": "train:fit", "lr": 0.1, "decay": "cosine", "model": {"_target_": "train:Net"}},
}


@pytest.fixture(scope="module")
def trials(server):
    """Ids of six runs in the MLflow of the server; the user may not read the last one."""
    tracker = MLflowTracker(tracking_uri=f"sqlite:///{server.home / 'nemo' / 'mlflow.db'}")

    def trial(number):
        plan = copy.deepcopy(PLAN)
        plan["root"] |= {"lr": 0.1 / (number + 1), "decay": "<b>none</b>" if number == 2 else "cosine"}
        dag_id = "private" if number == 5 else "shown"
        job = Job(
            key=f"trial-{number}-1",
            name=f"trial {number}",
            plan=plan,
            package=Package(digest=f"{number % 2}" * 64, commit="c" * 40),
            labels={"dag_id": dag_id, "run_id": f"trial_{number}", "task_id": "trial", "map_index": "-1"},
            asked={"executor": {"kind": "local", "nodes": 1 + number % 2}},
        )
        ref = tracker.open(job, experiment="trials", parent=f"trial {number}", shares_filesystem=True)
        tracker.documents(ref, tracker.environment(ref, {"python": "3.11.7", "packages": {"torch": f"2.{number % 2}"}}))
        values = [math.nan if (number, step) == (1, 3) else 1 / (1 + step) + number / 10 for step in range(40)]
        tracker.metrics(ref, [Metric("loss", value, step, 1.7e9 + step) for step, value in enumerate(values)], 0)
        tracker.ended(ref, JobStatus(JobState.SUCCEEDED))
        return ref.run_id

    return [trial(number) for number in range(6)]


@pytest.mark.timeout(600)
def test_runs_are_compared(server, trials, open_page, look):
    page = open_page("otto")  # who may not read the DAG of the last one
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(f"{server.url}/plugin/nemo_experiments?" + "&".join(f"compare={run_id}" for run_id in trials))

    def shown(name):
        return parse_qs(urlsplit(page.url).query).get(name, [])

    table = page.get_by_role("region", name="What the runs were made of, and their metrics")
    expect(page.get_by_text("1 of the runs is gone or may not be read.")).to_be_visible()
    expect(table.get_by_role("columnheader")).to_have_count(5)
    rate = table.get_by_role("row", name="lr", exact=False).first
    expect(rate).to_contain_text("0.05")
    expect(rate.get_by_text("differs from the base")).to_have_count(4)
    expect(table.get_by_role("row", name=re.compile("^decay"))).to_contain_text("<b>none</b>")
    expect(table.get_by_role("row", name=re.compile("^model"))).to_have_count(0)
    expect(table.get_by_role("row", name=re.compile("^torch"))).to_contain_text("2.1")
    loss = table.get_by_role("row", name=re.compile("^loss"))
    expect(loss.get_by_role("cell").first.get_by_role("img", name="best")).to_be_visible()

    # What is the same, another base, one run fewer, the smallest values.
    page.get_by_label("Show what is the same, too").check()
    expect(table.get_by_role("row", name=re.compile("^model"))).to_contain_text("train:Net")
    page.get_by_role("button", name="make base: trial-2-1").click()
    expect(table.get_by_role("row", name=re.compile("^decay")).get_by_text("differs from the base")).to_have_count(4)
    page.get_by_role("button", name="Leave trial-4-1 out of the comparison").click()
    expect(table.get_by_role("columnheader")).to_have_count(4)
    page.get_by_label("Metrics show").select_option("the largest value")
    expect(loss).to_contain_text("1.3")
    assert (shown("base"), shown("same"), shown("which")) == ([trials[2]], ["1"], ["max"])
    assert shown("compare") == [*trials[:4], trials[5]]

    # Curves, a range on an axis, and the dots: parts that come when they are looked at.
    curves = page.get_by_role("region", name="Curves")
    curves.scroll_into_view_if_needed()
    curves.get_by_label("Log scale").check()
    expect(curves.get_by_role("slider", name="loss")).to_be_visible()
    axes = page.get_by_role("region", name="Parallel coordinates")
    axes.scroll_into_view_if_needed()
    expect(axes.get_by_role("img", name=re.compile("4 runs on"))).to_be_visible()
    axes.get_by_text("Ranges as numbers").click()
    axes.get_by_label("lr from").fill("0.04")
    axes.get_by_label("lr from").press("Enter")
    expect(page.get_by_text("2 runs are left out")).to_be_visible()
    expect(table.get_by_role("columnheader")).to_have_count(2)
    dots = page.get_by_role("region", name="Scatter")
    dots.scroll_into_view_if_needed()
    dots.get_by_label("Up").select_option("loss")
    expect(dots.locator("circle")).to_have_count(4)
    page.get_by_role("heading", level=1).scroll_into_view_if_needed()
    look(page, "compare")

    # The link shows the same.
    page.reload()
    expect(table.get_by_role("columnheader")).to_have_count(2)
    expect(page.get_by_label("Show what is the same, too")).to_be_checked()
    page.get_by_role("button", name="Show all of them").click()
    expect(table.get_by_role("columnheader")).to_have_count(4)
    assert not said

    page.goto(f"{server.url}/plugin/nemo_experiments?compare={trials[0]}")
    expect(page.get_by_text("Choose at least two runs")).to_be_visible()
