"""The queue loses nothing that it need not lose, warns in few lines, and holds up no one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tracking_cases import Server, end, make_job, open_run

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobHandle, JobState, JobStatus
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import Metric, RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Credentials, Store, open_store
from nemo_airflow.tracking.queue import TrackerQueue

PLAN = {"version": 1, "root": {"_target_": "train:fit", "resolved": 1}}


def loss(step: int) -> Metric:
    return Metric("loss", 1.0 / (step + 1), step, 1_700_000_000.0 + step)


async def until(condition: Callable[[], object], limit: float = 300) -> None:
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture(scope="module")
def one_to_kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow-to-kill"))
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def own_server(one_to_kill: Server) -> Server:
    """A running server that the test may kill."""
    if one_to_kill.process is None:
        one_to_kill.start()
    return one_to_kill


async def test_everything_of_a_job_is_recorded_in_a_few_calls(
    tracker: MLflowTracker, store: Store, opened: RunRef, tmp_path: Path, warnings: list[str]
) -> None:
    queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.05)
    queue.put(calls.started(JobHandle("k", "local", "1"), "script"))
    queue.put(calls.config(PLAN))
    queue.put(calls.environment({"python": "3.11"}))
    queue.put(calls.tags({"a": "b"}))
    for step in range(1500):
        queue.put_metrics([loss(step)], 10 * (step + 1))
    (tmp_path / "log.txt").write_text("a line\n")
    queue._outbox.file_calls.append(calls.log(make_job("k"), tmp_path / "log.txt"))
    end(queue, JobStatus(JobState.SUCCEEDED, 0))
    assert await queue.drain(60)
    run = store.run(opened.run_id)
    assert run.status == "FINISHED"
    assert {"resolved": "1", "lr": "0.1"}.items() <= run.params.items()
    assert {"a": "b", "nemo_airflow.backend": "local", "nemo_airflow.python": "3.11"}.items() <= run.tags.items()
    assert sorted(point.step for point in store.history(opened.run_id, "loss")) == list(range(1500))
    assert queue.acknowledged == tracker.mark(opened) == 15_000
    assert warnings == []


async def test_points_arrive_while_the_job_runs(
    tracker: MLflowTracker, store: Store, opened: RunRef, warnings: list[str]
) -> None:
    queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.05)
    queue.put_metrics([loss(0)], 10)
    await until(lambda: queue.acknowledged == 10)
    queue.put_metrics([loss(1)], 20)
    await until(lambda: queue.acknowledged == 20)
    assert len(store.history(opened.run_id, "loss")) == 2


async def test_a_stream_that_is_read_again_doubles_nothing(
    tracker: MLflowTracker, store: Store, opened: RunRef, warnings: list[str]
) -> None:
    for steps in (range(10), range(25), range(30)):
        queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.05)
        for step in steps:
            queue.put_metrics([loss(step)], 10 * (step + 1))
        assert await queue.drain(60)
    assert sorted(point.step for point in store.history(opened.run_id, "loss")) == list(range(30))
    assert warnings == []


async def test_a_server_that_dies_and_comes_back_costs_nothing(own_server: Server, warnings: list[str]) -> None:
    tracker = MLflowTracker(tracking_uri=own_server.uri)
    ref = await asyncio.to_thread(open_run, tracker, make_job("server-dies"))
    queue = TrackerQueue(tracker, ref, warn=warnings.append, interval=0.05)
    queue.put_metrics([loss(0)], 10)
    await until(lambda: queue.acknowledged == 10)

    own_server.kill()
    for step in range(1, 50):
        queue.put_metrics([loss(step)], 10 * (step + 1))
    await until(lambda: warnings)
    assert len(warnings) == 1
    assert warnings[0].startswith(
        f"tracking is delayed, the job goes on: the MLflow server {own_server.uri} cannot be reached"
    )

    queue.put(calls.config(PLAN))
    await asyncio.to_thread(own_server.start)
    await until(lambda: queue.acknowledged == 500)
    end(queue, JobStatus(JobState.SUCCEEDED, 0))
    assert await queue.drain(60)
    assert warnings[1:] == [f"the tracking server {own_server.uri} is back"]
    store = open_store(own_server.uri, Credentials())
    assert sorted(point.step for point in store.history(ref.run_id, "loss")) == list(range(50))
    assert store.run(ref.run_id).status == "FINISHED"


async def test_a_server_that_stays_away_is_given_up_in_time(own_server: Server, warnings: list[str]) -> None:
    tracker = MLflowTracker(tracking_uri=own_server.uri)
    ref = await asyncio.to_thread(open_run, tracker, make_job("server-stays-away"))
    own_server.kill()
    queue = TrackerQueue(tracker, ref, warn=warnings.append, interval=0.05, limit=100)
    for step in range(300):
        queue.put_metrics([loss(step)], 10 * (step + 1))
    end(queue, JobStatus(JobState.SUCCEEDED, 0))
    assert not await queue.drain(1)
    assert not queue.complete
    assert queue.acknowledged == 0
    assert queue.dropped >= 200
    assert len(warnings) == 4
    assert "away for long" in warnings[0]
    assert "tracking is delayed" in warnings[1]
    assert "did not accept these in time" in warnings[2]
    assert "the job's end" in warnings[2]
    assert f"{queue.dropped} points" in warnings[3]


class Stubborn(MLflowTracker):
    """Waits in its first call, as with a server that does not answer, and refuses one config for good."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "called", threading.Event())
        object.__setattr__(self, "go_on", threading.Event())
        object.__setattr__(self, "seen", [])

    called: threading.Event
    go_on: threading.Event
    seen: list[object]

    def mark(self, ref: RunRef) -> int:
        return 0

    def tag(self, ref: RunRef, tags: Mapping[str, str]) -> None:
        self.called.set()
        assert self.go_on.wait(300)
        self.seen.append("tags")

    def config(self, ref: RunRef, plan: Mapping[str, object]) -> Mapping[str, str]:
        raise TrackingError("the server refuses")

    def metrics(self, ref: RunRef, metrics: Sequence[Metric], mark: int) -> None:
        self.seen.append("metrics")

    def environment(self, ref: RunRef, environment: Mapping[str, object]) -> Mapping[str, str]:
        raise ZeroDivisionError

    def ended(self, ref: RunRef, status: JobStatus, *, error: str = "", at: float | None = None) -> Mapping[str, str]:
        self.seen.append("ended")
        return {}


