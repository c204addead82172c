"""Finds the jobs of a list: MLflow's runs and the jobs that only Airflow knows, of the DAGs that the user may read.

MLflow has no rights of DAGs, and its search counts and sorts all runs. So it is asked for none of the DAGs that are
refused to the user; where those are too many for one search, for the runs of the jobs that Airflow has of the others.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import itertools
import json
import threading
import time
from collections.abc import Mapping, Sequence

from sqlalchemy.orm import Session

from nemo_airflow.exceptions import SettingsError, TrackingError
from nemo_airflow.plugin.api.airflow_jobs import AirflowJob, AirflowQuery, dags_with_jobs, read_jobs
from nemo_airflow.plugin.api.found import Source
from nemo_airflow.plugin.api.rights import Rights
from nemo_airflow.plugin.api.shared_answers import SharedAnswers
from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.mlflow.jobs import JobRun
from nemo_airflow.tracking.mlflow.queries import NEWEST, RunQuery
from nemo_airflow.tracking.mlflow.store import NOT_FOUND

MOST_SORTED = 500
"""Newest jobs that are sorted for a user who may read few of many DAGs: MLflow is told the id of each."""

_MOST_REFUSED = 8
"""Refused DAGs that a search of MLflow leaves out: each is a join in its database."""

_TRIES = 20
"""Searches for one page at most."""

_LONGEST = 2.0
"""Seconds after which a page is given as far as it is."""

_KEPT = 2.0
"""Seconds for which the answer to a search is kept: several people look at the same list, and a page asks twice."""

_KEPT_AT_MOST = 32

_DAGS_KEPT = 50_000
"""Runs whose DAGs are kept."""

Found = JobRun | AirflowJob


@dataclasses.dataclass(frozen=True)
class Position:
    """Where a page begins, in MLflow's list and in Airflow's.

    Attributes:
        page: MLflow's token of its page; the first one when empty.
        skip: Runs of that page that were on an earlier one of ours.
        before: Jobs that only Airflow knows were told of until then, in seconds since the epoch; all when None.
        exhausted: Whether MLflow has no more.
        refused: DAGs without which MLflow was asked; its tokens hold for the same search only.
    """

    page: str = ""
    skip: int = 0
    before: float | None = None
    exhausted: bool = False
    refused: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Returns the token of a page."""
        return base64.urlsafe_b64encode(json.dumps(dataclasses.astuple(self)).encode()).decode()

    @classmethod
    def from_text(cls, text: str) -> Position:
        """The inverse of :meth:`to_text`.

        Raises:
            SettingsError: It is no token of a page.
        """
        try:
            page, skip, before, exhausted, refused = json.loads(base64.urlsafe_b64decode(text))
            return cls(
                str(page), max(0, int(skip)), None if before is None else float(before), bool(exhausted),
                tuple(map(str, refused)),
            )  # fmt: skip
        except (ValueError, TypeError, binascii.Error) as error:
            raise SettingsError("the page is none of this list: begin with the first one") from error


