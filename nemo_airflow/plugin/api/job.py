"""What a job is and how far it is: the head of its page, its attempts and its phases."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models.dag import DagModel, DagOwnerAttributes
from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.orm import Session

from nemo_airflow import settings
from nemo_airflow.exceptions import NemoAirflowError, SettingsError
from nemo_airflow.job import JobHandle, JobState
from nemo_airflow.operators.links import console_page
from nemo_airflow.plugin.api.answers import Answer, JobPlace, TrackerState
from nemo_airflow.plugin.api.found import FoundJob, FoundJobDep
from nemo_airflow.plugin.api.phases import ACTIVE, Phase, phases_of, state_of
from nemo_airflow.tracking.base import ATTEMPTS
from nemo_airflow.tracking.forges import commit_page
from nemo_airflow.tracking.mlflow import fields
from nemo_airflow.tracking.mlflow.address import run_page
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.web_address import web_address

router = APIRouter(tags=["job"])

_EXPECTED = re.compile(r",? *expected to start at (?P<at>\S+)$")
"""How a back-end's reason for a wait ends that says when it will be over."""

_ATTEMPTS_AT_MOST = 100


class NamedLink(Answer):
    """A link.

    Attributes:
        name: What it leads to.
        url: The address, of ``http`` or ``https``.
    """

    name: str
    url: str


class JobHead(Answer):
    """The head of a job's page. What is not known is empty.

    Attributes:
        key: The job's key.
        name: Its name, for people.
        place: Its task instance.
        newest: Whether this is the newest attempt of its task instance, as far as Airflow knows.
        mlflow_run_id: Its run in MLflow.
        mlflow_url: Where that can be seen.
        tracker: The MLflow that has it.
        state: How it ended, or ``pending``, ``running`` or ``unknown``.
        task_state: The state of its task instance in Airflow.
        try_number: The try of its task instance.
        why: Why it waits, or why it failed, in one line.
        expected_start: When its back-end expects to start it, in the back-end's words and time zone.
        failure: The kind of its failure.
        exit_code: That of its process.
        host: Where it runs.
        back_end: The kind of its executor.
        cluster: Which back-end of this kind.
        job_id: Its id there.
        back_end_url: Where the back-end shows it.
        user: Who started it.
        owners: The owners of its DAG.
        links: The links of the DAG's owners.
        commit: The git commit of its code.
        commit_url: Where that can be seen.
        branch: Its branch.
        dirty: ``true`` with uncommitted changes, ``included`` with files that git does not track, else ``false``.
        submitted: When it was submitted, in seconds since the epoch.
        started: When it began to run; None where nobody has recorded that.
        ended: When it ended.
        reused: When it was reused by this task, which then has submitted no job of its own; None where it did.
        phases: What it went through, the first one first.
        phases_from: Who tells of them: ``follower``, ``tracker``, or ``airflow`` where only a few times are known.
        active: Whether it may still change.
        now: The server's time, since a browser's clock may differ.
    """

    key: str
    name: str
    place: JobPlace
    newest: bool
    mlflow_run_id: str = ""
    mlflow_url: str = ""
    tracker: TrackerState
    state: str
    task_state: str = ""
    try_number: int = 0
    why: str = ""
    expected_start: str = ""
    failure: str = ""
    exit_code: int | None = None
    host: str = ""
    back_end: str = ""
    cluster: str = ""
    job_id: str = ""
    back_end_url: str = ""
    user: str = ""
    owners: str = ""
    links: list[NamedLink]
    commit: str = ""
    commit_url: str = ""
    branch: str = ""
    dirty: str = ""
    submitted: float | None = None
    started: float | None = None
    ended: float | None = None
    reused: float | None = None
    phases: list[Phase]
    phases_from: str
    active: bool
    now: float


