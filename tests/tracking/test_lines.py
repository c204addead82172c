"""Lines of metrics for charts: few points whole, of many the extremes."""

from __future__ import annotations

import math

import pytest

from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow import lines
from nemo_airflow.tracking.mlflow.lines import LAST_STEP, thin
from nemo_airflow.tracking.mlflow.store import Credentials, open_store

pytestmark = pytest.mark.stores("sqlite", "server", "postgres")


def points(values, steps=None):
    return [
        Metric("loss", value, step, 1_700_000_000 + number)
        for number, (value, step) in enumerate(zip(values, steps or range(len(values)), strict=True))
    ]


def test_of_many_points_the_extremes_of_each_part_stay():
    values = [0.5] * 10_000
    values[5_001], values[7_003], values[20] = 9.0, -9.0, math.nan
    line = thin(reversed(points(values)), 100)
    assert line.total == 10_000
    assert len(line.points) <= 110
    assert {9.0, -9.0} <= {point.value for point in line.points}
    assert [point.step for point in line.points] == sorted(point.step for point in line.points)
    assert (line.points[0].step, line.points[-1].step) == (0, 9_999)


def test_few_points_stay_as_they_are():
    few = points([1.0, math.nan, math.inf])
    assert list(thin(few, 100).points) == few


@pytest.fixture
def written(uri):
    """A function that writes points into a new run, and returns the store and the run's id."""
    return lambda given: write(uri, given)


def write(uri, given):
    store = open_store(uri, Credentials())
    experiment = store.experiment("lines") or store.create_experiment("lines", None)
    run = store.create_run(experiment, "lines", {}, 0)
    for begin in range(0, len(given), 1000):
        store.log(run.run_id, metrics=given[begin : begin + 1000])
    return store, run.run_id


def test_a_store_gives_the_ends_and_what_is_new(written):
    store, run_id = written(points([float(number) for number in range(3_000)]))
    line = store.line(run_id, "loss", 100, 0, LAST_STEP)
    assert (line.points[0].value, line.points[-1].value) == (0.0, 2_999.0)
    newer = store.line(run_id, "loss", 100, 2_990, LAST_STEP)
    assert [point.step for point in newer.points] == list(range(2_990, 3_000))
    assert newer.total == 10
    assert [point.step for point in store.line(run_id, "loss", 100, 10, 12).points] == [10, 11, 12]
    assert store.line(run_id, "none", 100, 0, LAST_STEP).points == []


@pytest.mark.parametrize("one_step", [False, True], ids=["steps", "one step"])
def test_a_database_keeps_the_extremes_of_many_points(database, monkeypatch, one_step):
    monkeypatch.setattr(lines, "_FEW", 100)
    values = [0.5] * 2_000
    values[701], values[1_203], values[20] = 9.0, -9.0, math.nan
    store, run_id = write(database, points(values, [0] * 2_000 if one_step else None))
    line = store.line(run_id, "loss", 40, 0, LAST_STEP)
    assert line.total == 2_000
    assert len(line.points) <= 60
    shown = [point.value for point in line.points if not math.isnan(point.value)]
    assert (min(shown), max(shown)) == (-9.0, 9.0)
    assert (line.points[0].timestamp, line.points[-1].timestamp) == (1_700_000_000, 1_700_001_999)
