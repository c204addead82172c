"""Jobs as Airflow's database has them: by the records that their tasks leave, with a run in MLflow or without."""

from __future__ import annotations

import dataclasses
import datetime
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from nemo_airflow.plugin.api.answers import JobPlace
from nemo_airflow.plugin.api.found import LIVE, RECORD, read_xcoms
from nemo_airflow.plugin.api.phases import ACTIVE, BY_TASK, state_of
from nemo_airflow.plugin.api.rights import Rights

_DAGS_KEPT = 10.0
"""Seconds for which the ids of the DAGs with jobs are kept: who asks for a list asks for more."""

_TASK = and_(
    TaskInstance.dag_id == XComModel.dag_id,
    TaskInstance.run_id == XComModel.run_id,
    TaskInstance.task_id == XComModel.task_id,
    TaskInstance.map_index == XComModel.map_index,
)

_IDENTITY = (XComModel.dag_run_id, XComModel.task_id, XComModel.map_index, XComModel.key)


@dataclasses.dataclass(frozen=True)
class AirflowJob:
    """A job of which Airflow has a record.

    Attributes:
        key: The job's key.
        place: Its task instance.
        kind: The kind of its executor.
        cluster: Which back-end of this kind.
        job_id: Its id there.
        run_id: Its run in an MLflow, or empty.
        uri: The address of that MLflow.
        gpus: The GPUs that it asks for; None where the record does not tell.
        at: When the record was written, in seconds since the epoch.
        task_state: The state of its task instance.
        ended: When the task instance ended, in seconds since the epoch, or None.
    """

    key: str
    place: JobPlace
    kind: str
    cluster: str
    job_id: str
    run_id: str
    uri: str
    gpus: int | None
    at: float
    task_state: str
    ended: float | None

    @property
    def is_active(self) -> bool:
        """Whether it may be under way."""
        return self.task_state in ACTIVE

    def state(self, live: Mapping[str, Any]) -> str:
        """Returns the job's state, by what its follower tells and by its task."""
        return state_of(None, live if live.get("key") == self.key else {}, self.task_state)


@dataclasses.dataclass(frozen=True)
class AirflowQuery:
    """Which jobs are wanted: those that meet all of these conditions.

    Attributes:
        dag_id: The DAG of their task.
        task_id: Their task.
        kind: The kind of their executor.
        state: How they ended, or ``running``.
        active: Only those that may be under way.
        since: Their record was written then or later, in seconds since the epoch.
        before: It was written before then.
        ended_since: Their task ended then or later, in seconds since the epoch.
        not_in: Without those whose runs the MLflow of this address has.
    """

    dag_id: str = ""
    task_id: str = ""
    kind: str = ""
    state: str = ""
    active: bool = False
    since: float | None = None
    before: float | None = None
    ended_since: float | None = None
    not_in: str | None = None

    def to_select(self, limit: int, hidden: Collection[str] = ()) -> Select[*tuple[Any, ...]]:
        """Returns the query for the database, the newest first.

        Args:
            limit: Most jobs to select.
            hidden: Ids of DAGs whose jobs are left out.
        """
        which = select(*_IDENTITY).join(TaskInstance, _TASK).where(XComModel.key == RECORD, *self._conditions())
        if hidden:
            which = which.where(XComModel.dag_id.not_in(hidden))
        # Records are large, and a database may read those of all rows before it sorts them: it is to read these only.
        chosen = which.order_by(XComModel.timestamp.desc()).limit(limit).subquery()
        names = (XComModel.dag_id, XComModel.run_id, XComModel.task_id, XComModel.map_index)
        values = [_text(*path).label("_".join(path)) for path in _PATHS]
        times = (XComModel.timestamp, TaskInstance.state, TaskInstance.end_date)
        same = and_(*(column == chosen.c[column.key] for column in _IDENTITY))
        wanted = select(*names, *times, *values).join(chosen, same).join(TaskInstance, _TASK)
        return wanted.order_by(XComModel.timestamp.desc())

    def _conditions(self) -> Iterator[ColumnElement[bool]]:
        # The cheap ones first: the last ones read the whole record.
        if self.before is not None:
            yield XComModel.timestamp < _time(self.before)
        if self.since is not None:
            yield XComModel.timestamp >= _time(self.since)
        if self.dag_id:
            yield XComModel.dag_id == self.dag_id
        if self.task_id:
            yield XComModel.task_id == self.task_id
        if self.ended_since is not None:
            yield TaskInstance.end_date >= _time(self.ended_since)
        if self.active:
            yield TaskInstance.state.in_(ACTIVE)
        if self.state:
            yield TaskInstance.state.in_([state for state, meaning in BY_TASK.items() if meaning in _same(self.state)])
        if self.kind:
            yield _text("handle", "kind") == self.kind
        if self.not_in is not None:
            run, uri = _text("run", "run_id"), _text("run", "uri")
            # MySQL has the null of JSON as a text.
            yield or_(func.coalesce(run, "").in_(("", "null")), uri != self.not_in)