class Attempt(Answer):
    """One attempt at the job of a task instance that has a run of its own.

    Attributes:
        mlflow_run_id: Its run.
        key: The job's key.
        number: Its number, from 1; by the time when they began.
        try_number: The try of the task that submitted it, or 0.
        state: How it ended.
        failure: The kind of its failure, or empty.
        started: When it began.
        continues: Keys of the attempts from whose checkpoints it goes on, the newest first.
    """

    mlflow_run_id: str
    key: str
    number: int
    try_number: int = 0
    state: str
    failure: str = ""
    started: float
    continues: list[str]


class Attempts(Answer):
    """The attempts at the job of a task instance.

    Attributes:
        attempts: The newest first.
        tracker: The MLflow that has them.
    """

    attempts: list[Attempt]
    tracker: TrackerState


@router.get("/job")
def get_job(session: SessionDep, found: FoundJobDep) -> JobHead:
    """Returns the head of a job's page."""
    record, run, task = found.record, found.run, found.task
    handle = _handle(record, run)
    package = record.get("package") or {}
    tags = run.tags if run else {}
    commit = str(package.get("commit") or tags.get("nemo_airflow.commit", ""))
    origin = str(package.get("origin") or tags.get("mlflow.source.git.repoURL", ""))
    state = state_of(run, found.live, str(task.state or "") if record and task is not None else "")
    why, expected = _reason(found, state)
    phases, told_by = phases_of(found, state)
    owners, links = _owners(session, found.place.dag_id)
    reused = record.get("reused_at")
    return JobHead(
        key=found.key,
        name=(run.name if run else "") or found.place.task_id,
        place=found.place,
        newest=bool(record),
        mlflow_run_id=run.run_id if run else str((record.get("run") or {}).get("run_id") or ""),
        mlflow_url=_page_of_run(found),
        tracker=found.tracker,
        state=state,
        task_state=str(task.state or "") if task else "",
        try_number=task.try_number if task else 0,
        why=why,
        expected_start=expected,
        failure=run.failure if run else "",
        exit_code=run.exit_code if run else None,
        host=str(found.live.get("host") or tags.get("nemo_airflow.host", "")),
        back_end=handle.kind,
        cluster=handle.cluster,
        job_id=handle.id,
        back_end_url=console_page(handle, lambda warning: None) if handle.id else "",
        user=(run.user if run else "") or str((task.unixname if task else "") or ""),
        owners=owners,
        links=links,
        commit=commit,
        commit_url=web_address(commit_page(origin, commit)),
        branch=str(package.get("branch") or tags.get("mlflow.source.git.branch", "")),
        dirty=_dirty(package, tags),
        submitted=handle.submitted_at or (run.began if run else None),
        started=_started(phases) if told_by != "airflow" else None,
        ended=_ended(found, state),
        reused=float(reused) if isinstance(reused, (int, float)) else None,
        phases=phases,
        phases_from=told_by,
        active=_is_active(found, state),
        now=datetime.datetime.now(datetime.UTC).timestamp(),
    )


@router.get("/job/attempts")
def get_attempts(found: FoundJobDep) -> Attempts:
    """Returns the attempts at the job of the task instance, those that have a run in MLflow."""
    place, source = found.place, found.source
    if source is None or not place.dag_id or found.tracker.away:
        return Attempts(attempts=[], tracker=found.tracker)
    try:
        which = _of_place(place)
        runs = source.runs().matching(which, _ATTEMPTS_AT_MOST) if which else []
    except NemoAirflowError as error:
        return Attempts(attempts=[], tracker=TrackerState(uri=found.tracker.uri, away=str(error)))
    own = sorted((run for run in runs if run.key and _index(run) == place.map_index), key=lambda run: run.began)
    return Attempts(
        attempts=[_attempt(number, run) for number, run in enumerate(own, 1)][::-1],
        tracker=found.tracker,
    )


