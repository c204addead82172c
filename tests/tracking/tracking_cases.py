"""What the tracking tests have in common: jobs to track, and an MLflow server to kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from nemo_airflow.cli.ports import hold_port, port_of
from nemo_airflow.job import Job, JobStatus, Package
from nemo_airflow.tracking import calls
from nemo_airflow.tracking.base import RunRef
from nemo_airflow.tracking.mlflow import MLflowTracker
from nemo_airflow.tracking.queue import TrackerQueue

PLAN = {
    "version": 1,
    "root": {
        "_target_": "train:fit",
        "lr": 0.1,
        "model": {"_target_": "train:Net", "hidden": 32},
        "layers": [1, 2],
    },
}


class Server:
    """An MLflow server that can be killed and started again on the same port, which it keeps, and database.

    Args:
        folder: For its files.
        database: Address of its database; a sqlite file in the folder if empty.
    """

    def __init__(self, folder: Path, database: str = "") -> None:
        self.folder = folder
        self.database = database or f"sqlite:///{folder / 'server.db'}"
        self._holder = hold_port()
        self.port = port_of(self._holder)
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        store = ["--backend-store-uri", self.database]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *store, *artifacts],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        wait_until(self._answers, 300, lambda: (self.folder / "server.log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.kill()
        self._holder.close()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "server.log").read_text()
        try:
            return httpx.get(f"{self.uri}/health", timeout=2).is_success
        except httpx.TransportError:
            return False


def wait_until(condition: Callable[[], Any], limit: float, describe: Callable[[], object] = lambda: "") -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"not within {limit} s: {describe()}"
        time.sleep(0.05)


def end(queue: TrackerQueue, status: JobStatus) -> None:
    """Adds the end of the job to what waits."""
    queue._outbox.last_calls.append(calls.ended(status, "", time.time()))


def make_job(name: str, **fields: Any) -> Job:
    key = "".join(c if c.isalnum() else "-" for c in name.lower())[-55:].strip("-") + "-1"
    labels = {
        "dag_id": "retrain",
        "run_id": "manual__1",
        "task_id": "train",
        "map_index": "-1",
        "try_number": "1",
        "url": "http://airflow/task",
    }
    return Job(**{"key": key, "name": "retrain.train", "plan": PLAN, "labels": labels, **fields})


def make_package(**fields: Any) -> Package:
    return Package(**{"digest": "d" * 64, "commit": "c" * 40, "origin": "https://git.example/repo", **fields})


def open_run(tracker: MLflowTracker, job: Job, *, parent: str = "", shares_filesystem: bool = True) -> RunRef:
    return tracker.open(
        job, experiment="tests", parent=parent or f"parent of {job.key}", shares_filesystem=shares_filesystem
    )