class Listing:
    """The jobs that one user may see.

    Args:
        session: Airflow's database.
        rights: What the user may.
        source: The MLflow.

    Raises:
        NemoAirflowError: It cannot be opened.
    """

    def __init__(self, session: Session, rights: Rights, source: Source) -> None:
        self._session, self._rights, self._source = session, rights, source
        self._store = source.runs()
        self.uri = self._store.uri

    def page(self, query: RunQuery, limit: int, token: str = "") -> tuple[list[Found], str]:
        """Returns a page of the jobs that a query selects, and the token of the next one, or an empty text.

        Raises:
            SettingsError: The token is none of this list, or MLflow's search takes no such name or value.
            TrackingError: MLflow does not answer.
        """
        at = Position.from_text(token) if token else Position(refused=tuple(self._refused(query)))
        if query.sort == NEWEST and len(at.refused) > _MOST_REFUSED:
            return self._by_airflow(query, limit, at)
        runs: list[JobRun] = []
        exhausted, page = True, ""
        if not at.exhausted:
            runs, page, at = self._runs(query, limit, at)
            exhausted = not page
        if query.sort != NEWEST:
            following = "" if exhausted else Position(page=page, refused=at.refused).to_text()
            return list(runs), following
        return self._merged(query, limit, runs[at.skip :], page, exhausted, at)

    def first(self, query: RunQuery, limit: int) -> list[JobRun]:
        """Returns the first runs that a query selects; see :meth:`page` for errors."""
        return self._runs(query, limit, Position(refused=tuple(self._refused(query))))[0][:limit]

    def readable(self, run_ids: Sequence[str]) -> list[str]:
        """Returns those of these runs of jobs that are in MLflow, and that the user may see, in their order."""
        known = _dags_of_runs.get(self._source, run_ids)
        if unknown := [run_id for run_id in run_ids if run_id not in known]:
            runs = self._store.of_ids(unknown)
            _dags_of_runs.add(self._source, runs)
            known |= {run.run_id: run.dag_id for run in runs}
        return [run_id for run_id in run_ids if run_id in known and self._rights.may_read(known[run_id])]

    def lines(self, run_ids: Sequence[str], metric: str, points: int) -> Mapping[str, Sequence[Metric]]:
        """Returns about so many points of a metric by run, of those runs that the user may see."""
        readable = self.readable(run_ids)
        try:
            return self._store.sampled(readable, metric, points)
        except TrackingError as error:
            if error.code != NOT_FOUND:
                raise
            _dags_of_runs.drop(self._source, readable)  # one of them was deleted
            return self._store.sampled(self.readable(readable), metric, points)

    def sorts_only(self, query: RunQuery) -> int:
        """Returns of how many of the newest jobs a sorted list is; 0 for all."""
        return MOST_SORTED if query.sort != NEWEST and len(self._refused(query)) > _MOST_REFUSED else 0

    def _merged(
        self, query: RunQuery, limit: int, runs: Sequence[JobRun], page: str, exhausted: bool, at: Position
    ) -> tuple[list[Found], str]:
        """Returns a page of both lists by time; MLflow's page ends where it has more runs, and so does Airflow's."""
        oldest = runs[-1].began if runs and not exhausted else None
        jobs = only_airflow(self._session, self._rights, query, self.uri, limit, since=oldest, before=at.before)
        both: list[Found] = [*runs, *jobs]
        rows = sorted(both, key=began, reverse=True)[:limit]
        used = sum(isinstance(row, JobRun) for row in rows)
        taken = [row for row in rows if isinstance(row, AirflowJob)]
        before = taken[-1].at if taken else at.before
        known = {row.key for row in rows if isinstance(row, JobRun)}
        shown = [row for row in rows if isinstance(row, JobRun) or row.key not in known]
        if used < len(runs):
            following = Position(at.page, at.skip + used, before, refused=at.refused)
        elif exhausted and len(jobs) < limit and len(taken) == len(jobs):
            return shown, ""
        else:
            following = Position(page, 0, before, exhausted, at.refused)
        return shown, following.to_text()

    def _by_airflow(self, query: RunQuery, limit: int, at: Position) -> tuple[list[Found], str]:
        """Returns a page by time of the jobs that Airflow has, with their runs of MLflow."""
        rows: list[Found] = []
        before, until = at.before, time.monotonic() + _LONGEST
        while len(rows) < limit and time.monotonic() < until:
            wanted = dataclasses.replace(to_airflow(query), before=_earliest(before, query.until))
            jobs = read_jobs(self._session, self._rights, wanted, limit)
            known = [job.run_id for job in jobs if job.run_id and job.uri == self.uri]
            found = {run.run_id: run for run in self._of_ids(query, known)}
            for job in jobs:
                run = found.get(job.run_id)
                if run is not None and self._rights.may_read(run.dag_id):
                    rows.append(run)
                elif job.run_id not in known and not only_mlflow(query):
                    rows.append(job)
                before = job.at
                if len(rows) == limit:
                    break
            if len(jobs) < limit and len(rows) < limit:
                return rows, ""
        return rows, Position(before=before, refused=at.refused).to_text()

    def _of_ids(self, query: RunQuery, run_ids: Sequence[str]) -> list[JobRun]:
        return self._search(dataclasses.replace(query, run_ids=run_ids), len(run_ids), "")[0] if run_ids else []

    def _runs(self, query: RunQuery, limit: int, at: Position) -> tuple[list[JobRun], str, Position]:
        """Returns the runs of a page that the user may see, MLflow's next page, and where the page really began."""
        if len(at.refused) > _MOST_REFUSED:
            jobs = read_jobs(self._session, self._rights, to_airflow(query), MOST_SORTED)
            query = dataclasses.replace(query, run_ids=[job.run_id for job in jobs if job.run_id])
            if not query.run_ids:
                return [], "", at
        rows: list[JobRun] = []
        page, until = at.page, time.monotonic() + _LONGEST
        for _ in range(_TRIES):
            without = at.refused if query.run_ids is None else ()
            found, following = self._search(dataclasses.replace(query, without_dags=without), limit, page)
            more = {run.dag_id for run in found if not self._rights.may_read(run.dag_id)}
            if more - {""} and not at.page and not rows and len(at.refused) + len(more) <= _MOST_REFUSED:
                # DAGs that Airflow has no more: once they are left out, a page is a page.
                at = dataclasses.replace(at, refused=(*at.refused, *sorted(more - {""})))
                continue
            rows += [run for run in found if run.dag_id not in more]
            page = following
            if not page or len(rows) >= limit or time.monotonic() > until:
                break
        return rows, page, at

    def _search(self, query: RunQuery, limit: int, page: str) -> tuple[list[JobRun], str]:
        key = (self._source, self._store.uri, query.to_filter(), tuple(query.to_order()), limit, page)

        def search() -> tuple[list[JobRun], str]:
            found = self._store.search(query, limit, page)
            _dags_of_runs.add(self._source, found[0])
            return found

        return _searches.get(key, search)

    def _refused(self, query: RunQuery) -> list[str]:
        if query.dag:
            return []
        return [dag_id for dag_id in dags_with_jobs(self._session) if not self._rights.may_read(dag_id)]


