"""The back-ends: how each fares, our jobs and orphans there, and the disk that we use. Nothing is deleted from here."""

from __future__ import annotations

import asyncio
import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.logging.decorators import action_logging
from airflow.models.connection import Connection
from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from nemo_airflow.doctor.back_ends import CONNECTION_TYPES
from nemo_airflow.exceptions import BackendUnavailable, NemoAirflowError
from nemo_airflow.executors.finding import Verdict
from nemo_airflow.plugin import back_ends as looking
from nemo_airflow.plugin.api.answers import Answer, Done, JobPlace
from nemo_airflow.plugin.api.rights import Rights, RightsDep
from nemo_airflow.plugin.back_ends import Examined, FoldersUsed, StoreUsed
from nemo_airflow.plugin.background import Background
from nemo_airflow.reaping import (
    MIN_AGE,
    WAITED_FOR,
    StateOf,
    Surveyed,
    end_orphans,
    orphans_among,
    record_ends,
    state_in_database,
    survey,
)

router = APIRouter(tags=["back-ends"])

_MOST_JOBS = 500
_AT_ONCE = 3
"""Back-ends that are examined at the same time."""

_FRESH = 600.0
"""Seconds after which a back-end is examined again, while somebody looks."""

_ENDING, _LOOK_AGAIN = 120.0, 5.0
"""Seconds for which jobs that were told to end may still be there, and after which one looks again meanwhile."""

_VERDICTS = (Verdict.FAIL, Verdict.WARN, Verdict.OK)
_FOLDERS, _STORE = "folders ", "store"


class BackEndFinding(Answer):
    """One thing that an examination has looked at.

    Attributes:
        name: The thing, in a few words.
        verdict: How it fares.
        said: What was seen, in one line.
        fix: What mends it; empty if nothing needs to be.
    """

    name: str
    verdict: Literal["ok", "warn", "fail"]
    said: str = ""
    fix: str = ""


class BackEndJob(Answer):
    """A job that runs on a back-end, or waits there.

    Attributes:
        place: Its task instance; empty for a job of no task, and of another Airflow.
        key: The job's key.
        job_id: Its id there.
        state: How it fares there.
        why: Why it waits, in one line.
        submitted: When it was submitted, in seconds since the epoch.
        task_state: The state of its task in this Airflow.
        owner: Whose it is: ``task``, ``orphan`` (its task has ended, or was cleared), ``young`` (that as well, but it
            was submitted so recently that this may change), ``other`` (of another Airflow) or ``none`` (of no task).
    """

    place: JobPlace
    key: str
    job_id: str
    state: str
    why: str = ""
    submitted: float
    task_state: str = ""
    owner: Literal["task", "orphan", "young", "other", "none"]


class BackEnd(Answer):
    """A back-end.

    Attributes:
        id: Its id in this API.
        name: The connection, or what is this machine's own.
        conn_type: The connection's type; empty without one.
        checked: When it was examined, in seconds since the epoch; None if it was not yet.
        is_checking: Whether it is being examined.
        verdict: How it fares: the worst of the findings; empty before they are there.
        findings: What was looked at, failures first.
        states: How many of our jobs there are in each state, those that the user may not see among them.
        jobs: Our jobs.
        left_out: How many are not listed: too many, or of DAGs that the user may not see.
        trouble: Why the jobs are not known; empty if they are.
        may_reap: Whether the user may end its orphans.
    """

    id: str
    name: str
    conn_type: str = ""
    checked: float | None = None
    is_checking: bool = False
    verdict: Literal["", "ok", "warn", "fail"] = ""
    findings: list[BackEndFinding] = Field(default_factory=list)
    states: dict[str, int] = Field(default_factory=dict)
    jobs: list[BackEndJob] = Field(default_factory=list)
    left_out: int = 0
    trouble: str = ""
    may_reap: bool = False


class BackEndList(Answer):
    """The back-ends that the user may see.

    Attributes:
        back_ends: The back-ends.
    """

    back_ends: list[BackEnd]


