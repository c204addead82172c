"""Lists the jobs of all DAGs that the user may read: from MLflow, and from Airflow's database what MLflow lacks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Depends, HTTPException, Query
from sqlalchemy.orm import Session

from nemo_airflow.exceptions import NemoAirflowError, SettingsError, TrackingError
from nemo_airflow.job import JobState
from nemo_airflow.plugin.api.airflow_jobs import (
    AirflowJob,
    AirflowQuery,
    dags_with_jobs,
    read_jobs,
    read_live,
)
from nemo_airflow.plugin.api.answers import Answer, JobPlace, Number, TrackerState, to_number
from nemo_airflow.plugin.api.found import LIVE, default_source, place_of, read_tasks, read_xcoms
from nemo_airflow.plugin.api.listing import Found, Listing, Position, only_airflow
from nemo_airflow.plugin.api.phases import ACTIVE, state_of
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.tracking.mlflow.fields import PARENT
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.queries import NEWEST, Comparison, RunQuery, parse_pairs
from nemo_airflow.tracking.mlflow.store import RUN_ID

router = APIRouter(tags=["runs"])

_LARGEST_PAGE = 200

_NAMED = 20
"""Newest runs whose metrics, parameters and tags are offered: one page, as the list itself asks for it."""

_LIVE_AT_MOST = 500

_LINES_AT_MOST, _POINTS = 100, 48
"""Sparklines of one request, which is as many as MLflow takes, and points of each."""

_INTERNAL = ("mlflow.", "nemo_airflow.", "airflow.")
"""Beginnings of the tags that are not the user's own."""


class RunRow(Answer):
    """A job in a list.

    Attributes:
        key: The job's key.
        name: Its name, for people.
        mlflow_run_id: Its run in MLflow, or empty.
        place: Its task instance.
        state: How it ended, or ``pending`` or ``running``.
        task_state: The state of its task instance in Airflow; empty where that is gone.
        why: Why it waits, or why it failed, in one line.
        back_end: The kind of its executor.
        cluster: Which back-end of this kind.
        job_id: Its id there.
        user: Who started it.
        started: When it began, in seconds since the epoch.
        seconds: How long it ran; None while it runs.
        values: The values of the wanted columns that it has.
        parent: The run in MLflow below which it is, or empty.
        may_stop: Whether it may be under way, and the user may end it.
        may_clear: Whether the user may have its task run again.
    """

    key: str
    name: str
    mlflow_run_id: str = ""
    place: JobPlace
    state: str
    task_state: str = ""
    why: str = ""
    back_end: str = ""
    cluster: str = ""
    job_id: str = ""
    user: str = ""
    started: float = 0.0
    seconds: float | None = None
    values: dict[str, Number | str]
    parent: str = ""
    may_stop: bool = False
    may_clear: bool = False


class RunList(Answer):
    """A page of jobs.

    Attributes:
        runs: The jobs.
        next_page: The token of the next page, or empty.
        sorts_only: Only so many of the newest jobs are sorted, since the user may read few of many DAGs; 0 for all.
        tracker: The MLflow that they are from.
    """

    runs: list[RunRow]
    next_page: str = ""
    sorts_only: int = 0
    tracker: TrackerState


class RunNames(Answer):
    """What jobs can be filtered, sorted and shown by.

    Attributes:
        dags: DAGs with jobs.
        back_ends: Kinds of executors.
        users: Who has started jobs.
        metrics: Names of metrics of the newest jobs.
        params: Paths of their configs, and what they have logged as parameters.
        tags: Their tags, without those of MLflow, Airflow and this provider.
    """

    dags: Sequence[str]
    back_ends: Sequence[str] = ()
    users: Sequence[str] = ()
    metrics: Sequence[str] = ()
    params: Sequence[str] = ()
    tags: Sequence[str] = ()


class BestRun(Answer):
    """The best of the jobs that a filter selects.

    Attributes:
        run: The job; None where none has the metric, or MLflow does not answer.
        value: The metric's newest value of it.
        of_newest: Only so many of the newest jobs were looked at; 0 for all.
    """

    run: RunRow | None
    value: Number | None = None
    of_newest: int = 0


class Sparkline(Answer):
    """A metric of a job, as a few points.

    Attributes:
        steps: The steps, in their order.
        values: The values there.
    """

    steps: list[int]
    values: list[Number]


class Sparklines(Answer):
    """A metric of several jobs.

    Attributes:
        lines: The points by run; without those that have no such metric, that are gone, or that the user may not see.
        tracker: The MLflow that has them.
    """

    lines: dict[str, Sparkline]
    tracker: TrackerState


class LiveRun(Answer):
    """A job that may be under way.

    Attributes:
        key: The job's key.
        state: Its state.
        task_state: That of its task.
        why: Why it waits, in one line.
    """

    key: str
    state: str
    task_state: str
    why: str = ""