async def test_the_event_loop_goes_on_while_the_tracker_waits(warnings: list[str]) -> None:
    tracker = Stubborn()
    queue = TrackerQueue(tracker, RunRef("u", "1", "r"), warn=warnings.append, interval=0.0)
    queue.put(calls.tags({"a": "b"}))
    await until(tracker.called.is_set)
    begun = time.monotonic()
    while time.monotonic() - begun < 0.3:  # the loop turns, and takes more, with the call under way
        queue.put_metrics([loss(0)], 10)
        await asyncio.sleep(0)
    assert tracker.seen == []
    assert not await queue.drain(0.1)
    tracker.go_on.set()


async def test_what_a_tracker_refuses_is_a_warning_and_the_rest_goes_on(warnings: list[str]) -> None:
    tracker = Stubborn()
    tracker.go_on.set()
    queue = TrackerQueue(tracker, RunRef("u", "1", "r"), warn=warnings.append, interval=0.0)
    queue.put(calls.config(PLAN))
    queue.put(calls.environment({}))
    end(queue, JobStatus(JobState.SUCCEEDED))
    queue.put(calls.tags({"a": "b"}))
    queue.put_metrics([loss(0)], 10)
    assert not await queue.drain(30)
    assert tracker.seen == ["tags", "metrics", "ended"]
    assert warnings == [
        "the config of run r could not be recorded: the server refuses",
        "the environment of run r could not be recorded: ZeroDivisionError",
    ]


class HalfRecorded(Stubborn):
    """A run whose stream is recorded up to byte 250."""

    def mark(self, ref: RunRef) -> int:
        return 250

    def metrics(self, ref: RunRef, metrics: Sequence[Metric], mark: int) -> None:
        self.seen.append([metric.step for metric in metrics])


async def test_what_was_recorded_by_another_process_is_not_sent_again(warnings: list[str]) -> None:
    tracker = HalfRecorded()
    queue = TrackerQueue(tracker, RunRef("u", "1", "r"), warn=warnings.append, interval=0.0)
    for step in range(30):
        queue.put_metrics([loss(step)], 10 * (step + 1))
    assert await queue.drain(30)
    assert tracker.seen == [[25, 26, 27, 28, 29]]
    assert queue.acknowledged == 300


async def test_an_empty_queue_drains_at_once(warnings: list[str]) -> None:
    assert await TrackerQueue(Stubborn(), RunRef("u", "1", "r"), warn=warnings.append).drain(0)
    assert warnings == []


async def test_what_stands_before_points_is_recorded_before_them(
    tracker: MLflowTracker, opened: RunRef, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    """A reader that begins anew at their mark would not see it again."""
    made: list[str] = []
    metrics, tag = MLflowTracker.metrics, MLflowTracker.tag
    queue = TrackerQueue(tracker, opened, warn=warnings.append, interval=0.05)

    def record_points(own: MLflowTracker, ref: RunRef, points: Sequence[Metric], mark: int) -> None:
        made.append(f"points {mark}")
        metrics(own, ref, points, mark)
        if mark == 10:  # meanwhile, on the event loop
            queue.put(calls.tags({"a": "tag"}))
            queue.put_metrics([loss(1)], 30)

    def record_tag(own: MLflowTracker, ref: RunRef, tags: Mapping[str, str]) -> None:
        made.append("tag")
        tag(own, ref, tags)

    monkeypatch.setattr(MLflowTracker, "metrics", record_points)
    monkeypatch.setattr(MLflowTracker, "tag", record_tag)
    queue.put_metrics([loss(0)], 10)
    await until(lambda: len(made) == 3)
    assert made == ["points 10", "tag", "points 30"]
    assert await queue.drain(60)