class FolderUse(Answer):
    """The disk that jobs use on a back-end.

    Attributes:
        id: The back-end.
        name: Its name.
        size: Bytes; None where that is not known.
        old: Folders of ended jobs that ``nemo-airflow reap --folders`` would delete; None where it keeps none.
        trouble: Why it is not known; empty if it is.
    """

    id: str
    name: str
    size: int | None = None
    old: int | None = None
    trouble: str = ""


class StoreUse(Answer):
    """The shared store.

    Attributes:
        where: Its address; empty where there is none.
        size: Bytes of its content.
        objects: Packages and outputs.
        references: Names that protect some of them.
        freed: Bytes that ``nemo-airflow store gc`` would free.
        unused: Packages and outputs that it would delete.
        trouble: Why this is not known; empty if it is.
    """

    where: str = ""
    size: int = 0
    objects: int = 0
    references: int = 0
    freed: int = 0
    unused: int = 0
    trouble: str = ""


class DiskUse(Answer):
    """The disk that this project uses.

    Attributes:
        counted: When it was counted last, in seconds since the epoch; None if it was not yet.
        is_counting: Whether it is being counted.
        store: The shared store; None before it was counted.
        folders: The folders of jobs, of those back-ends that were counted.
        days_of_folders: Days after which the folder of an ended job is old.
        days_of_objects: Days after which what nobody wants in the store is unused.
    """

    counted: float | None = None
    is_counting: bool = False
    store: StoreUse | None = None
    folders: list[FolderUse] = Field(default_factory=list)
    days_of_folders: int = looking.OLD_FOLDERS
    days_of_objects: int = looking.OLD_OBJECTS


class CheckBody(BaseModel):
    """Which back-end to examine.

    Attributes:
        id: The back-end.
    """

    id: str


class ReapBody(BaseModel):
    """Which jobs to end.

    Attributes:
        id: The back-end.
        keys: The jobs' keys.
    """

    id: str
    keys: list[str] = Field(min_length=1, max_length=_MOST_JOBS)


class CountBody(BaseModel):
    """An empty object: an action takes JSON, which other sites cannot send."""


@functools.cache
def _examinations(pid: int) -> Background[Examined]:
    return Background("examine", _AT_ONCE)


@functools.cache
def _measurements(pid: int) -> Background[FoldersUsed | StoreUsed]:
    return Background("measure", 1)


_reaped: dict[str, float] = {}
"""When jobs of a back-end were told to end."""


class ConnectionRights:
    """What a user may do with connections, and so with the back-ends behind them."""

    def __init__(self, session: Session, rights: Rights) -> None:
        self._session = session
        self._user = rights.user
        self._rights = rights

    def back_ends(self) -> dict[str, tuple[str, str]]:
        """Returns name and connection type of each back-end that the user may see, by id."""
        rows = self._session.execute(
            select(Connection.conn_id, Connection.conn_type).where(Connection.conn_type.in_(CONNECTION_TYPES))
        ).all()
        allowed = self._allowed("GET") if rows else set()
        kinds = {
            conn_id: kind for conn_id, kind in looking.connections_elsewhere().items() if self._may("GET", conn_id)
        }
        kinds.update({conn_id: kind for conn_id, kind in rows if conn_id in allowed})
        own = {name: (name, "") for name in looking.own_back_ends()} if self._may("GET") else {}
        return {**{looking.id_of(conn_id): (conn_id, kind) for conn_id, kind in sorted(kinds.items())}, **own}

    def reapable(self) -> Callable[[str], bool]:
        """Returns what tells whether the user may end jobs of a back-end."""
        allowed = self._allowed("PUT")
        elsewhere = looking.connections_elsewhere()

        def may_reap(back_end: str) -> bool:
            conn_id = looking.connection_of(back_end)
            return conn_id in allowed or ((not conn_id or conn_id in elsewhere) and self._may("PUT", conn_id or None))

        return may_reap

    def need(self, back_end: str) -> None:
        """Refuses the request unless the user may see the back-end."""
        self._rights.need(back_end in self.back_ends())

    def _may(self, method: Literal["GET", "PUT"], conn_id: str | None = None) -> bool:
        details = ConnectionDetails(conn_id=conn_id)
        return get_auth_manager().is_authorized_connection(method=method, details=details, user=self._user)

    def _allowed(self, method: Literal["GET", "PUT"]) -> set[str]:
        return get_auth_manager().get_authorized_connections(user=self._user, method=method, session=self._session)