class LiveRuns(Answer):
    """The jobs that may be under way.

    Attributes:
        runs: The jobs; at most 500.
        newest: The key of the newest job of all, or empty.
    """

    runs: list[LiveRun]
    newest: str = ""


def read_query(
    rights: RightsDep,
    dag_id: str = "",
    task_id: str = "",
    state: str = "",
    back_end: str = "",
    user: str = "",
    tag: Annotated[Sequence[str], Query()] = (),
    config: Annotated[Sequence[str], Query()] = (),
    metric: Annotated[Sequence[str], Query()] = (),
    since: float | None = None,
    until: float | None = None,
    sort: str = NEWEST,
) -> RunQuery:
    """Returns the filter of a request.

    Raises:
        HTTPException: 403 if the user may not read its DAG, 422 if it is none.
    """
    if dag_id:
        rights.need(rights.may_read(dag_id))
    try:
        query = RunQuery(
            dag=dag_id, task=task_id, state=state, back_end=back_end, user=user,
            tags=parse_pairs(tag, "tag"), config=parse_pairs(config, "config"),
            metrics=[Comparison.parse(text) for text in metric], since=since, until=until, sort=sort,
        )  # fmt: skip
        query.to_filter()
        query.to_order()
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    return query


RunQueryDep = Annotated[RunQuery, Depends(read_query)]


@router.get("/runs")
def list_runs(
    session: SessionDep,
    rights: RightsDep,
    query: RunQueryDep,
    column: Annotated[Sequence[str], Query()] = (),
    limit: Annotated[int, Query(ge=1, le=_LARGEST_PAGE)] = 50,
    page: str = "",
) -> RunList:
    """Returns a page of the jobs that the user may see, and that the filters select."""
    uri, sorts_only = "", 0
    found: Sequence[Found]
    try:
        listing = Listing(session, rights, default_source())
        uri = listing.uri
        found, following = listing.page(query, limit, page)
        sorts_only, away = listing.sorts_only(query), ""
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    except NemoAirflowError as error:
        _refuse_what_is_wrong(error)
        found, following = _without_mlflow(session, rights, query, limit, page)
        away = str(error)
    rows = list(_rows(session, rights, found, column))
    return RunList(runs=rows, next_page=following, sorts_only=sorts_only, tracker=TrackerState(uri=uri, away=away))


@router.get("/runs/names")
def list_names(session: SessionDep, rights: RightsDep, query: RunQueryDep) -> RunNames:
    """Returns what the newest of the jobs that the filters select have: names for columns and filters."""
    dags = [dag_id for dag_id in dags_with_jobs(session) if rights.may_read(dag_id)]
    try:
        runs = Listing(session, rights, default_source()).first(query, _NAMED)
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    except NemoAirflowError:
        jobs = _without_mlflow(session, rights, query, _NAMED, "")[0]
        return RunNames(dags=dags, back_ends=_texts(job.kind for job in jobs))
    return RunNames(
        dags=sorted({*dags, *_texts(run.dag_id for run in runs)}),
        back_ends=_texts(run.kind for run in runs),
        users=_texts(run.user for run in runs),
        metrics=_texts(name for run in runs for name in run.metrics),
        params=_texts(name for run in runs for name in run.params if not name.startswith(_INTERNAL)),
        tags=_texts(name for run in runs for name in run.tags if not name.startswith(_INTERNAL)),
    )


@router.get("/runs/best")
def find_best(
    session: SessionDep,
    rights: RightsDep,
    query: RunQueryDep,
    goal: str,
    better: Literal["min", "max"] = "min",
    column: Annotated[Sequence[str], Query()] = (),
) -> BestRun:
    """Returns the job with the lowest or the highest newest value of a metric, of all that the filters select."""
    best = _sorted_by(query, f"{'-' if better == 'max' else ''}metrics.{goal}")
    try:
        listing = Listing(session, rights, default_source())
        first = listing.first(best, 1)
        of_newest = listing.sorts_only(best)
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    except NemoAirflowError as error:
        _refuse_what_is_wrong(error)
        return BestRun(run=None)
    value = first[0].metrics.get(goal) if first else None
    if value is None or value != value:  # all have NaN, which MLflow puts behind the numbers
        return BestRun(run=None, of_newest=of_newest)
    [row] = _rows(session, rights, first, column)
    return BestRun(run=row, value=to_number(value), of_newest=of_newest)


