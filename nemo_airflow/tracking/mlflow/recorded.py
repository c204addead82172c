"""Reads from its run in MLflow what a job was: its config, code, environment, inputs and what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nemo_airflow.exceptions import PlanError, TrackingError
from nemo_airflow.job import JobState
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.tracking.base import ARTIFACT, ARTIFACT_DIGESTS, INPUT, OUTPUTS_DIGEST, RunInput
from nemo_airflow.tracking.mlflow import address, fields
from nemo_airflow.tracking.mlflow.jobs import JobRuns
from nemo_airflow.tracking.mlflow.queries import RunQuery
from nemo_airflow.tracking.mlflow.store import Run, Store, open_store

_FOLDER = "nemo_airflow"


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


def recorded_run(run_id: str, tracking_uri: str | None = None, conn_id: str | None = None) -> RecordedRun:
    """Reads a run from MLflow. Blocks.

    Args:
        run_id: The run's id.
        tracking_uri: Address of the store; found as for a tracker when None.
        conn_id: An Airflow connection with the address and the login.

    Raises:
        TrackingError: The run does not exist, it is not the run of a job, or the store cannot be reached.
    """
    store = open_store(*address.resolve(tracking_uri, conn_id))
    run = store.run(run_id)
    plan = _plan(store, run)
    environment = _read(store, run, "environment.json")
    tags = run.tags
    image = {name: tags[f"nemo_airflow.{name}"] for name in ("image", "image_digest") if f"nemo_airflow.{name}" in tags}
    return RecordedRun(
        run_id=run_id,
        plan=plan,
        commit=tags.get("nemo_airflow.commit", ""),
        dirty=tags.get("nemo_airflow.dirty") == "true",
        patch=(_read(store, run, "patch.diff") or b"").decode("utf-8", "surrogateescape"),
        included=json.loads(_read(store, run, "included.json") or b"{}"),
        excluded=_json_list(tags.get("nemo_airflow.excluded", "")),
        parts=_json_list(tags.get("nemo_airflow.package_parts", "")),
        package_digest=tags.get("nemo_airflow.package_digest", ""),
        environment={**json.loads(environment), **image} if environment else {},
        inputs={tag.removeprefix(INPUT): text for tag, text in tags.items() if tag.startswith(INPUT)},
        metrics=run.metrics,
        steps={name: step for name, (step, _) in run.latest.items()},
        asked=json.loads(_read(store, run, "job.json") or b"{}"),
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

    data = _read(store, run, "plan.json")
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