def _of_place(place: JobPlace) -> str:
    """Returns MLflow's filter for the runs of a task instance; empty where MLflow can write none for it."""
    values = {"dag_id": place.dag_id, "run_id": place.dag_run_id, "task_id": place.task_id}
    if any("'" in value and '"' in value for value in values.values()):
        return ""
    quotes = {name: '"' if "'" in value else "'" for name, value in values.items()}
    return " AND ".join(f"tags.`airflow.{name}` = {quotes[name]}{each}{quotes[name]}" for name, each in values.items())


def _index(run: JobRun) -> int:
    text = run.tags.get("airflow.map_index", "")
    return int(text) if text.removeprefix("-").isdecimal() else -1


def _attempt(number: int, run: JobRun) -> Attempt:
    tried = run.tags.get("airflow.try_number", "")
    return Attempt(
        mlflow_run_id=run.run_id,
        key=run.key,
        number=number,
        try_number=int(tried) if tried.isdecimal() else 0,
        state=run.state,
        failure=run.failure,
        started=run.began,
        continues=run.tags.get(ATTEMPTS, "").split()[1:],
    )


def _handle(record: Mapping[str, Any], run: JobRun | None) -> JobHandle:
    told = record.get("handle")
    if isinstance(told, Mapping):
        at = told.get("submitted_at")
        key, kind, job_id, cluster = (str(told.get(name) or "") for name in ("key", "kind", "id", "cluster"))
        return JobHandle(key, kind, job_id, cluster, float(at) if isinstance(at, (int, float)) else 0.0)
    if run is not None:
        return JobHandle(run.key, run.kind, run.job_id, run.cluster)
    return JobHandle("", "", "")


def _reason(found: FoundJob, state: str) -> tuple[str, str]:
    """Returns why it waits or failed, and when it is expected to start."""
    failed = found.run.reason if found.run else ""
    why = " ".join((failed or str(found.live.get("why") or "")).split())
    if state != JobState.PENDING or (match := _EXPECTED.search(why)) is None:
        return why, ""
    return why[: match.start()], match["at"]


def _started(phases: Sequence[Phase]) -> float | None:
    return next((phase.at for phase in phases if phase.state == JobState.RUNNING), None)


def _dirty(package: Mapping[str, Any], tags: Mapping[str, str]) -> str:
    if package:
        return "true" if package.get("dirty") else "included" if package.get("included") else "false"
    return tags.get("nemo_airflow.dirty", "")


def _ended(found: FoundJob, state: str) -> float | None:
    if found.run is not None and found.run.tags.get(fields.STATE):
        return found.run.ended_at
    if found.run is None and found.task is not None and found.task.end_date and state != JobState.RUNNING:
        return found.task.end_date.timestamp()
    return None


def _is_active(found: FoundJob, state: str) -> bool:
    """Returns whether the job, or what is known of it, may still change."""
    if found.run is not None and found.run.tags.get(fields.STATE):
        return False
    if state in (JobState.PENDING, JobState.RUNNING):
        return True
    return found.task is not None and found.task.state in (*ACTIVE, "up_for_retry")


def _page_of_run(found: FoundJob) -> str:
    told = found.record.get("run")
    if isinstance(told, Mapping) and (url := web_address(told.get("url"))):
        return url
    run = found.run
    try:
        page = settings.mlflow_page() or found.tracker.uri
    except SettingsError:  # said in the job's log
        page = ""
    return web_address(run_page(page, run.experiment_id, run.run_id)) if run is not None and page else ""


def _owners(session: Session, dag_id: str) -> tuple[str, list[NamedLink]]:
    if not dag_id:
        return "", []
    owners = session.scalar(select(DagModel.owners).where(DagModel.dag_id == dag_id)) or ""
    rows = session.scalars(select(DagOwnerAttributes).where(DagOwnerAttributes.dag_id == dag_id))
    links = [NamedLink(name=row.owner, url=url) for row in rows if (url := web_address(row.link))]
    return owners, links