def _connection_rights(session: SessionDep, rights: RightsDep) -> ConnectionRights:
    found = ConnectionRights(session, rights)
    if not found.back_ends():
        raise HTTPException(403, "You may not read connections in Airflow, and so not see the back-ends behind them.")
    return found


ConnectionRightsDep = Annotated[ConnectionRights, Depends(_connection_rights)]


@router.get("/back-ends")
def list_back_ends(session: SessionDep, rights: RightsDep, connections: ConnectionRightsDep) -> BackEndList:
    """Returns the back-ends, with what the last examination of each has found; begins one where that is old."""
    examinations, reapable = _examinations(os.getpid()), connections.reapable()
    found = []
    for back_end, (name, conn_type) in connections.back_ends().items():
        kept = examinations.get(back_end)
        is_ending = time.time() - _reaped.get(back_end, 0.0) < _ENDING
        fresh = _LOOK_AGAIN if is_ending and kept.value is not None and kept.value.jobs else _FRESH
        if kept.at < time.time() - fresh and not kept.is_running:
            examinations.start(back_end, functools.partial(looking.examine, back_end))
            kept = examinations.get(back_end)
        seen = kept.value or Examined(())
        jobs = _jobs(seen.jobs, rights, lambda labels: state_in_database(session, labels))
        verdicts = {each.verdict for each in seen.findings}
        found.append(
            BackEnd(
                id=back_end,
                name=name,
                conn_type=conn_type,
                checked=kept.at or None,
                is_checking=kept.is_running,
                verdict="fail" if kept.error else next((each.value for each in _VERDICTS if each in verdicts), ""),
                findings=[
                    BackEndFinding(name=each.name, verdict=each.verdict.value, said=each.said, fix=each.fix)
                    for each in sorted(seen.findings, key=lambda each: _VERDICTS.index(each.verdict))
                ],
                states=dict(Counter(_state(job) for job in seen.jobs)),
                jobs=jobs[:_MOST_JOBS],
                left_out=len(seen.jobs) - len(jobs[:_MOST_JOBS]),
                trouble=kept.error or seen.trouble,
                may_reap=reapable(back_end),
            )
        )
    return BackEndList(back_ends=found)


@router.post("/back-ends/check", dependencies=[Depends(action_logging("nemo_check_back_end"))])
def check_back_end(body: CheckBody, connections: ConnectionRightsDep) -> Done:
    """Has a back-end examined again; the list shows when that is done."""
    connections.need(body.id)
    _examinations(os.getpid()).start(body.id, functools.partial(looking.examine, body.id))
    return Done(message="It is being examined.")


@router.post("/back-ends/reap", dependencies=[Depends(action_logging("nemo_reap_orphans"))])
def reap_orphans(body: ReapBody, session: SessionDep, rights: RightsDep, connections: ConnectionRightsDep) -> Done:
    """Ends those of the jobs that are still there and that no task waits for."""
    connections.need(body.id)
    rights.need(connections.reapable()(body.id))
    try:
        executor, mask = looking.open_executor(body.id)
    except NemoAirflowError as error:
        raise HTTPException(422, str(error)) from error
    try:
        jobs = asyncio.run(survey(executor, MIN_AGE))
        wanted = {*body.keys}
        chosen = [job for job in jobs if job[0].key in wanted and rights.may_read(job[1]["dag_id"])]
        orphans = orphans_among(chosen, lambda labels: state_in_database(session, labels))
        if orphans:
            asyncio.run(end_orphans(executor, orphans))
    except BackendUnavailable as error:
        raise HTTPException(503, mask(str(error))) from error
    except NemoAirflowError as error:
        raise HTTPException(422, mask(str(error))) from error
    _reaped[body.id] = time.time()
    _examinations(os.getpid()).start(body.id, functools.partial(looking.examine, body.id))
    more = "" if len(orphans) == len(wanted) else "; the others have ended, are too young, or a task waits for them"
    trouble = mask(record_ends(orphans))
    return Done(
        message=f"{len(orphans)} of {len(wanted)} jobs told to end{more}.{f' But {trouble}.' if trouble else ''}"
    )


