"""What a sink records of a job while a store of files refuses, hangs or is away, and what a job may not overwrite."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracking_cases import PLAN, Server, wait_until

from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.job import Job, JobState, JobStatus
from nemo_airflow.stream import Record
from nemo_airflow.tracking.artifacts import ArtifactCollector
from nemo_airflow.tracking.base import UNWATCHED, RunRef, UploadWatch
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.outputs import OutputKeeper
from nemo_airflow.tracking.run import RunSink, TrackedRun
from nemo_airflow.tracking.spool import Spool

START = 1_700_000_000.0
SUCCEEDED = JobStatus(JobState.SUCCEEDED, 0)


def records(count: int = 3) -> list[Record]:
    """The stream of a small job."""
    head: list[tuple[str, dict[str, object]]] = [
        ("start", {}),
        ("config", {"plan": {"version": 1, "root": {**PLAN["root"], "resolved": 1}}}),  # type: ignore[dict-item]
        ("environment", {"python": "3.11.7", "host": "n1"}),
        ("tags", {"tags": {"dataset": "digits"}}),
    ]
    points = [("metrics", {"points": [["loss", 1.0 / (step + 1), step, START + step]]}) for step in range(count)]
    return [
        Record(kind, data, timestamp=START + number, end=100 * (number + 1))
        for number, (kind, data) in enumerate([*head, *points])
    ]


def outcome(folder: Path, outputs: dict[str, str]) -> Path:
    """Returns a folder with what a job has left."""
    (folder / "outputs").mkdir(parents=True)
    for name, text in outputs.items():
        (folder / "outputs" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "outputs" / name).write_text(text)
    (folder / "log.txt").write_text("a line\n")
    return folder


def keep(run: TrackedRun, folder: Path, stall: float = 60) -> tuple[bool, list[str]]:
    """Keeps a job's outputs as its worker does; returns whether all are kept, and the warnings."""
    warnings: list[str] = []
    keeper = OutputKeeper(run, inform=warnings.append, warn=warnings.append, stall=stall)
    return asyncio.run(keeper.keep(folder)), warnings


def follow(
    run: TrackedRun,
    folder: Path,
    stream: Iterable[Record] = (),
    *,
    drain: float = 60,
    open_again: float = 60,
    before_the_end: Callable[[], None] = lambda: None,
) -> tuple[bool, list[str]]:
    """Passes a stream to a sink as a follower does; returns whether everything was recorded, and the warnings."""
    warnings: list[str] = []

    async def all_of_it() -> bool:
        sink = RunSink(run, warnings.append, open_again=open_again, drain=drain)
        for record in stream or records():
            sink.record(record)
        await asyncio.to_thread(before_the_end)
        return await sink.finish(SUCCEEDED, folder / "log.txt", "")

    return asyncio.run(all_of_it()), warnings


def records_of(uri: str, run: TrackedRun) -> tuple[str, dict[str, str], dict[str, float], dict[str, str]]:
    assert run.ref is not None
    found = MlflowClient(uri).get_run(run.ref.run_id)
    return found.info.status, found.data.params, found.data.metrics, found.data.tags


def assert_recorded(uri: str, run: TrackedRun) -> None:
    status, params, metrics, tags = records_of(uri, run)
    assert status == "FINISHED"
    assert {"lr": "0.1", "resolved": "1"}.items() <= params.items()
    assert metrics == {"loss": pytest.approx(1 / 3)}
    assert {"dataset": "digits", "nemo_airflow.host": "n1", "nemo_airflow.state": "succeeded"}.items() <= tags.items()


def test_samples_of_each_node_have_mlflows_names(database: str, job: Job, tmp_path: Path) -> None:
    values = {"cpu_utilization_percentage": 5.0}
    samples: list[dict[str, object]] = [{"values": values}, *({"node": node, "values": values} for node in range(2))]
    stream = [Record("sample", sample, START + 7, 1000 + n) for n, sample in enumerate(samples)]
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, "tests", shares_filesystem=False).open()
    follow(run, outcome(tmp_path / "job", {}), [*records(), *stream])
    names = {name for name in records_of(database, run)[2] if name.startswith("system/")}
    # SystemMetricsMonitor of MLflow writes "system/", the node's id if it has one, and the name.
    ours = {f"system/{node}cpu_utilization_percentage" for node in ("", "node_0/", "node_1/")}
    assert names == ours


REFUSING = {
    "a-plain-file": "file://{folder}/plain/below",
    "a-name-too-long": "file://{folder}/" + "n" * 300,
    "no-such-scheme": "nosuch://somewhere/x",
    "no-library-of-hdfs": "hdfs://namenode/x",
    "no-login-to-s3": "s3://no-such-bucket/x",
}


