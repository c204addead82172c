"""How the jobs of an experiment stand: from what is recorded of them, and from their back-ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nemo_airflow.experiment.order import Standing, standing_of_group
from nemo_airflow.experiment.records import RecordedExperiment, RecordedJob, RecordedTask
from nemo_airflow.job import JobState
from nemo_airflow.launch.following import known_status
from nemo_airflow.launch.records import Launched, Records


@dataclasses.dataclass(frozen=True)
class JobLine:
    """How one job of an experiment stands.

    Attributes:
        job: Its id in the experiment.
        name: Its own name: that of its group with a number, or the id.
        status: ``waiting``, ``not started``, or the state of the submitted job.
        executor: The kind of its executor.
        key: Key of the job; empty until it is submitted.
        id: The back-end's own id, or empty.
        reason: Why it waits, was not started or has failed.
        run_page: The address of its run's page, or empty.
    """

    job: str
    name: str
    status: str
    executor: str
    key: str = ""
    id: str = ""
    reason: str = ""
    run_page: str = ""


def launched_of(job: RecordedJob) -> list[Launched | None]:
    """Returns the records of the submitted jobs of a job or a group; None for each that is not submitted."""
    records = Records()
    return [records.get(task.key) if task.key else None for task in job.tasks]


def has_ended(record: RecordedExperiment) -> bool:
    """Returns whether no job of an experiment runs or waits, as far as this machine knows."""

    def is_over(job: RecordedJob) -> bool:
        may_begin = not (job.refusal or job.is_cancelled) and not all(task.key for task in job.tasks)
        return not may_begin and all(each is None or each.end is not None for each in launched_of(job))

    return all(map(is_over, record.jobs))


def look_at(job: RecordedJob, task: RecordedTask) -> JobLine:
    """Returns how one job stands; its back-end is asked, unless it has ended."""
    line = JobLine(job.id, task.name, Standing.WAITING, str(task.executor["kind"]), task.key)
    launched = Records().get(task.key) if task.key else None
    if job.refusal and launched is None:
        return dataclasses.replace(line, status=Standing.NOT_STARTED, reason=job.refusal)
    if launched is None:
        reason = "it was cancelled" if job.is_cancelled else waits_for(job.dependencies)
        return dataclasses.replace(line, reason=reason)
    status = known_status(launched)
    return dataclasses.replace(
        line, status=str(status.state), id=launched.job.id, reason=status.reason, run_page=launched.run_page
    )


def facts_of_job(lines: Sequence[JobLine]) -> dict[str, str]:
    """Returns how a job, or a group as a whole, stands, from its lines."""
    first = lines[0]
    status = first.status
    if len(lines) > 1:
        found = [None if line.status in (Standing.WAITING, Standing.NOT_STARTED) else line.status for line in lines]
        status = (
            first.status if not any(found) else standing_of_group(JobState(each) if each else None for each in found)
        )
    return {
        "name": first.job,
        "status": str(status),
        "executor": first.executor,
        "job_id": first.id,
        "key": first.key,
        "reason": next((line.reason for line in lines if line.reason), ""),
    }


def waits_for(dependencies: Sequence[str]) -> str:
    """Returns the reason why a job waits that depends on others, or nothing."""
    return f"for {', '.join(dependencies)}" if dependencies else ""


def table_of(lines: Sequence[JobLine], title: str) -> str:
    """Returns a table for people of how jobs stand."""
    columns = ("JOB", "STATUS", "EXECUTOR", "KEY", "REASON")
    rows = [columns, *((line.name, line.status, line.executor, line.key, line.reason) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    texts = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([title, *texts])
