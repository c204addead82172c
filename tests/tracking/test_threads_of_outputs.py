"""Copying outputs, and putting them into a shared store, take no thread of those that everything else waits for."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from nemo_airflow.job import Job, JobState, JobStatus
from nemo_airflow.tracking.base import OUTPUTS_DIGEST
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.run import RunSink, TrackedRun


def test_outputs_are_kept_while_others_hold_all_threads_of_the_event_loop(
    database: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEMO_AIRFLOW_STORE", str(tmp_path / "shared"))
    run = TrackedRun(MLflowTracker(tracking_uri=database), job, "threads", shares_filesystem=False).open()
    folder = tmp_path / "job"
    (folder / "outputs").mkdir(parents=True)
    (folder / "outputs/model.bin").write_bytes(b"weights")
    (folder / "log.txt").write_text("a line\n")
    warnings: list[str] = []

    async def finish() -> bool:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        over = threading.Event()
        try:
            loop.run_in_executor(None, over.wait)  # whatever others wait for
            sink = RunSink(run, warnings.append)
            return await asyncio.wait_for(sink.finish(JobStatus(JobState.SUCCEEDED, 0), folder, "", collected=True), 60)
        finally:
            over.set()

    assert asyncio.run(finish())
    assert warnings == []
    assert run.ref is not None
    assert OUTPUTS_DIGEST in MlflowClient(database).get_run(run.ref.run_id).data.tags
