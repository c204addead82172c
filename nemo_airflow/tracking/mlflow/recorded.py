"""Reads from its run in MLflow what a job was: its config, code, environment, inputs and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nemo_airflow.exceptions import PlanError, TrackingError
from nemo_airflow.job import JobState
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.tracking.base import ARTIFACT, ARTIFACT_DIGESTS, INPUT, OUTPUTS_DIGEST, Metric, RunInput
from nemo_airflow.tracking.mlflow import address, fields
from nemo_airflow.tracking.mlflow.jobs import JobRuns, job_run
from nemo_airflow.tracking.mlflow.queries import RunQuery
from nemo_airflow.tracking.mlflow.store import Run, Store, open_store, runs_by_id

_FOLDER = "nemo_airflow"
_T = TypeVar("_T")

PLAN, PATCH, INCLUDED, ENVIRONMENT, JOB = "plan.json", "patch.diff", "included.json", "environment.json", "job.json"
"""The files that a run has of its job."""

_ALL = frozenset({PLAN, PATCH, INCLUDED, ENVIRONMENT, JOB})

_AT_ONCE = 8
"""Runs whose files are read at the same time."""


@dataclasses.dataclass(frozen=True)
class RecordedRun:
    """A run as it was recorded.

    Attributes:
        run_id: Its id.
        plan: The config, as the job resolved it.
        commit: The git commit of its code, or empty.
        dirty: Whether there were uncommitted changes.
        patch: Those changes as a unified diff; empty where they could not be recorded.
        included: Files that git does not track; as of :class:`~nemo_airflow.job.Package`.
        excluded: Patterns of files that were not shipped; as of :class:`~nemo_airflow.job.Package`.
        parts: The parts of its package, if it has several; as of :class:`~nemo_airflow.job.Package`.
        package_digest: The digest of its code package, or empty.
        environment: The environment in which its job ran; empty if it never started.
        inputs: Where each artifact that it was given is from, and its digest, by name.
        metrics: The newest value of each metric.
        steps: The step of that value.
        asked: What else was asked for: ``executor``, ``collector``, ``name``, ``allow``, ``env``, ``outputs`` and
            ``package``; empty for a run of an earlier release.
        datasets: The data sets that its job was given, or has named.
        artifacts: The digest of each artifact that its job returned, by name.
        outputs_digest: The digest of its outputs in the shared store, or empty.
        experiment_id: The experiment that has it.
        tags: All tags of the run.
    """

    run_id: str
    plan: Mapping[str, Any]
    commit: str = ""
    dirty: bool = False
    patch: str = ""
    included: Mapping[str, str] = dataclasses.field(default_factory=dict)
    excluded: Sequence[str] = ()
    parts: Sequence[Mapping[str, str]] = ()
    package_digest: str = ""
    environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    steps: Mapping[str, int] = dataclasses.field(default_factory=dict)
    asked: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    datasets: Sequence[RunInput] = ()
    artifacts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs_digest: str = ""
    experiment_id: str = ""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def key(self) -> str:
        """The key of its job."""
        return self.tags.get(fields.KEY, "")

    @property
    def state(self) -> str:
        """How its job ended; empty while that is not recorded."""
        return self.tags.get(fields.STATE, "")


def recorded_run(
    run_id: str, tracking_uri: str | None = None, conn_id: str | None = None, files: Collection[str] = _ALL
) -> RecordedRun:
    """Reads a run from MLflow. Blocks.

    Args:
        run_id: The run's id.
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.
        files: Which of its files are read; what the others have is empty.

    Raises:
        TrackingError: The run does not exist, it is not the run of a job, or the store cannot be reached.
    """
    store = open_store(*address.resolve(tracking_uri, conn_id))
    return _recorded(store, store.run(run_id), files)


class RunsTogether:
    """Runs of jobs that are looked at together: found by one search; their files are read when they are asked for.

    Methods block, and raise :class:`~nemo_airflow.exceptions.TrackingError` where the store cannot be reached.

    Args:
        run_ids: Their ids. Those of which there is no run of a job are left out.
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.

    Attributes:
        uri: The store's address, without a login.
        jobs: The runs by id, in the order of the ids.
    """

    def __init__(self, run_ids: Sequence[str], tracking_uri: str | None = None, conn_id: str | None = None) -> None:
        uri, credentials = address.resolve(tracking_uri, conn_id)
        self.uri = address.hide_login(uri)
        self._store = None if address.is_missing_database(uri) else open_store(uri, credentials)
        found = {run.run_id: run for run in runs_by_id(self._store, run_ids)} if self._store else {}
        self._runs = {run_id: found[run_id] for run_id in run_ids if run_id in found}
        self.jobs = {run_id: job_run(run) for run_id, run in self._runs.items()}

    def recorded(self, run_ids: Collection[str], files: Collection[str]) -> dict[str, RecordedRun | None]:
        """Returns some of the runs by id, in their order; None for one whose files are not there or are broken.

        Args:
            run_ids: Which of them.
            files: Which of their files are read; what the others have is empty.
        """
        return self._each(run_ids, lambda store, run: _recorded_or_none(store, run, files))

    def sampled(self, run_ids: Collection[str], metric: str, limit: int) -> dict[str, list[Metric]]:
        """Returns points of a metric in some of the runs; about so many of each, with the first and the last one."""
        having = [run_id for run_id, run in self._runs.items() if run_id in run_ids and metric in run.latest]
        return self._store.sampled(having, metric, limit) if self._store and having else {}

    def histories(self, run_ids: Collection[str], metric: str) -> dict[str, list[Metric]]:
        """Returns all points of a metric in some of the runs, in no order; of one without the metric none."""
        return self._each(run_ids, lambda store, run: store.history(run.run_id, metric) if metric in run.latest else [])

    def _each(self, run_ids: Collection[str], read: Callable[[Store, Run], _T]) -> dict[str, _T]:
        store = self._store
        if store is None:
            return {}
        runs = {run_id: run for run_id, run in self._runs.items() if run_id in run_ids}
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return dict(zip(runs, pool.map(lambda run: read(store, run), runs.values()), strict=True))


def _recorded_or_none(store: Store, run: Run, files: Collection[str]) -> RecordedRun | None:
    try:
        is_clean = run.tags.get("nemo_airflow.dirty") == "false"  # then it has neither of the two
        return _recorded(store, run, {*files} - {PATCH, INCLUDED} if is_clean else files)
    except (ValueError, TrackingError) as error:
        if isinstance(error, TrackingError) and error.transient:
            raise
        return None


def _recorded(store: Store, run: Run, files: Collection[str]) -> RecordedRun:
    def read(name: str) -> bytes | None:
        return _read(store, run, name) if name in files else None

    plan = _plan(store, run) if PLAN in files else {}
    environment = read(ENVIRONMENT)
    tags = run.tags
    image = {name: tags[f"nemo_airflow.{name}"] for name in ("image", "image_digest") if f"nemo_airflow.{name}" in tags}
    return RecordedRun(
        run_id=run.run_id,
        plan=plan,
        commit=tags.get("nemo_airflow.commit", ""),
        dirty=tags.get("nemo_airflow.dirty") == "true",
        patch=(read(PATCH) or b"").decode("utf-8", "surrogateescape"),
        included=json.loads(read(INCLUDED) or b"{}"),
        excluded=_json_list(tags.get("nemo_airflow.excluded", "")),
        parts=_json_list(tags.get("nemo_airflow.package_parts", "")),
        package_digest=tags.get("nemo_airflow.package_digest", ""),
        environment={**json.loads(environment), **image} if environment else {},
        inputs={tag.removeprefix(INPUT): text for tag, text in tags.items() if tag.startswith(INPUT)},
        metrics=run.metrics,
        steps={name: step for name, (step, _) in run.latest.items()},
        asked=json.loads(read(JOB) or b"{}"),
        datasets=run.inputs,
        artifacts=_digests_of_artifacts(tags),
        outputs_digest=tags.get(OUTPUTS_DIGEST, ""),
        experiment_id=run.experiment_id,
        tags=tags,
    )


def last_good_run(run_id: str, tracking_uri: str | None = None, conn_id: str | None = None) -> str:
    """Returns the id of the newest run that succeeded before a run began: of the same task, or else the same name.

    Raises:
        TrackingError: There is none, or the store cannot be reached.
    """
    runs = JobRuns(tracking_uri, conn_id)
    run = runs.find(run_id)
    query = RunQuery(dag=run.dag_id, task=run.task_id, state=JobState.SUCCEEDED, until=run.began)
    if not run.dag_id:
        query = dataclasses.replace(query, name=run.name)
    found, _ = runs.search(query, 1)
    if not found:
        what = f"task {run.task_id} of DAG {run.dag_id}" if run.dag_id else f"job named {run.name}"
        raise TrackingError(f"no run of {what} has succeeded before run {run.run_id}")
    return found[0].run_id


def digests_of_runs(tracking_uri: str | None = None, conn_id: str | None = None) -> set[str]:
    """Returns the digests of all packages, configs, outputs and artifacts of runs that are not deleted. Blocks.

    Args:
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.

    Raises:
        TrackingError: The store does not exist, cannot be reached, or refuses.
    """
    uri, credentials = address.resolve(tracking_uri, conn_id)
    if address.is_missing_database(uri):
        if tracking_uri or conn_id:
            raise TrackingError(f"{uri} does not exist: give the address of the store that has the runs")
        return set()
    store = open_store(uri, credentials)
    tags = ("nemo_airflow.package_digest", "nemo_airflow.plan_digest", OUTPUTS_DIGEST)
    found = set().union(*map(store.tag_values, tags))
    number = 0
    while texts := store.tag_values(ARTIFACT_DIGESTS.format(number)):
        found.update(digest for text in texts for digest in text.split())
        number += 1
    return found


def _plan(store: Store, run: Run) -> Mapping[str, Any]:
    from nemo_airflow.config import plan as plans

    data = _read(store, run, PLAN)
    if data is None:
        raise TrackingError(
            f"run {run.run_id} has no {_FOLDER}/plan.json: it is not the run of a job, or its config was not recorded; "
            "'nemo-airflow runs' lists the runs of jobs"
        )
    try:
        return plans.loads(data)
    except PlanError as error:
        raise TrackingError(f"{_FOLDER}/plan.json of run {run.run_id} is not a config: {error}") from error


def _digests_of_artifacts(tags: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for tag, text in tags.items():
        if tag.startswith(ARTIFACT):
            with contextlib.suppress(ValueError):  # so long that the tag was cut
                found[tag.removeprefix(ARTIFACT)] = Artifact.from_json(json.loads(text)).digest
    return found


def _json_list(text: str) -> Sequence[Any]:
    try:
        return json.loads(text) if text else ()
    except ValueError:  # so long that the tag was cut: of several parts only the first repository is compared then
        return ()


def _read(store: Store, run: Run, name: str) -> bytes | None:
    return store.read(run, f"{_FOLDER}/{name}")
