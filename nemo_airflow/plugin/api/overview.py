"""Jobs at a glance: what runs, what waits, what has failed today. MLflow is not asked."""

from __future__ import annotations

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter

from nemo_airflow.plugin.api.airflow_jobs import AirflowQuery, read_jobs, read_live
from nemo_airflow.plugin.api.answers import Answer, JobPlace
from nemo_airflow.plugin.api.rights import RightsDep

router = APIRouter(tags=["overview"])

_COUNTED = 10_000
_NEWEST = 5


class NewestJob(Answer):
    """One of the newest jobs.

    Attributes:
        key: The job's key.
        place: Its task instance.
        state: Its state.
        why: Why it waits, in one line.
        started: When it was submitted, in seconds since the epoch.
    """

    key: str
    place: JobPlace
    state: str
    why: str = ""
    started: float


class Overview(Answer):
    """Jobs at a glance, of the DAGs that the user may read.

    Attributes:
        running: Jobs that run.
        waiting: Jobs that wait for their back-end.
        gpus: GPUs of those that run; None where no record of them tells.
        failed: Jobs whose tasks have failed since the time of the request.
        newest: The newest jobs.
    """

    running: int
    waiting: int
    gpus: int | None
    failed: int
    newest: list[NewestJob]


@router.get("/overview")
def show_overview(session: SessionDep, rights: RightsDep, failed_since: float = 0.0) -> Overview:
    """Returns the jobs at a glance."""
    active = read_jobs(session, rights, AirflowQuery(active=True), _COUNTED)
    live = read_live(session, active)
    states = {job.key: job.state(live.get(job.place, {})) for job in active}
    running = [job for job in active if states[job.key] == "running"]
    known = [job.gpus for job in running if job.gpus is not None]
    failed = read_jobs(session, rights, AirflowQuery(state="failed", ended_since=failed_since), _COUNTED)
    newest = read_jobs(session, rights, AirflowQuery(), _NEWEST)
    return Overview(
        running=len(running),
        waiting=sum(state == "pending" for state in states.values()),
        gpus=sum(known) if known or not running else None,
        failed=len(failed),
        newest=[
            NewestJob(
                key=job.key,
                place=job.place,
                state=states.get(job.key) or job.state({}),
                why=str(live.get(job.place, {}).get("why") or ""),
                started=job.at,
            )
            for job in newest
        ],
    )
