"""What waits on disk is delivered once, whoever does it and whenever that one is killed, and to where it belongs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from spool_cases import POINTS, Case, assert_parent_recorded, follow, put_into_spool, waiting
from tracking_cases import wait_until

from nemo_airflow.cli import main
from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.job import JobState, JobStatus
from nemo_airflow.tracking import calls, delivery, spool
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.mlflow.store import Credentials, open_store
from nemo_airflow.tracking.run import RunSink
from nemo_airflow.tracking.spool import Entry, Spool


@pytest.fixture
def local(database: str) -> MLflowTracker:
    open_store(database, Credentials())  # made here, and not in each process that a test starts
    return MLflowTracker(tracking_uri=database)


@pytest.fixture
def anywhere(uri: str) -> MLflowTracker:
    open_store(uri, Credentials())
    return MLflowTracker(tracking_uri=uri)


@pytest.fixture
def away() -> Iterator[MLflowTracker]:
    """A tracker whose server is away."""
    with hold_port() as nobody:
        yield MLflowTracker(tracking_uri=f"http://127.0.0.1:{port_of(nobody)}")


@pytest.fixture(autouse=True)
def no_delivery_in_the_background(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "_next", {os.getpid(): float("inf")})


def in_process(call: Callable[[], object]) -> int | None:
    """Makes a call in a process of its own; returns its exit code."""
    process = multiprocessing.get_context("fork").Process(target=call)
    process.start()
    process.join(300)
    return process.exitcode


def kill_after(owner: Any, name: str, times: int, patch: pytest.MonkeyPatch) -> None:
    """Lets this process die without a word after some calls of a method."""
    method, made = getattr(owner, name), []

    def dying(*args: Any, **kwargs: Any) -> object:
        answer = method(*args, **kwargs)
        made.append(name)
        if len(made) == times:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    patch.setattr(owner, name, dying)


@pytest.mark.stores("sqlite", "postgres")
@pytest.mark.parametrize(
    ("owner", "method", "times"),
    [
        (MLflowTracker, "open", 1),
        (MLflowTracker, "config", 1),
        (MLflowTracker, "metrics", 2),
        (MLflowTracker, "ended", 1),
        (MLflowTracker, "close_parent", 1),
        (MLflowTracker, "artifacts", 1),
        (Entry, "remove", 1),
    ],
    ids=["open", "config", "points", "end", "parent", "files", "removal"],
)
def test_a_deliverer_that_is_killed_leaves_it_to_the_next_which_doubles_nothing(
    owner: Any, method: str, times: int, anywhere: MLflowTracker, uri: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("nemo_airflow.tracking.outbox.BATCH", 7)
    cases = [Case(number, f"killed-after-{method.replace('_', '-')}") for number in range(2)]
    for case in cases:
        put_into_spool(case, anywhere, tmp_path)

    def deliver_and_die() -> None:
        kill_after(owner, method, times, monkeypatch)
        list(delivery.deliver_all(Spool()))

    assert in_process(deliver_and_die) == -signal.SIGKILL
    assert waiting() == [case.key for case in (cases[1:] if method == "remove" else cases)]
    assert main(["sync"]) == 0
    assert waiting() == []
    for case in cases:
        case.assert_recorded(MlflowClient(uri))
    assert_parent_recorded(MlflowClient(uri), cases)


@pytest.mark.stores("sqlite", "postgres")
def test_of_several_that_deliver_at_once_one_delivers_and_nothing_is_doubled(
    anywhere: MLflowTracker, uri: str, tmp_path: Path
) -> None:
    cases = [Case(number, "delivered-at-once") for number in range(6)]
    for case in cases:
        put_into_spool(case, anywhere, tmp_path)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)

    def deliver(number: int) -> None:
        barrier.wait(300)
        done = [report.entry.key for report in delivery.deliver_all(Spool()) if not report.problem]
        (tmp_path / f"{number}.json").write_text(json.dumps(done))

    processes = [context.Process(target=deliver, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    done = [key for number in range(3) for key in json.loads((tmp_path / f"{number}.json").read_text())]
    assert sorted(done) == [case.key for case in cases]
    assert waiting() == []
    for case in cases:
        case.assert_recorded(MlflowClient(uri))
    assert_parent_recorded(MlflowClient(uri), cases)


def test_the_follower_of_the_next_job_delivers_what_waits(
    local: MLflowTracker, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_next", {})
    first, second = Case(0, "next-job"), Case(1, "next-job")
    put_into_spool(first, local, tmp_path)
    assert asyncio.run(follow(second.run(local).open(), second, tmp_path, print))
    wait_until(lambda: not waiting(), 60)
    for case in (first, second):
        case.assert_recorded(MlflowClient(database))
    wait_until(lambda: delivery._next[os.getpid()] < float("inf"), 60)
    assert delivery._next[os.getpid()] > time.monotonic()  # not again within a minute


def test_what_a_server_refuses_for_good_is_named_with_its_reason_and_tried_again_when_asked(
    local: MLflowTracker, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(database)
    experiment = client.get_experiment_by_name("spooled")
    experiment_id = experiment.experiment_id if experiment else client.create_experiment("spooled")
    client.delete_experiment(experiment_id)
    case, warnings = Case(0, "refused"), []
    try:
        assert asyncio.run(follow(case.run(local), case, tmp_path, warnings.append))
        assert "'spooled' was deleted" in warnings[-1]
        assert "'nemo-airflow sync --all' delivers it when that is mended" in warnings[-1]
        (entry,) = Spool().entries()
        assert "'spooled' was deleted" in entry.refusal
        assert main(["sync", "--dry-run"]) == 1
        assert "'spooled' was deleted" in capsys.readouterr().out
    finally:
        client.restore_experiment(experiment_id)
    assert main(["sync"]) == 1
    line = capsys.readouterr().err
    assert f"{case.key}: not delivered: experiment 'spooled' was deleted" in line
    assert f"{entry.folder}: deliver it again with 'nemo-airflow sync --all'" in line
    assert main(["sync", "--all"]) == 0
    case.assert_recorded(client)


def test_it_is_delivered_to_the_server_that_the_job_had(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(0, "other-environment")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    put_into_spool(case, MLflowTracker(), tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert main(["sync"]) == 0
    case.assert_recorded(MlflowClient(database))


def test_a_damaged_entry_is_named_and_holds_up_no_other(
    local: MLflowTracker, database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = [Case(number, "damaged") for number in range(2)]
    folders = [put_into_spool(case, local, tmp_path) for case in cases]
    (folders[0] / "entry.json").write_text("{")
    assert main(["sync"]) == 1
    assert f"{cases[0].key}: not delivered: it cannot be read" in capsys.readouterr().err
    cases[1].assert_recorded(MlflowClient(database))


def test_jobs_that_end_at_once_keep_all_their_files_while_others_are_delivered(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("a line\n")

    def keep_and_remove(number: int) -> None:
        for again in range(40):
            draft = Spool().draft(f"at-once-{number}-{again}")
            draft.add_files({"nemo_airflow/log.txt": log})
            draft.complete({}).remove()
            Spool().clean()

    with ThreadPoolExecutor(8) as several:
        list(several.map(keep_and_remove, range(8)))
    assert waiting() == []


def test_a_full_spool_costs_the_records_with_one_warning_and_not_the_job(
    away: MLflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMO_AIRFLOW_SPOOL_LIMIT", "100")
    first, second = Case(0, "full"), Case(1, "full")
    put_into_spool(first, away, tmp_path)
    warnings: list[str] = []
    assert not asyncio.run(follow(second.run(away), second, tmp_path, warnings.append))
    assert len(warnings) == 1
    assert "its records are lost, as they cannot be kept here" in warnings[0]
    assert "NEMO_AIRFLOW_SPOOL_LIMIT allows 100: deliver them with 'nemo-airflow sync'" in warnings[0]
    assert waiting() == [first.key]


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_costs_the_records_with_one_warning_and_leaves_nothing_half_written(
    away: MLflowTracker, tmp_path: Path
) -> None:
    case = Case(0, "full-disk")
    run = case.run(away)

    async def follow_it() -> bool:
        sink = RunSink(run, warnings.append, open_again=0.2)
        for record in case.stream():
            sink.record(record)
        keep = sink._undelivered.keep

        def keep_without_room(*args: Any) -> Any:
            with no_room():
                return keep(*args)

        sink._undelivered.keep = keep_without_room  # type: ignore[method-assign]
        return await sink.finish(JobStatus(JobState.SUCCEEDED, 0), None, "")

    warnings: list[str] = []
    assert not asyncio.run(follow_it())
    (warning,) = warnings
    assert "its records are lost, as they cannot be kept here: [Errno" in warning
    assert list(Spool().folder.iterdir()) == []


def test_a_follower_that_is_killed_leaves_all_to_the_next_and_its_half_is_deleted(
    away: MLflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_airflow.tracking.run.LIMIT", 10)
    case = Case(0, "follower-killed")

    def follow_and_die() -> None:
        asyncio.run(
            follow(
                case.run(away), case, tmp_path, print,
                pause_at=POINTS // 2, pause=lambda sink: os.kill(os.getpid(), signal.SIGKILL),
            )
        )  # fmt: skip

    assert in_process(follow_and_die) == -signal.SIGKILL
    (half,) = Spool().folder.iterdir()
    assert (half / "points.jsonl").stat().st_size > 0
    assert waiting() == []
    assert asyncio.run(follow(case.run(away), case, tmp_path, print))
    assert waiting() == [case.key]
    Spool().clean()
    assert half.exists()  # it may still be written
    monkeypatch.setattr(spool, "_ABANDONED_AFTER", 0.0)
    with_one_open = Spool().draft("open")
    Spool().clean()
    assert not half.exists()
    assert waiting() == [case.key]
    with_one_open.complete({"run": {}, "calls": [], "last_calls": [], "file_calls": []})


def test_a_sink_that_is_closed_leaves_no_task_and_no_file(away: MLflowTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nemo_airflow.tracking.run.LIMIT", 10)
    case = Case(0, "closed")

    async def leave_it() -> set[str]:
        sink = RunSink(case.run(away), print, open_again=60)
        for record in case.stream()[:-1]:
            sink.record(record)
        assert list(Spool().folder.iterdir()) != []
        await sink.close()
        await asyncio.sleep(0)
        return {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("nemo")}

    assert asyncio.run(leave_it()) == set()
    assert list(Spool().folder.iterdir()) == []


def test_secrets_that_airflow_knows_do_not_wait_on_disk(
    away: MLflowTracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nemo_airflow.tracking.undelivered.redact", lambda text: text.replace("hunter2", "***"))
    case = Case(0, "secret")
    sink = RunSink(case.run(away), print)
    sink._outbox.put(calls.tags({"note": "the password is hunter2"}))
    sink._outbox.put(calls.config({"version": 1, "root": {"_target_": "m:f", "text": ["hunter2"]}}))
    folder = sink._undelivered.keep(sink._run, sink._outbox, "").folder
    assert "hunter2" not in (folder / "entry.json").read_text()
    assert "the password is ***" in (folder / "entry.json").read_text()
