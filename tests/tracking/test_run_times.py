"""Runs begin and end when their jobs did, whenever, by whom and in whatever order it is recorded."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tracking_cases import make_job

from nemo_airflow.job import Job, JobState, JobStatus
from nemo_airflow.stream import Record
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Store
from nemo_airflow.tracking.run import RunSink, TrackedRun

HOUR = 3600.0
MORNING = 1_700_000_000.0


def open_at(tracker: MLflowTracker, name: str, parent: str, at: float) -> RunRef:
    return tracker.open(make_job(name), experiment="times", parent=parent, shares_filesystem=False, at=at)


def record_late(tracker: MLflowTracker, name: str, parent: str, begin: float, end: float, state: JobState) -> RunRef:
    """Records a job of which nothing was recorded while it ran."""
    ref = open_at(tracker, name, parent, begin)
    tracker.ended(ref, JobStatus(state), at=end)
    tracker.close_parent(ref, succeeded=state is JobState.SUCCEEDED, at=end)
    return ref


def times_of(tracker: MLflowTracker, uri: str, run_id: str) -> tuple[str, float, float | None]:
    from mlflow import MlflowClient

    info = MlflowClient(uri).get_run(run_id).info
    return info.status, info.start_time / 1000, info.end_time / 1000 if info.end_time else None


@pytest.mark.parametrize("first", ["in-order", "in-reverse"])
def test_jobs_that_are_recorded_later_have_their_own_times_and_their_parent_those_of_all(
    tracker: MLflowTracker, uri: str, first: str
) -> None:
    parent = f"late {first} {time.time()}"
    ends = [MORNING + HOUR, MORNING + 2 * HOUR]
    order = [0, 1] if first == "in-order" else [1, 0]
    refs = {
        n: record_late(tracker, f"late-{first}-{n}", parent, MORNING + n, ends[n], JobState.SUCCEEDED) for n in order
    }
    for n, ref in refs.items():
        assert times_of(tracker, uri, ref.run_id) == ("FINISHED", MORNING + n, ends[n])
    status, begin, end = times_of(tracker, uri, refs[0].parent_id)
    assert (status, begin, end) == ("FINISHED", MORNING + order[0], ends[1])


def test_a_parent_stays_failed_when_a_job_that_ran_beside_is_recorded_later(tracker: MLflowTracker, uri: str) -> None:
    parent = f"failed before {time.time()}"
    record_late(tracker, "failed-early", parent, MORNING, MORNING + 10, JobState.FAILED)
    ref = record_late(tracker, "ran-beside", parent, MORNING + 5, MORNING + 60, JobState.SUCCEEDED)
    assert times_of(tracker, uri, ref.parent_id) == ("FAILED", MORNING, MORNING + 60)
    record_late(tracker, "tried-again", parent, MORNING + 70, MORNING + 90, JobState.SUCCEEDED)
    assert times_of(tracker, uri, ref.parent_id) == ("FINISHED", MORNING, MORNING + 90)


def test_recording_again_what_has_ended_changes_nothing(tracker: MLflowTracker, store: Store) -> None:
    parent = f"again {time.time()}"
    ref = record_late(tracker, "recorded-again", parent, MORNING, MORNING + 10, JobState.SUCCEEDED)
    before = store.run(ref.run_id)
    assert open_at(tracker, "recorded-again", parent, MORNING) == ref
    assert store.run(ref.run_id) == before


def test_a_parent_whose_jobs_end_at_once_has_the_end_of_the_last(tracker: MLflowTracker, uri: str) -> None:
    parent = f"at once {time.time()}"
    jobs = [open_at(tracker, f"ends-at-once-{n}", parent, MORNING) for n in range(6)]
    barrier = threading.Barrier(len(jobs))

    def end(n: int) -> None:
        tracker.ended(jobs[n], JobStatus(JobState.SUCCEEDED), at=MORNING + 10 * n)
        barrier.wait(300)
        tracker.close_parent(jobs[n], succeeded=True, at=MORNING + 10 * n)

    with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
        list(pool.map(end, range(len(jobs))))
    assert times_of(tracker, uri, jobs[0].parent_id) == ("FINISHED", MORNING, MORNING + 50)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (lambda began: began + 60, lambda began: began + 60),
        (lambda began: began - HOUR, lambda began: began),  # the clock of the job's machine is slow
    ],
    ids=["as-the-job-says", "not-before-it-began"],
)
def test_a_run_ends_when_its_job_did_not_when_somebody_came_to_see_it(
    tracker: MLflowTracker,
    uri: str,
    job: Job,
    tmp_path: Path,
    stamp: Callable[[float], float],
    expected: Callable[[float], float],
) -> None:
    began = time.time() - 2 * HOUR
    job = dataclasses.replace(job, labels={**job.labels, "run_id": job.key})  # a parent of its own
    run = TrackedRun(tracker, job, "times", shares_filesystem=False, began=began)
    (tmp_path / "log.txt").write_text("a line\n")

    async def follow() -> None:
        sink = RunSink(run, print, open_again=120)  # the first use of a database in a process takes seconds
        sink.record(Record("start", {}, began + 1, 10))
        sink.record(Record("end", {}, stamp(began), 20))
        await sink.finish(JobStatus(JobState.SUCCEEDED), tmp_path / "log.txt", "")

    asyncio.run(follow())
    ref = run.open().ref
    assert ref is not None
    status, begin, end = times_of(tracker, uri, ref.run_id)
    assert status == "FINISHED"
    assert begin == pytest.approx(began, abs=0.01)
    assert end == pytest.approx(expected(began), abs=0.01)
    assert times_of(tracker, uri, ref.parent_id)[2] == end