def only_airflow(
    session: Session,
    rights: Rights,
    query: RunQuery,
    uri: str | None,
    limit: int,
    *,
    since: float | None = None,
    before: float | None = None,
) -> list[AirflowJob]:
    """Returns the newest jobs that a query selects and whose runs the MLflow of an address does not have."""
    if only_mlflow(query):
        return []
    since = max((each for each in (since, query.since) if each is not None), default=None)
    wanted = dataclasses.replace(to_airflow(query), not_in=uri, since=since, before=_earliest(before, query.until))
    return read_jobs(session, rights, wanted, limit)


def to_airflow(query: RunQuery) -> AirflowQuery:
    """Returns what of a query Airflow can answer."""
    return AirflowQuery(
        dag_id=query.dag, task_id=query.task, kind=query.back_end, state=query.state, since=query.since,
        before=query.until,
    )  # fmt: skip


def only_mlflow(query: RunQuery) -> bool:
    """Returns whether a query asks for what only MLflow knows."""
    return bool(query.user or query.name or query.tags or query.config or query.metrics)


def began(row: Found) -> float:
    """Returns when a job began, in seconds since the epoch."""
    return row.began if isinstance(row, JobRun) else row.at


def _earliest(*times: float | None) -> float | None:
    return min((each for each in times if each is not None), default=None)


class _DagsOfRuns:
    """The DAG of each run that a search has found. It never changes, and to read a run takes MLflow a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[Source, str], str] = {}

    def add(self, source: Source, runs: Sequence[JobRun]) -> None:
        with self._lock:
            for run in runs:
                self._known[source, run.run_id] = run.dag_id
            for old in list(itertools.islice(self._known, max(0, len(self._known) - _DAGS_KEPT))):
                del self._known[old]

    def get(self, source: Source, run_ids: Sequence[str]) -> dict[str, str]:
        with self._lock:
            return {each: self._known[source, each] for each in run_ids if (source, each) in self._known}

    def drop(self, source: Source, run_ids: Sequence[str]) -> None:
        with self._lock:
            for each in run_ids:
                self._known.pop((source, each), None)


_searches: SharedAnswers[tuple[list[JobRun], str]] = SharedAnswers(_KEPT_AT_MOST, lambda found: _KEPT)
_dags_of_runs = _DagsOfRuns()
