"""Lists launched jobs, says how one fares and why, and cancels it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from nemo_airflow import blocking
from nemo_airflow.cli.advice import advice_for
from nemo_airflow.cli.output import JSON, print_json, print_table, time_text
from nemo_airflow.cli.reap import load_executor
from nemo_airflow.cli.terminal import keep_output_clean, say
from nemo_airflow.exceptions import (
    BackendUnavailable,
    MissingExtraError,
    SettingsError,
    TrackingError,
)
from nemo_airflow.executors.base import Executor
from nemo_airflow.job import JobHandle, JobStatus
from nemo_airflow.jobs.service import JobService
from nemo_airflow.launch.following import known_status
from nemo_airflow.launch.records import Launched, Records
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.tracking.mlflow.jobs import JobRun, JobRuns

_AT_ONCE = 8
"""Back-ends that are asked at the same time."""


def jobs(executor: str, *, limit: int, output: str, here: bool, tracking_uri: str | None, conn_id: str | None) -> int:
    """Lists jobs, the newest first.

    Args:
        executor: An executor on whose back-end all that run are listed; when empty, the jobs that were launched from
            this machine, and those of tasks and other machines that MLflow has.
        limit: How many at most.
        output: ``text`` or ``json``.
        here: Whether MLflow is not asked.
        tracking_uri: MLflow's address, or None.
        conn_id: An Airflow connection with MLflow's address and login, or None.
    """
    keep_output_clean()
    if executor:
        rows = _on_back_end(load_executor(executor))
    else:
        recorded = [] if here else _recorded(limit, tracking_uri, conn_id)
        rows = _launched(limit, recorded)
    if output == JSON:
        print_json(rows)
    elif rows:
        _print_table(rows)
    else:
        print("no jobs: 'nemo-airflow run CONFIG' launches one", file=sys.stderr)
    return 0


def status(key: str, executor: str, *, output: str) -> int:
    """Says how a job fares; returns 0, also for one that has failed."""
    keep_output_clean()
    _print_facts(_facts(key, executor), output)
    return 0


def why(key: str, executor: str, *, output: str) -> int:
    """Says why a job waits or has failed, and what to do; returns 0."""
    keep_output_clean()
    facts = _facts(key, executor)
    state, failure = facts["state"], facts.get("failure", "")
    facts["next"] = advice_for(state, failure, facts["key"])
    _print_facts(
        {name: facts[name] for name in ("key", "state", "failure", "reason", "next") if facts.get(name)}, output
    )
    return 0


def cancel(key: str, executor: str) -> int:
    """Cancels a job; returns 0, also for one that has ended."""
    keep_output_clean()
    record = None if executor else Records().find(key)
    if record is not None and (end := record.end) is not None:
        print(f"job {record.key} has ended before: it is {end.status.state}")
        return 0
    where, handle = find_job(key, executor)
    try:
        BackEnd(where, lambda *text: None).cancel_at_once(handle)
    except TimeoutError:
        raise BackendUnavailable(f"the {where.kind} back-end does not answer: cancel the job again later") from None
    print(f"job {handle.key} is cancelled")
    return 0


def find_job(key: str, executor: str) -> tuple[Executor, JobHandle]:
    """Returns the job of a key: on the back-end of an executor, or one that was launched from this machine.

    Raises:
        SettingsError: There is none.
    """
    if not executor:
        record = Records().find(key)
        return record.where, record.job
    where = load_executor(executor)
    handle = BackEnd(where, lambda *text: None).find(key)
    if handle is None:
        raise SettingsError(
            f"the {where.kind} executor's back-end has no job {key}: give the whole key, as the task's log has it; "
            "what ended is forgotten after the executor's ttl"
        )
    return where, handle


def _facts(key: str, executor: str) -> dict[str, Any]:
    if executor:
        where, handle = find_job(key, executor)

        async def ask() -> JobStatus:
            return (await JobService.shared(where).status([handle]))[handle.key]

        return _row_of(handle, where.kind, blocking.run(ask()))
    records = Records()
    record = records.look_up(key)
    if record is None:
        if (found := _find_run(key)) is not None:
            return _row_of_run(found)
        record = records.find(key)  # which says what is wrong
    row = _row(record)
    run = record.tracked
    if run is not None and run.ref is not None:
        row["run_id"] = run.ref.run_id
    return {**row, "config": record.digest, **({"run_page": record.run_page} if record.run_page else {})}


def _launched(limit: int, recorded: Iterable[JobRun]) -> list[dict[str, Any]]:
    """Returns the newest of the jobs that were launched here, and of those that only MLflow has."""
    records = Records().list()
    here = {record.key for record in records}
    found: list[Launched | JobRun] = [*records[:limit], *(run for run in recorded if run.key not in here)]
    found.sort(key=lambda each: each.launched_at if isinstance(each, Launched) else each.began, reverse=True)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(
            pool.map(lambda each: _row(each) if isinstance(each, Launched) else _row_of_run(each), found[:limit])
        )


def _recorded(limit: int, tracking_uri: str | None, conn_id: str | None) -> list[JobRun]:
    try:
        return JobRuns(tracking_uri, conn_id).newest(limit)
    except (TrackingError, SettingsError, MissingExtraError) as error:
        say(f"only jobs that were launched from this machine are listed: {error}")
        return []


def _find_run(key: str) -> JobRun | None:
    """Returns the run in MLflow of a job that was not launched from this machine, or None."""
    try:
        return JobRuns().find(key)
    except (TrackingError, SettingsError, MissingExtraError):  # the job is asked for, which need not be in MLflow
        return None


def _row_of_run(run: JobRun) -> dict[str, Any]:
    """Returns what MLflow tells of a job; whether it really runs on, only its back-end knows."""
    return {
        "key": run.key,
        "name": run.name,
        "state": run.state,
        "failure": run.failure,
        "exit_code": run.exit_code,
        "reason": run.reason,
        "executor": run.kind,
        "id": run.job_id,
        "cluster": run.cluster,
        "submitted_at": run.began,
        "source": "mlflow",
        "run_id": run.run_id,
    }


def _row(record: Launched) -> dict[str, Any]:
    row = _row_of(record.job, str(record.executor["kind"]), known_status(record))
    submitted_at = record.job.submitted_at or record.launched_at
    return {**row, "name": record.name, "submitted_at": submitted_at, "source": "here"}


def _row_of(handle: JobHandle, kind: str, status: JobStatus) -> dict[str, Any]:
    return {
        "key": handle.key,
        "name": "",
        "state": str(status.state),
        "failure": str(status.failure or ""),
        "exit_code": status.exit_code,
        "reason": status.reason,
        "executor": kind,
        "id": handle.id,
        "cluster": handle.cluster,
        "submitted_at": handle.submitted_at,
    }


def _on_back_end(executor: Executor) -> list[dict[str, Any]]:
    async def ask() -> list[dict[str, Any]]:
        driver = executor.connect()
        try:
            found = await driver.survey()
            labels = await driver.labels(found)
            known = await JobService(driver).status(found) if found else {}
        finally:
            await driver.close()
        rows = [_row_of(handle, executor.kind, known[handle.key]) for handle in found]
        return [{**row, "name": _task_of(labels.get(row["key"], {})), "source": "back-end"} for row in rows]

    return asyncio.run(ask())


def _task_of(labels: Mapping[str, str]) -> str:
    return ".".join(labels[name] for name in ("dag_id", "task_id") if labels.get(name)) or labels.get("user", "")


def _print_table(rows: Iterable[Mapping[str, Any]]) -> None:
    def cells(row: Mapping[str, Any]) -> list[str]:
        state = f"{row['state']} ({row['failure']})" if row["failure"] and row["state"] == "failed" else row["state"]
        source = "MLflow" if row["source"] == "mlflow" else row["source"]
        submitted, reason = time_text(row["submitted_at"]), row["reason"] or ""
        return [row["key"], row["name"], state, row["executor"], submitted, source, reason]

    print_table(("KEY", "NAME", "STATE", "EXECUTOR", "SUBMITTED", "FROM", "REASON"), map(cells, rows))


def _print_facts(facts: Mapping[str, Any], output: str) -> None:
    if output == JSON:
        print_json(facts)
        return
    for name, value in facts.items():
        if value not in ("", None):
            print(f"{name.replace('_', ' ')}: {time_text(value) if name == 'submitted_at' else value}")