@pytest.mark.parametrize("location", REFUSING.values(), ids=REFUSING)
def test_a_store_that_refuses_files_costs_the_files_alone(
    location: str, database: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "plain").write_text("no folder")
    MlflowClient(database).create_experiment(job.key, location.format(folder=tmp_path))
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, job.key, shares_filesystem=False).open()
    # Were the refusal taken for an outage, this would wait longer than the test may last.
    kept, warnings = follow(run, outcome(tmp_path / "job", {"model.txt": "weights"}), drain=3600)
    assert not kept
    assert_recorded(database, run)
    assert len(warnings) == 1, warnings
    assert warnings[0].startswith(
        f"not all files of run {run.ref and run.ref.run_id} were uploaded; its other records were"
    )
    with pytest.raises(NemoAirflowError, match=r"[Aa]rtifacts") as refused:
        keep(run, tmp_path / "job", stall=3600)
    assert not getattr(refused.value, "transient", False)


def test_one_file_that_is_refused_costs_no_other(database: str, job: Job, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    MlflowClient(database).create_experiment(job.key, root.as_uri())
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, job.key, shares_filesystem=False).open()
    assert run.ref is not None
    (root / run.ref.run_id / "artifacts" / "blocked").write_text("a file where a folder should be")
    outputs = {"a.txt": "1", "blocked/b.txt": "2", "z.txt": "3"}
    kept, warnings = keep(run, outcome(tmp_path / "job", outputs))
    assert not kept
    files = {file.path for file in MlflowClient(database).list_artifacts(run.ref.run_id)}
    assert {"a.txt", "z.txt"} <= files
    (warning,) = warnings
    assert "are refused, all others are kept: blocked/b.txt: " in warning


class HangingTracker(MLflowTracker):
    """MLflow whose store of files does not answer until it is told to."""

    go_on = threading.Event()
    asked = threading.Event()

    def documents(self, ref: RunRef, texts: object) -> None:
        self.asked.set()
        assert self.go_on.wait(300)

    def artifacts(self, ref: RunRef, files: Mapping[str, Path], watch: UploadWatch = UNWATCHED) -> None:
        self.documents(ref, {})


def test_a_store_of_files_that_hangs_holds_up_no_record(database: str, job: Job, tmp_path: Path) -> None:
    tracker = HangingTracker(tracking_uri=database)
    run = TrackedRun(tracker, job, "hanging", shares_filesystem=False).open()
    try:
        kept, warnings = follow(
            run,
            outcome(tmp_path / "job", {"model.txt": "weights"}),
            drain=15,
            before_the_end=lambda: wait_until(tracker.asked.is_set, 30),
        )
    finally:
        tracker.go_on.set()
    assert kept
    assert len(Spool().entries()) == 1
    assert_recorded(database, run)
    (warning,) = warnings
    assert "did not accept these in time" in warning
    assert "the log; kept in " in warning
    assert "the job's end" not in warning


def test_a_store_of_files_that_is_away_is_asked_again_and_costs_no_record(
    database: str, job: Job, tmp_path: Path
) -> None:
    with hold_port() as nobody:
        MlflowClient(database).create_experiment(job.key, f"ftp://127.0.0.1:{port_of(nobody)}/away")
        run = TrackedRun(MLflowTracker(tracking_uri=database), job, job.key, shares_filesystem=False).open()
        kept, warnings = follow(run, outcome(tmp_path / "job", {"model.txt": "weights"}), drain=20)
    assert kept
    (entry,) = Spool().entries()
    assert entry.files is not None
    assert (entry.files / "nemo_airflow/log.txt").read_text() == "a line\n"
    assert_recorded(database, run)
    assert len(warnings) == 2, warnings
    assert "files of run" in warnings[0]
    assert "not kept yet" in warnings[0]
    assert "Connection refused" in warnings[0]
    assert "did not accept these in time" in warnings[1]


@pytest.fixture
def late_server(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Server]:
    server = Server(tmp_path_factory.mktemp("late-server"))
    try:
        yield server
    finally:
        server.close()


def test_a_tracker_away_at_the_start_gets_all_points_of_which_most_waited_on_disk(
    late_server: Server, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_airflow.tracking.run.LIMIT", 1000)
    run = TrackedRun(MLflowTracker(tracking_uri=late_server.uri), job, "late", shares_filesystem=False)
    kept, warnings = follow(
        run,
        outcome(tmp_path / "job", {}),
        records(2500),
        drain=200,
        before_the_end=late_server.start,
    )
    assert kept
    client = MlflowClient(late_server.uri)
    (found,) = client.search_runs(
        [client.get_experiment_by_name("late").experiment_id], "tags.`nemo_airflow.state` = 'succeeded'"
    )
    assert {"lr": "0.1", "resolved": "1"}.items() <= found.data.params.items()
    assert found.data.tags["nemo_airflow.host"] == "n1"
    assert found.data.tags["dataset"] == "digits"
    steps = {point.step for point in client.get_metric_history(found.info.run_id, "loss")}
    assert steps == set(range(2500))
    assert warnings == [f"run {found.info.run_id} is open now and recorded from here on, with everything before"]
    assert list(Spool().folder.iterdir()) == []


def test_a_tracker_that_refuses_is_named_with_its_reason_and_asked_once_more_at_the_end(
    database: str, job: Job, tmp_path: Path
) -> None:
    client = MlflowClient(database)
    experiment = client.create_experiment("deleted meanwhile", (tmp_path / "artifacts").as_uri())
    client.delete_experiment(experiment)
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, "deleted meanwhile", shares_filesystem=False)
    kept, warnings = follow(run, outcome(tmp_path / "one", {}))
    assert kept
    assert ["was deleted" in entry.refusal for entry in Spool().entries()] == [True]
    assert all("experiment 'deleted meanwhile' was deleted" in line for line in warnings)
    assert warnings[-1].startswith("this run is not recorded: ")
    assert not [line for line in warnings if "away" in line]

    kept, warnings = follow(
        run, outcome(tmp_path / "two", {}), before_the_end=lambda: client.restore_experiment(experiment)
    )
    assert kept or [line for line in warnings if "was deleted" in line]
    assert client.search_runs([experiment], "tags.`nemo_airflow.state` = 'succeeded'")