@router.get("/runs/sparklines")
def list_sparklines(
    session: SessionDep,
    rights: RightsDep,
    metric: Annotated[str, Query(min_length=1)],
    mlflow_run_id: Annotated[list[str], Query(max_length=_LINES_AT_MOST)],
) -> Sparklines:
    """Returns a metric of several jobs in a few points each, for lines as high as a row."""
    uri = ""
    try:
        listing = Listing(session, rights, default_source())
        uri = listing.uri
        found = listing.lines([each for each in mlflow_run_id if RUN_ID.fullmatch(each)], metric, _POINTS)
    except NemoAirflowError as error:
        return Sparklines(lines={}, tracker=TrackerState(uri=uri, away=str(error)))
    lines = {
        run_id: Sparkline(steps=[point.step for point in points], values=[to_number(point.value) for point in points])
        for run_id, points in found.items()
        if points
    }
    return Sparklines(lines=lines, tracker=TrackerState(uri=uri))


@router.get("/runs/live")
def list_live(session: SessionDep, rights: RightsDep) -> LiveRuns:
    """Returns the jobs that may be under way, as Airflow's database knows them; MLflow is not asked."""
    newest = read_jobs(session, rights, AirflowQuery(), 1)
    jobs = read_jobs(session, rights, AirflowQuery(active=True), _LIVE_AT_MOST)
    live = read_live(session, jobs)
    runs = []
    for job in jobs:
        told = live.get(job.place, {})
        runs.append(
            LiveRun(key=job.key, state=job.state(told), task_state=job.task_state, why=str(told.get("why") or ""))
        )
    return LiveRuns(runs=runs, newest=newest[0].key if newest else "")


def _sorted_by(query: RunQuery, sort: str) -> RunQuery:
    try:
        changed = dataclasses.replace(query, sort=sort)
        changed.to_order()
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    return changed


def _refuse_what_is_wrong(error: NemoAirflowError) -> None:
    """Refuses what MLflow would refuse again; anything else is an outage."""
    if isinstance(error, TrackingError) and error.code == "INVALID_PARAMETER_VALUE":
        raise HTTPException(422, str(error)) from error


def _without_mlflow(
    session: Session, rights: Rights, query: RunQuery, limit: int, page: str
) -> tuple[list[AirflowJob], str]:
    """Returns a page of the jobs of which Airflow has records, whatever MLflow knows of them."""
    try:
        before = Position.from_text(page).before if page else None
    except SettingsError as error:
        raise HTTPException(422, str(error)) from error
    jobs = only_airflow(session, rights, query, None, limit, before=before)
    return jobs, Position(before=jobs[-1].at).to_text() if len(jobs) == limit else ""


def _texts(texts: Any) -> list[str]:
    return sorted({text for text in texts if text})


def _rows(session: Session, rights: Rights, found: Sequence[Found], columns: Sequence[str]) -> Iterator[RunRow]:
    """Yields the rows of jobs, with what Airflow knows of their tasks."""
    places = {place_of(each) if isinstance(each, JobRun) else each.place for each in found}
    places.discard(JobPlace())
    tasks = read_tasks(session, places) if places else {}
    lives = read_xcoms(session, LIVE, places) if places else {}
    for each in found:
        row = _row_of_run(each, columns) if isinstance(each, JobRun) else _row_of_job(each)
        task, live = tasks.get(row.place), lives.get(row.place) or {}
        changes: dict[str, Any] = {}
        if task is not None:
            may_end = rights.may_stop(row.place.dag_id)
            changes["task_state"] = str(task.state or "")
            changes |= {"may_stop": may_end and task.state in ACTIVE, "may_clear": may_end}
        if live.get("key") == row.key:
            run = each if isinstance(each, JobRun) else None
            changes["state"] = state = state_of(run, live, changes.get("task_state", ""))
            if state != JobState.SUCCEEDED and not row.why:
                changes["why"] = str(live.get("why") or "")
        yield row.model_copy(update=changes)


def _row_of_run(run: JobRun, columns: Sequence[str]) -> RunRow:
    return RunRow(
        key=run.key,
        name=run.name,
        mlflow_run_id=run.run_id,
        place=place_of(run),
        state=run.state,
        why=run.reason,
        back_end=run.kind,
        cluster=run.cluster,
        job_id=run.job_id,
        user=run.user,
        started=run.began,
        seconds=run.seconds,
        values=dict(_values(run, columns)),
        parent=run.tags.get(PARENT, ""),
    )


def _row_of_job(job: AirflowJob) -> RunRow:
    return RunRow(
        key=job.key,
        name=job.place.task_id,
        place=job.place,
        state=job.state({}),
        back_end=job.kind,
        cluster=job.cluster,
        job_id=job.job_id,
        started=job.at,
        seconds=None if job.ended is None else max(0.0, job.ended - job.at),
        values={},
    )


def _values(run: JobRun, columns: Sequence[str]) -> Iterator[tuple[str, Number | str]]:
    kinds: Mapping[str, Mapping[str, Any]] = {"metrics": run.metrics, "params": run.params, "tags": run.tags}
    for column in columns:
        kind, _, name = column.partition(".")
        value = kinds.get(kind, {}).get(name)
        if isinstance(value, float):
            yield column, to_number(value)
        elif value is not None:
            yield column, str(value)
