"""What a job did, as a value to assert on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.config import plan as plans
from nemo_airflow.exceptions import JobFailed
from nemo_airflow.executors.folder import JobFolder, status_of_end
from nemo_airflow.job import FailureKind, JobState
from nemo_airflow.stream import Line, Record, StreamReader

_SHOWN_LINES = 10
"""Last lines of a failed job that its error has."""


@dataclasses.dataclass(frozen=True)
class JobRun:
    """What a task and its job did.

    Attributes:
        result: What the job's function returned.
        lines: What it printed, line by line.
        metrics: The values of each metric, in the order in which they were reported.
        artifacts: The files of its output directory, by their paths in it.
        digest: The digest of its config; empty for a task that runs no job.
    """

    result: Any
    lines: Sequence[str] = ()
    metrics: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    artifacts: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    digest: str = ""


def read_job(folder: JobFolder, result: Any) -> JobRun:
    """Returns what a job did that has succeeded.

    Args:
        folder: The job's folder.
        result: What its task returned.
    """
    lines, records = _read_stream(folder)
    metrics: dict[str, list[float]] = {}
    for record in records:
        for name, value, _, _ in record.data["points"] if record.type == "metrics" else ():
            metrics.setdefault(str(name), []).append(float(value))
    outputs = folder.path / "outputs"
    artifacts = {path.relative_to(outputs).as_posix(): path for path in sorted(outputs.rglob("*")) if path.is_file()}
    plan = json.loads((folder.path / "job.json").read_text())["plan"]
    return JobRun(result, lines, metrics, artifacts, plans.digest(plan))


def raise_failure(folder: JobFolder) -> None:
    """Raises the error of a job that has not succeeded; returns if it has.

    Raises:
        JobFailed: The job has failed, or has not ended; the message has its last lines.
    """
    end = folder.end_mark() or {}
    status = status_of_end(end)
    if status.state is JobState.SUCCEEDED:
        return
    error = end.get("error")
    traceback = str(error.get("traceback") or "") if isinstance(error, Mapping) else ""
    lines, _ = _read_stream(folder)
    shown = " | ".join(lines[-_SHOWN_LINES:])
    raise JobFailed(
        f"job {folder.path.name} failed: {status.reason or 'it has not ended'}; its last lines: {shown or 'none'}",
        status.failure or FailureKind.USER_ERROR,
        traceback,
    )


def find_jobs(root: Path, **labels: str) -> list[JobFolder]:
    """Returns the folders of the jobs that have these labels, the newest last."""
    paths = sorted((path.parent for path in root.glob("*/job.json")), key=lambda path: path.stat().st_mtime_ns)
    folders = [JobFolder(path) for path in paths]
    return [folder for folder in folders if labels.items() <= folder.labels().items()]


def _read_stream(folder: JobFolder) -> tuple[list[str], list[Record]]:
    if not folder.log.exists():
        return [], []
    reader = StreamReader()
    items = [*reader.feed(folder.log.read_bytes()), *reader.finish()]
    lines = [item.text for item in items if isinstance(item, Line)]
    return lines, [item for item in items if isinstance(item, Record)]