class Hesitant(MLflowTracker):
    """Answers a first try to open the run only when it may."""

    refused, may_answer = threading.Event(), threading.Event()

    def open(self, job: Job, **options: Any) -> RunRef:
        try:
            return super().open(job, **options)
        finally:
            self.refused.set()
            assert self.may_answer.wait(300)


def test_a_refusal_that_arrives_after_the_jobs_end_is_asked_about_once_more(
    database: str, job: Job, tmp_path: Path
) -> None:
    client = MlflowClient(database)
    experiment = client.create_experiment("deleted and restored", (tmp_path / "artifacts").as_uri())
    client.delete_experiment(experiment)
    tracker = Hesitant(tracking_uri=database)

    async def follow_it() -> bool:
        run = TrackedRun(tracker, job, "deleted and restored", shares_filesystem=False)
        sink = RunSink(run, print, open_again=60, drain=60)
        for record in records():
            sink.record(record)
        assert await asyncio.to_thread(tracker.refused.wait, 30)
        await asyncio.to_thread(client.restore_experiment, experiment)
        end = asyncio.create_task(sink.finish(SUCCEEDED, outcome(tmp_path / "job", {}) / "log.txt", ""))
        await asyncio.sleep(0)  # the sink waits for the first answer now
        tracker.may_answer.set()
        return await end

    assert asyncio.run(follow_it())
    assert client.search_runs([experiment], "tags.`nemo_airflow.state` = 'succeeded'")


def test_a_job_cannot_overwrite_the_tags_and_files_of_its_record(database: str, job: Job, tmp_path: Path) -> None:
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, "reserved", shares_filesystem=False).open()
    before = records_of(database, run)[3]
    forbidden = {
        "nemo_airflow.state": "x",
        "nemo_airflow.key": "x",
        "nemo_airflow.mark": "999999",
        "nemo_airflow.phases": "x",
        "mlflow.parentRunId": "0" * 32,
    }
    tags = Record("tags", {"tags": {**forbidden, "mine": "1"}}, timestamp=START, end=10_000)
    outputs = {"nemo_airflow/plan.json": "not the plan", "nemo_airflow/log.txt": "not the log", "model.txt": "w"}
    recorded, warnings = follow(run, outcome(tmp_path / "job", outputs), [*records(), tags, tags])
    assert recorded
    kept, about_outputs = keep(run, tmp_path / "job")
    assert kept
    warnings += about_outputs
    status, _, metrics, after = records_of(database, run)
    assert (status, after["nemo_airflow.state"], after["mine"]) == ("FINISHED", "succeeded", "1")
    assert {name: after[name] for name in ("nemo_airflow.key", "mlflow.parentRunId")} == {
        name: before[name] for name in ("nemo_airflow.key", "mlflow.parentRunId")
    }
    assert metrics
    (about_tags,) = (line for line in warnings if "may not set the tags" in line)
    assert all(name in about_tags for name in forbidden)
    (about_files,) = (line for line in warnings if "the job's output" in line)
    assert "'job_nemo_airflow'" in about_files
    assert run.ref is not None
    folder = Path(MlflowClient(database).download_artifacts(run.ref.run_id, "", str(tmp_path)))
    assert '"resolved": 1' in (folder / "nemo_airflow" / "plan.json").read_text()
    assert (folder / "nemo_airflow" / "log.txt").read_text() == "a line\n"
    assert (folder / "job_nemo_airflow" / "plan.json").read_text() == "not the plan"
    assert (folder / "model.txt").read_text() == "w"


class Escaping(ArtifactCollector):
    def collect(self, job: Job, folder: Path) -> Iterable[Path]:
        raise ZeroDivisionError


def test_outputs_that_are_in_the_way_or_a_collector_that_fails_cost_no_job(
    database: str, job: Job, tmp_path: Path
) -> None:
    collector = f"{__name__}:Escaping"
    run = TrackedRun(
        MLflowTracker(tracking_uri=database), job, "in the way", shares_filesystem=False, collector=collector
    )
    run = run.open()
    kept, warnings = keep(run, outcome(tmp_path / "job", {"nemo_airflow": "a file of that name"}))
    assert kept
    assert [line for line in warnings if "ZeroDivisionError" in line]
    assert run.ref is not None
    folder = Path(MlflowClient(database).download_artifacts(run.ref.run_id, "", str(tmp_path)))
    assert (folder / "job_nemo_airflow").read_text() == "a file of that name"
