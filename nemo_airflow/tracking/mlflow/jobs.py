"""Finds the runs of jobs in MLflow, whoever submitted them, and reads the points of a run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobState
from nemo_airflow.language.nearest import similar
from nemo_airflow.tracking.base import ATTEMPTS, Metric
from nemo_airflow.tracking.mlflow import address, fields
from nemo_airflow.tracking.mlflow.lines import LAST_STEP, Line
from nemo_airflow.tracking.mlflow.queries import RunQuery
from nemo_airflow.tracking.mlflow.registered import (
    RegisteredModel,
    RegisteredVersion,
    name_filter,
    runs_filter,
    tag_filter,
)
from nemo_airflow.tracking.mlflow.store import (
    NEWEST_FIRST,
    NOT_FOUND,
    RUN_ID,
    Run,
    Store,
    newest_jobs,
    open_store,
    runs_by_id,
)

_AT_ONCE = 8
"""Metrics that are read from a server at the same time."""

_SEARCHED = 50
_OF_DAG_RUN = 10_000
_NAMED_AT_ONCE = 100
_VERSIONS = 200
KEY = re.compile(r"[a-z0-9-]+")


@dataclasses.dataclass(frozen=True)
class JobRun:
    """The run of a job.

    Attributes:
        run_id: Its id.
        key: The job's key.
        name: Its name, for people.
        state: How the job ended, or ``running`` for one whose end is not recorded.
        failure: Why it failed, or empty.
        exit_code: That of its process, or None.
        reason: The same in words, or empty.
        kind: The executor's kind, or empty.
        job_id: The job's id on its back-end, or empty.
        cluster: The back-end's name, or empty.
        began: When it began, in seconds since the epoch.
        ended: Whether the run has a final status.
        ended_at: When it ended, in seconds since the epoch, or None.
        dag_id: The DAG of its task, or empty for a job of no task.
        task_id: Its task, or empty.
        user: Who started it, or empty.
        params: The values of its config by path, and what it has logged as parameters.
        metrics: The newest value of each metric.
        tags: All tags of the run.
        experiment_id: The experiment that has it.
        latest: Step of each metric's newest point, and its time in milliseconds since the epoch.
    """

    run_id: str
    key: str
    name: str
    state: str
    failure: str
    exit_code: int | None
    reason: str
    kind: str
    job_id: str
    cluster: str
    began: float
    ended: bool
    ended_at: float | None = None
    dag_id: str = ""
    task_id: str = ""
    user: str = ""
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    experiment_id: str = ""
    latest: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @property
    def seconds(self) -> float | None:
        """How long it ran, or None while it runs."""
        return None if self.ended_at is None else self.ended_at - self.began


class JobRuns:
    """The runs of jobs in one MLflow. Methods block, and raise :class:`~nemo_airflow.exceptions.TrackingError`.

    Args:
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.

    Raises:
        TrackingError: The store cannot be opened.
    """

    def __init__(self, tracking_uri: str | None = None, conn_id: str | None = None) -> None:
        uri, credentials = address.resolve(tracking_uri, conn_id)
        self.uri = address.hide_login(uri)
        self._store: Store | None = None if address.is_missing_database(uri) else open_store(uri, credentials)

    def newest(self, limit: int) -> list[JobRun]:
        """Returns the runs that began last, at most so many."""
        return [job_run(run) for run in newest_jobs(self._store, "", limit)] if self._store else []

    def search(self, query: RunQuery, limit: int, page: str = "") -> tuple[list[JobRun], str]:
        """Returns a page of the runs that a query selects, and the token of the next page, or an empty text.

        Args:
            query: Which runs, and in which order.
            limit: How many at most; MLflow allows 50,000.
            page: The token of a page of the same query; the first one when empty.
        """
        if self._store is None:
            return [], ""
        found, following = self._store.search_jobs(query.to_filter(), query.to_order(), limit, page)
        return [job_run(run) for run in found], following

    def matching(self, which: str, limit: int) -> list[JobRun]:
        """Returns the newest runs of jobs that a filter of MLflow selects, at most so many."""
        return [job_run(run) for run in self._store.search_jobs(which, [NEWEST_FIRST], limit)[0]] if self._store else []

    def of_dag_run(self, dag_id: str, dag_run_id: str) -> list[JobRun]:
        """Returns the runs of the jobs of a DAG run, the newest first."""
        query = RunQuery(dag=dag_id, tags={"airflow.run_id": dag_run_id})
        return self.search(query, _OF_DAG_RUN)[0]

    def get(self, run_id: str) -> JobRun | None:
        """Returns the run of an id, or None where there is none."""
        try:
            return job_run(self._store.run(run_id)) if self._store else None
        except TrackingError as error:
            if error.code != NOT_FOUND:
                raise
            return None

    def of_ids(self, run_ids: Sequence[str]) -> list[JobRun]:
        """Returns the runs of these ids, in their order; ids of which there is no run of a job are left out."""
        found = {run.run_id: run for run in runs_by_id(self._store, run_ids)} if self._store else {}
        return [job_run(found[run_id]) for run_id in dict.fromkeys(run_ids) if run_id in found]

    def sampled(self, run_ids: Sequence[str], metric: str, limit: int) -> Mapping[str, list[Metric]]:
        """Returns points of a metric in several runs, by id; about so many of each, with the first and the last one."""
        return self._store.sampled(run_ids, metric, limit) if self._store and run_ids else {}

    def find(self, text: str) -> JobRun:
        """Returns the run of an id, or of a job's key or the beginning of one.

        Raises:
            TrackingError: There is none, or several keys begin so.
        """
        if self._store is not None:
            if RUN_ID.fullmatch(text) and (run := self.get(text)) is not None:
                return run
            runs = {run.tags[fields.KEY]: run for run in reversed(newest_jobs(self._store, text, _SEARCHED))}
            if text in runs or len(runs) == 1:
                return job_run(runs.get(text) or next(iter(runs.values())))
            if runs:
                named = ", ".join(sorted(runs)[:5])
                raise TrackingError(f"{text!r} is the beginning of {len(runs)} keys, {named} ...: give more of the key")
            if (run := self._run_of_attempt(text)) is not None:
                return run
        known = [run.key for run in self.newest(_SEARCHED)]
        raise TrackingError(
            f"no job or run {text!r} is in the MLflow store {self.uri}{similar(text, known)}; give the job's key, the "
            "id of its run, or with --tracking-uri another store"
        )

    def of_key(self, key: str) -> JobRun | None:
        """Returns the run of a job, or None where there is none."""
        having = self.matching(f"tags.`{fields.KEY}` = '{key}'", 1) if KEY.fullmatch(key) else []
        return having[0] if having else self._run_of_attempt(key)

    def _run_of_attempt(self, key: str) -> JobRun | None:
        """Returns the run that a job continued which has no run of its own."""
        having = self.matching(f"tags.`{ATTEMPTS}` LIKE '%{key}%'", _SEARCHED) if KEY.fullmatch(key) else []
        # Those that began later have gone on from its checkpoint.
        return next((run for run in reversed(having) if key in run.tags[ATTEMPTS].split()), None)

    def versions_of(self, run_ids: Sequence[str]) -> list[RegisteredVersion]:
        """Returns the versions of registered models that some runs have made, the newest first."""
        if self._store is None:
            return []
        found: list[RegisteredVersion] = []
        for start in range(0, len(run_ids), _NAMED_AT_ONCE):
            found += self._store.model_versions(runs_filter(run_ids[start : start + _NAMED_AT_ONCE]), _VERSIONS)
        return sorted(found, key=lambda version: version.created, reverse=True)

    def versions_of_model(self, name: str) -> list[RegisteredVersion]:
        """Returns the newest versions of a registered model."""
        return self._store.model_versions(name_filter(name), _VERSIONS) if self._store else []

    def model(self, name: str) -> RegisteredModel | None:
        """Returns a registered model, or None where there is none."""
        found = self._store.registered_models(name_filter(name), 1) if self._store else []
        return found[0] if found else None

    def models_tagged(self, tag: str, part: str) -> list[RegisteredModel]:
        """Returns registered models with a text in a tag, and perhaps others."""
        return self._store.registered_models(tag_filter(tag, part), _VERSIONS) if self._store else []

    def points(self, run_id: str) -> Mapping[str, list[Metric]]:
        """Returns the points of all metrics of a run by name, in the order of their steps."""
        if self._store is None:
            return {}
        store = self._store
        names = sorted(store.run(run_id).latest)

        def read(name: str) -> list[Metric]:
            return sorted(store.history(run_id, name), key=lambda point: (point.step, point.timestamp))

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(names, pool.map(read, names), strict=True))

    def line(self, run_id: str, metric: str, limit: int, since: int = 0, until: int = LAST_STEP) -> Line:
        """Returns what a chart needs of a metric; see :meth:`.Store.line`."""
        return self._store.line(run_id, metric, limit, since, until) if self._store else Line(())


def job_run(run: Run) -> JobRun:
    """Returns what a run in MLflow tells of its job."""

    def tag(name: str) -> str:
        return run.tags.get(f"nemo_airflow.{name}", "")

    return JobRun(
        run_id=run.run_id,
        key=run.tags.get(fields.KEY, ""),
        name=run.name,
        state=run.tags.get(fields.STATE, "") or str(JobState.RUNNING),
        failure=tag("failure"),
        exit_code=int(code) if (code := tag("exit_code")) else None,
        reason=tag("error"),
        kind=tag("backend"),
        job_id=tag("job_id"),
        cluster=tag("cluster"),
        began=run.start_ms / 1000,
        ended=run.ended,
        ended_at=run.end_ms / 1000 if run.ended and run.end_ms else None,
        dag_id=run.tags.get("airflow.dag_id", ""),
        task_id=run.tags.get("airflow.task_id", ""),
        user=run.tags.get(fields.USER, ""),
        params=run.params,
        metrics=run.metrics,
        tags=run.tags,
        experiment_id=run.experiment_id,
        latest=run.latest,
    )
