"""What the tests of the spool have in common: jobs whose records wait, and what is to come of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from mlflow import MlflowClient
from tracking_cases import PLAN, make_job

from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.stream import Record
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.run import RunSink, TrackedRun
from nemo_airflow.tracking.spool import Spool

MORNING = 1_700_000_000.0
"""When the first job began."""

SECONDS = 100.0
"""How long each job took."""

POINTS = 60


@dataclasses.dataclass(frozen=True)
class Case:
    """A job of a DAG run: the number decides what it is called, when it ran and what it logs."""

    number: int
    dag_run: str

    @property
    def key(self) -> str:
        return self.run(MLflowTracker()).job.key

    @property
    def began(self) -> float:
        return MORNING + 10 * self.number

    @property
    def ended(self) -> float:
        return self.began + SECONDS

    def run(self, tracker: Tracker) -> TrackedRun:
        job = make_job(f"{self.dag_run}-{self.number}")
        job = dataclasses.replace(job, labels={**job.labels, "run_id": self.dag_run})
        return TrackedRun(tracker, job, "spooled", shares_filesystem=False, began=self.began)

    def stream(self) -> list[Record]:
        """All that the job reports: its config, environment, a tag, points, and the end."""
        root = {**PLAN["root"], "resolved": self.number}  # type: ignore[dict-item]
        head: list[tuple[str, dict[str, object]]] = [
            ("start", {}),
            ("config", {"plan": {"version": 1, "root": root}}),
            ("environment", {"python": "3.11.7", "host": "n1"}),
            ("tags", {"tags": {"number": str(self.number)}}),
            (
                "input",
                {"name": "train", "source": '{"uri": "s3://b/t"}', "source_type": "s3", "digest": "7", "context": "x"},
            ),
        ]
        points = [
            ("metrics", {"points": [["loss", self.number + step / 7, step, self.began + step]]})
            for step in range(POINTS)
        ]
        return [
            Record(kind, data, self.began + 1, 100 * (place + 1)) for place, (kind, data) in enumerate([*head, *points])
        ] + [Record("end", {}, self.ended, 100 * (len(head) + len(points) + 1))]

    def assert_recorded(self, client: MlflowClient) -> None:
        """Nothing of the job is lost, nothing is there twice, and its times are its own."""
        experiment = client.get_experiment_by_name("spooled")
        assert experiment is not None
        key = self.run(MLflowTracker()).job.key
        (run,) = client.search_runs([experiment.experiment_id], f"tags.`nemo_airflow.key` = '{key}'")
        times = (run.info.start_time / 1000, run.info.end_time / 1000)
        assert (run.info.status, *times) == ("FINISHED", self.began, self.ended)
        assert {"lr": "0.1", "resolved": str(self.number)}.items() <= run.data.params.items()
        tags = {"number": str(self.number), "nemo_airflow.host": "n1", "nemo_airflow.state": "succeeded"}
        assert tags.items() <= run.data.tags.items()
        assert [(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs] == [("train", "7")]
        points = [
            (point.step, point.value, point.timestamp / 1000)
            for point in client.get_metric_history(run.info.run_id, "loss")
        ]
        assert sorted(points) == [(step, self.number + step / 7, self.began + step) for step in range(POINTS)]
        files = {file.path for file in client.list_artifacts(run.info.run_id, "nemo_airflow")}
        kept = {f"nemo_airflow/{name}" for name in ("plan.json", "environment.json", "log.txt")}
        assert kept <= files, f"not in run {run.info.run_id}: {sorted(kept - files)}"
        log = client.download_artifacts(run.info.run_id, "nemo_airflow/log.txt")
        assert Path(log).read_text() == f"the log of {self.number}\n"


def assert_parent_recorded(client: MlflowClient, cases: Sequence[Case]) -> None:
    """The DAG run's own run has the times of all its jobs."""
    experiment = client.get_experiment_by_name("spooled")
    assert experiment is not None
    found = f"tags.`nemo_airflow.parent` = 'retrain {cases[0].dag_run}'"
    (parent,) = client.search_runs([experiment.experiment_id], found)
    times = (parent.info.start_time / 1000, parent.info.end_time / 1000)
    assert (parent.info.status, *times) == (
        "FINISHED",
        min(case.began for case in cases),
        max(case.ended for case in cases),
    )


async def follow(
    run: TrackedRun,
    case: Case,
    folder: Path,
    warn: Callable[[str], None],
    *,
    pause_at: int = 0,
    pause: Callable[[RunSink], object] = lambda sink: None,
    drain: float = 60,
) -> bool:
    """Passes a job's stream to a sink as a follower does."""
    log = folder / f"{case.number}.txt"
    log.write_text(f"the log of {case.number}\n")
    sink = RunSink(run, warn, open_again=0.2, drain=drain)
    for record in case.stream()[:pause_at]:
        sink.record(record)
    await asyncio.to_thread(pause, sink)
    for record in case.stream()[pause_at:]:
        sink.record(record)
    return await sink.finish(JobStatus(JobState.SUCCEEDED, 0), log, "")


def put_into_spool(case: Case, tracker: Tracker, folder: Path) -> Path:
    """Leaves all records of a job in the spool, as a follower does whose tracker was away throughout."""
    run = case.run(tracker)
    sink = RunSink(run, print)
    for record in case.stream():
        if (points := sink._points_of(record)) is not None:
            sink._outbox.points.put(points, record.end)
        elif (call := sink._call_of(record)) is not None:
            sink._outbox.put(call)
    log = folder / f"{case.number}.txt"
    log.write_text(f"the log of {case.number}\n")
    sink._outbox.file_calls.append(calls.log(run.job, log))
    sink._outbox.last_calls.append(calls.ended(JobStatus(JobState.SUCCEEDED, 0), "", case.ended))
    sink._outbox.last_calls.append(calls.close_parent(succeeded=True, at=case.ended))
    return sink._undelivered.keep(run, sink._outbox, "").folder


def waiting() -> list[str]:
    return [entry.key for entry in Spool().entries()]
