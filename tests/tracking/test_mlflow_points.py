"""Points reach MLflow once, whatever is read again and whenever a process dies."""

from __future__ import annotations

import math

import pytest

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Metric, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker, points
from nemo_airflow.tracking.mlflow.fields import MARK
from nemo_airflow.tracking.mlflow.store import Run, Store

pytestmark = pytest.mark.stores("sqlite", "server", "postgres")

START = 1_700_000_000.0


def batch(number: int, size: int = 20) -> list[Metric]:
    """A batch of a stream: loss and a system sample, each batch later than the one before."""
    first = number * size
    losses = [Metric("loss", 1 / (n + 1), n, START + n) for n in range(first, first + size)]
    return [*losses, Metric("system/rss_bytes", 1e9 + number, 0, START + first)]


def histories(store: Store, ref: RunRef) -> dict[str, list[tuple[int, float, float]]]:
    names = store.run(ref.run_id).latest
    return {name: sorted((p.step, p.timestamp, p.value) for p in store.history(ref.run_id, name)) for name in names}


def test_points_keep_value_step_and_time(tracker: MLflowTracker, store: Store, opened: RunRef) -> None:
    tracker.metrics(opened, [Metric("loss", 0.1 + 0.2, 3, START + 0.123), Metric("a+b [%]", -1e-300, 2**40, START)], 10)
    assert store.history(opened.run_id, "loss") == [Metric("loss", 0.1 + 0.2, 3, START + 0.123)]
    assert store.history(opened.run_id, "a:2b:b :5b::25::5d:")[0].value == -1e-300
    assert tracker.mark(opened) == 10


def test_values_that_are_no_numbers_are_recorded(tracker: MLflowTracker, store: Store, opened: RunRef) -> None:
    values = [math.nan, math.inf, -math.inf]
    tracker.metrics(opened, [Metric("loss", value, step, START + step) for step, value in enumerate(values)], 10)
    recorded = [point.value for point in sorted(store.history(opened.run_id, "loss"), key=lambda point: point.step)]
    assert math.isnan(recorded[0])
    assert recorded[1] > 1e308
    assert recorded[2] < -1e308


def test_a_batch_of_any_size_is_recorded(tracker: MLflowTracker, store: Store, opened: RunRef) -> None:
    tracker.metrics(opened, [Metric("loss", float(n), n, START + n) for n in range(2500)], 10)
    assert len(store.history(opened.run_id, "loss")) == 2500
    assert tracker.mark(opened) == 10


def test_a_batch_that_is_recorded_is_passed_over(tracker: MLflowTracker, store: Store, opened: RunRef) -> None:
    tracker.metrics(opened, batch(0), 100)
    tracker.metrics(opened, [Metric("other", 1.0, 0, START)], 100)
    tracker.metrics(opened, [Metric("other", 1.0, 0, START)], 50)
    points.forget(store, opened.run_id)  # as another process begins
    tracker.metrics(opened, [Metric("other", 1.0, 0, START)], 100)
    assert "other" not in store.run(opened.run_id).latest


def test_a_mark_of_zero_records_the_points_and_leaves_the_mark(
    tracker: MLflowTracker, store: Store, opened: RunRef
) -> None:
    tracker.metrics(opened, batch(0), 100)
    tracker.metrics(opened, batch(1), 0)
    assert tracker.mark(opened) == 100
    assert len(store.history(opened.run_id, "loss")) == 40


@pytest.mark.parametrize("size", [1000, 7], ids=["as-the-same-batches", "cut-otherwise"])
def test_a_replay_after_a_crash_between_points_and_mark_doubles_nothing(
    tracker: MLflowTracker, store: Store, opened: RunRef, size: int
) -> None:
    stream = [(point, 100 * (number + 1)) for number in range(5) for point in batch(number)]
    tracker.metrics(opened, batch(0), 100)
    store.log(opened.run_id, metrics=batch(1) + batch(2)[:5])  # and here the process dies, before the mark
    points.forget(store, opened.run_id)

    rest = [(point, mark) for point, mark in stream if mark > tracker.mark(opened)]
    for start in range(0, len(rest), size):
        part = rest[start : start + size]
        whole = start + size >= len(rest)
        tracker.metrics(opened, [point for point, _ in part], part[-1][1] if whole else 0)

    assert histories(store, opened) == {
        name: sorted((p.step, p.timestamp, p.value) for p, _ in stream if p.name == name)
        for name in ("loss", "system/rss_bytes")
    }
    assert tracker.mark(opened) == 500


def test_system_samples_can_be_left_out(uri: str, store: Store, opened: RunRef) -> None:
    MLflowTracker(tracking_uri=uri, log_system_metrics=False).metrics(opened, batch(0), 100)
    assert set(store.run(opened.run_id).latest) == {"loss"}
    assert store.run(opened.run_id).tags[MARK] == "100"


class DoublingStore:
    """A store in memory that keeps a point twice when it is written twice, as those without a database do."""

    uri = "memory"

    def __init__(self) -> None:
        self.points: list[Metric] = []
        self.tags: dict[str, str] = {}
        self.looked_at: list[str] = []
        self.dies_before_the_mark = False

    def run(self, run_id: str) -> Run:
        # As MLflow does, the newest is that of the highest step, and only of one step that of the latest time.
        by_step = sorted(self.points, key=lambda point: (point.step, point.timestamp))
        latest = {point.name: (point.step, round(point.timestamp * 1000)) for point in by_step}
        return Run(run_id, "1", "RUNNING", "", self.tags, {}, latest=latest)

    def history(self, run_id: str, metric: str) -> list[Metric]:
        self.looked_at.append(metric)
        return [point for point in self.points if point.name == metric]

    def log(self, run_id: str, *, metrics: list[Metric] = [], tags: dict[str, str] = {}) -> None:  # noqa: B006
        self.points += metrics
        if self.dies_before_the_mark and metrics:
            raise TrackingError("no answer", transient=True)
        self.tags.update(tags)


def test_a_store_that_would_double_points_is_asked_for_its_history() -> None:
    store = DoublingStore()
    nan = Metric("loss", math.nan, 500, START + 25)
    points.record(store, "r", batch(0), 100)  # type: ignore[arg-type]
    store.dies_before_the_mark = True
    with pytest.raises(TrackingError):
        points.record(store, "r", [*batch(1), nan], 200)  # type: ignore[arg-type]
    store.dies_before_the_mark = False
    points.record(store, "r", [*batch(1), nan, *batch(2)], 300)  # type: ignore[arg-type]
    assert len(store.points) == 3 * 21 + 1
    assert store.tags[MARK] == "300"


def test_nothing_is_looked_up_while_nothing_goes_wrong() -> None:
    store = DoublingStore()
    for number in range(5):
        points.record(store, "steady", batch(number), 100 * (number + 1))  # type: ignore[arg-type]
    points.forget(store, "steady")  # type: ignore[arg-type]
    points.record(store, "steady", batch(5), 600)  # type: ignore[arg-type]
    assert store.looked_at == []
    assert len(store.points) == 6 * 21