@router.get("/back-ends/disk")
def show_disk(connections: ConnectionRightsDep) -> DiskUse:
    """Returns the disk that we use, as it was counted last."""
    measurements = _measurements(os.getpid())
    kept = measurements.get(_STORE)
    store = kept.value if isinstance(kept.value, StoreUsed) else StoreUsed(trouble=kept.error) if kept.at else None
    folders, times, is_counting = [], [kept.at], kept.is_running
    for back_end, (name, _) in connections.back_ends().items():
        each = measurements.get(f"{_FOLDERS}{back_end}")
        is_counting = is_counting or each.is_running
        used = each.value if isinstance(each.value, FoldersUsed) else FoldersUsed(trouble=each.error)
        if each.at:
            times.append(each.at)
            folders.append(FolderUse(id=back_end, name=name, size=used.size, old=used.old, trouble=used.trouble))
    return DiskUse(
        counted=max(times) or None,
        is_counting=is_counting,
        store=StoreUse(**vars(store)) if store is not None else None,
        folders=folders,
    )


@router.post("/back-ends/disk/count", dependencies=[Depends(action_logging("nemo_count_disk"))])
def count_disk(body: CountBody, connections: ConnectionRightsDep) -> Done:
    """Has the disk counted that we use; it may take minutes."""
    measurements = _measurements(os.getpid())
    measurements.start(_STORE, looking.measure_store)
    for back_end in connections.back_ends():
        measurements.start(f"{_FOLDERS}{back_end}", functools.partial(_measure_folders, back_end))
    return Done(message="It is being counted.")


def _measure_folders(back_end: str) -> FoldersUsed:
    from airflow.utils.session import create_session

    def state_of(labels: Mapping[str, str]) -> str | None:
        with create_session() as session:  # none is held while the back-end is asked
            return state_in_database(session, labels)

    return looking.measure_folders(back_end, state_of)


def _jobs(jobs: Sequence[Surveyed], rights: Rights, state_of: StateOf) -> list[BackEndJob]:
    """Returns the jobs that the user may see: orphans first, then the newest."""
    found = []
    for job in jobs:
        dag_id = job.labels.get("dag_id", "")
        if not rights.may_read(dag_id):
            continue
        task_state = state_of(job.labels) if dag_id else None
        found.append(
            BackEndJob(
                place=_place(job.labels) if task_state is not None else JobPlace(),
                key=job.handle.key,
                job_id=job.handle.id,
                state=_state(job),
                why=job.status.reason if job.status else "",
                submitted=job.handle.submitted_at,
                task_state=task_state or "",
                owner=_owner(job, task_state),
            )
        )
    return sorted(found, key=lambda each: (each.owner != "orphan", -each.submitted))


def _owner(job: Surveyed, task_state: str | None) -> Literal["task", "orphan", "young", "other", "none"]:
    if not job.labels.get("dag_id"):
        return "none"
    if task_state is None:
        return "other"
    if task_state in WAITED_FOR:
        return "task"
    return "orphan" if time.time() - job.handle.submitted_at >= MIN_AGE else "young"


def _state(job: Surveyed) -> str:
    return str(job.status.state) if job.status else "unknown"


def _place(labels: Mapping[str, str]) -> JobPlace:
    return JobPlace(
        dag_id=labels["dag_id"],
        dag_run_id=labels["run_id"],
        task_id=labels["task_id"],
        map_index=int(labels.get("map_index", -1)),
    )
