"""Metrics and past jobs are shown in the terminal as MLflow has them, whoever submitted the job."""

import json
import math
import sys
import uuid

import pytest
from tracking_cases import make_job, open_run

from nemo_airflow.cli import main
from nemo_airflow.cli.metrics import spark
from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking.base import Metric

START = 1.7e9
LOSS = [Metric("loss", 1 / (step + 1), step * 10, START + step) for step in range(60)]
OTHERS = [
    Metric("grad", math.nan, 0, START),
    Metric("system/rss_bytes", 2.5e9, 7, START),
    Metric("system/gpu_0_utilization_percentage", 93.5, 7, START),
]


def recorded(tracker):
    """A run of a job that another machine submitted: its key, and its id."""
    job = make_job(f"other {uuid.uuid4().hex[:8]}")
    ref = open_run(tracker, job)
    tracker.metrics(ref, [*LOSS, *OTHERS], 10)
    return job.key, ref


def test_metrics_are_shown_of_a_key_of_its_beginning_and_of_a_run(tracker, uri, capsys):
    key, ref = recorded(tracker)
    for name in (key, key[:-3], ref.run_id):
        assert main(["metrics", name, "--tracking-uri", uri, "-o", "json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert (shown["run_id"], shown["key"], shown["state"]) == (ref.run_id, key, "running")
        loss = shown["metrics"]["loss"]
        assert (loss["value"], loss["step"], loss["min"], loss["max"]) == (1 / 60, 590, 1 / 60, 1.0)
        assert len(loss["points"]) == 60
        assert shown["metrics"]["grad"]["value"] == "nan"


@pytest.mark.stores("sqlite")
def test_metrics_are_lines_with_their_course_newest_value_and_limits(tracker, uri, capsys, monkeypatch):
    key, _ = recorded(tracker)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["metrics", key, "--tracking-uri", uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "grad", "loss", "system/gpu_0_utilization_percentage", "system/rss_bytes",
    ]  # fmt: skip
    assert lines[1].split()[-7:] == ["0.016667", "min", "0.016667", "max", "1", "step", "590"]
    assert "2.5 GB" in lines[3]
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["metrics", key, "loss", "--tracking-uri", uri]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "loss"
    assert lines[2] == "  min 0.016667, max 1, step 590"
    assert all(len(line) <= 40 for line in lines)
    assert main(["metrics", key, "accuracy", "--tracking-uri", uri]) == 1
    assert "has no metric that begins with accuracy so far" in capsys.readouterr().err


@pytest.mark.stores("sqlite")
def test_jobs_of_tasks_and_other_machines_are_listed_as_mlflow_has_them(tracker, uri, capsys, monkeypatch):
    key, ref = recorded(tracker)
    tracker.ended(ref, JobStatus(JobState.FAILED, 3, reason="no data"), error="no data")
    assert main(["jobs", "--tracking-uri", uri, "--limit", "1", "-o", "json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert (row["key"], row["source"], row["run_id"]) == (key, "mlflow", ref.run_id)
    assert (row["state"], row["exit_code"], row["reason"]) == ("failed", 3, "no data")
    assert main(["jobs", "--tracking-uri", uri, "--here"]) == 0
    assert key not in capsys.readouterr().out
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert main(["why", key, "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "no data"


def test_a_key_that_is_nowhere_and_a_store_that_is_away_are_said_plainly(capsys, monkeypatch):
    assert main(["metrics", "nowhere"]) == 2
    assert "no job or run 'nowhere' is in the MLflow store sqlite:" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert main(["metrics", "nowhere"]) == 2
    assert "the MLflow server http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err
    assert main(["jobs"]) == 0
    said = capsys.readouterr().err
    assert "only jobs that were launched from this machine are listed: the MLflow server http://127.0.0.1:9" in said


def test_a_course_is_as_long_as_there_is_room_and_blank_where_there_is_no_number():
    rising = [Metric("x", float(step), step, START) for step in range(800)]
    assert spark(rising, 8) == "▁▂▃▄▅▆▇█"
    assert spark([Metric("x", value, 0, START) for value in (0.0, math.nan, 1.0)], 8) == "▁ █"
    assert spark(rising[:1], 8) == "▅"
    assert spark([Metric("x", math.inf, 0, START)], 8) == " "