_PATHS = (
    ("key",), ("handle", "kind"), ("handle", "cluster"), ("handle", "id"),
    ("run", "run_id"), ("run", "uri"), ("machines", "gpus"),
)  # fmt: skip


def read_jobs(session: Session, rights: Rights, query: AirflowQuery, limit: int) -> list[AirflowJob]:
    """Returns the newest jobs that a query selects and that the user may see, at most so many."""
    known = () if query.dag_id else dags_with_jobs(session)
    refused = [dag_id for dag_id in known if not rights.may_read(dag_id)]
    rows = session.execute(query.to_select(limit, refused))
    return [_job(row) for row in rows if rights.may_read(row.dag_id)]  # a new DAG may not be among those above


def read_live(session: Session, jobs: Collection[AirflowJob]) -> dict[JobPlace, Mapping[str, Any]]:
    """Returns how far the jobs are that may be under way, by place, where their followers tell."""
    places = {job.place: job.key for job in jobs if job.is_active}
    told = read_xcoms(session, LIVE, places) if places else {}
    return {place: live for place, live in told.items() if live.get("key") == places[place]}


def dags_with_jobs(session: Session) -> Sequence[str]:
    """Returns the ids of all DAGs of which Airflow has records of jobs, whoever may see them."""
    return _dags.read(session)


class _Dags:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, list[str]]] = {}

    def read(self, session: Session) -> list[str]:
        database = str(session.get_bind().engine.url)
        with self._lock:
            at, found = self._known.get(database, (float("-inf"), []))
            if time.monotonic() - at > _DAGS_KEPT:
                having = select(XComModel.dag_id).where(XComModel.key == RECORD).distinct()
                found = sorted(session.scalars(having))
                self._known[database] = time.monotonic(), found
            return found


_dags = _Dags()


def _job(row: Any) -> AirflowJob:
    def text(name: str) -> str:
        value = getattr(row, name)
        return "" if value in (None, "null") else str(value)

    gpus = text("machines_gpus")
    return AirflowJob(
        key=text("key"),
        place=JobPlace(dag_id=row.dag_id, dag_run_id=row.run_id, task_id=row.task_id, map_index=row.map_index),
        kind=text("handle_kind"),
        cluster=text("handle_cluster"),
        job_id=text("handle_id"),
        run_id=text("run_run_id"),
        uri=text("run_uri"),
        gpus=int(gpus) if gpus.isdecimal() else None,
        at=row.timestamp.timestamp(),
        task_state=str(row.state or ""),
        ended=row.end_date.timestamp() if row.end_date and row.state not in ACTIVE else None,
    )


def _text(*path: str) -> ColumnElement[str]:
    value: ColumnElement[str] = XComModel.value[path if len(path) > 1 else path[0]].as_string()
    return value


def _same(state: str) -> tuple[str, ...]:
    return ("running", "pending") if state == "running" else (state,)


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(min(max(seconds, 0.0), 253_000_000_000.0), datetime.UTC)
