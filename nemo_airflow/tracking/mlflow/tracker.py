"""The tracker that records runs in MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import tenacity

from nemo_airflow import settings
from nemo_airflow.connections import find_secrets, redact
from nemo_airflow.exceptions import NemoAirflowError, SettingsError, TrackingError
from nemo_airflow.job import PATCH, Job, JobHandle, JobState, JobStatus, Package, without_patch
from nemo_airflow.language.plan.contents import has_recipes
from nemo_airflow.store.address import read_patch
from nemo_airflow.tracking.base import (
    ATTEMPTS,
    UNWATCHED,
    Metric,
    PartlyRefusedError,
    RunInput,
    RunRef,
    Tracker,
    UploadWatch,
)
from nemo_airflow.tracking.mlflow import address, batches, fields, models, points, runs
from nemo_airflow.tracking.mlflow.reuse import MLflowEarlierRuns
from nemo_airflow.tracking.mlflow.store import Run, Store, open_store
from nemo_airflow.tracking.reuse import EarlierRuns

T = TypeVar("T")

_log = logging.getLogger(__name__)

_OPEN_LIMIT = 20.0
"""Seconds for which opening a run is tried: a task waits that long before it submits its job."""

_DESCRIBE_LIMIT = 20.0
"""Seconds for which a task waits for the artifact store before it submits its job."""

_SLOWEST = 1 << 20
"""Bytes a second at which a large patch is uploaded at least."""

_PATCH = "nemo_airflow/patch.diff"
_JOB = "nemo_airflow/job.json"

_STATUS = {JobState.SUCCEEDED: "FINISHED", JobState.CANCELLED: "KILLED"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLflowTracker(Tracker):
    """Records runs in MLflow.

    Attributes:
        tracking_uri: Address of the store. None: the connection's, else ``$MLFLOW_TRACKING_URI``,
            else a sqlite database in :func:`nemo_airflow.settings.home`.
        conn_id: An Airflow connection with the address and the login; see ``docs/tracking.md``.
        experiment: Name of the experiment, instead of the operator's.
        tags: Further tags for every run.
        log_system_metrics: Whether the samples of CPU, memory and GPUs are recorded.
        share: Whether the job gets its run's id, so that ``mlflow`` runs in user code become children of its run.
            None: if the job can reach the store, which is a server that needs no login, or a
            file on a disk that the job sees.
        ui_url: Address of an MLflow page that shows this store, for links. None:
            ``$NEMO_AIRFLOW_MLFLOW_PAGE``, else the server itself.
    """

    kind: ClassVar[str] = "mlflow"

    tracking_uri: str | None = None
    conn_id: str | None = None
    experiment: str | None = None
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    log_system_metrics: bool = True
    share: bool | None = None
    ui_url: str | None = None

    def __post_init__(self) -> None:
        # Skipped for a template or another task's output: rendering creates a new tracker.
        known = isinstance(self.tracking_uri, str) and "{{" not in self.tracking_uri
        if known and self.tracking_uri and address.without_login(self.tracking_uri)[1]:
            raise SettingsError(
                "tracking_uri contains a login, which would be visible: put it into a connection and give conn_id"
            )

    def to_json(self) -> dict[str, Any]:
        """Returns the tracker as plain JSON types; the connection by its id only, and tags without secrets."""
        return {"kind": self.kind, **dataclasses.asdict(self), "tags": self._masked_tags}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MLflowTracker:
        """The inverse of ``to_json``."""
        return cls(**{name: value for name, value in data.items() if name != "kind"})

    def pin(self) -> MLflowTracker:
        """See :meth:`Tracker.pin`."""
        if self.conn_id or self.tracking_uri:
            return self
        return dataclasses.replace(self, tracking_uri=address.hide_login(address.resolve(None, None)[0]))

    def earlier_runs(self) -> EarlierRuns:
        """See :meth:`Tracker.earlier_runs`."""
        uri, credentials = address.resolve(self.tracking_uri, self.conn_id)
        page = self.ui_url or settings.mlflow_page() or uri
        return MLflowEarlierRuns(
            open_store(uri, credentials), lambda experiment, run: address.run_page(page, experiment, run)
        )

    def open(
        self, job: Job, *, experiment: str, parent: str, shares_filesystem: bool, at: float | None = None
    ) -> RunRef:
        """See :meth:`Tracker.open`."""
        uri, credentials = address.resolve(self.tracking_uri, self.conn_id)
        name = self.experiment or experiment
        address.check_experiment(uri, name)
        store = open_store(uri, credentials)
        began = _milliseconds(at)

        def find() -> tuple[str, Run | None, Run]:
            experiment_id = runs.find_or_create_experiment(store, name, address.artifact_location(uri, name))
            above = self._open_parent(store, experiment_id, parent, job, began) if parent else None
            run = runs.find_or_create_run(
                store,
                experiment_id,
                job.run_key or job.key,
                name=_run_name(job),
                tags=lambda: self._tags(job, above.run_id if above else ""),
                start_ms=began,
            )
            if run.ended and began > (run.end_ms or 0):
                store.log(run.run_id, tags={fields.STATE: ""})
                store.set_status(run.run_id, "RUNNING")
            if job.run_key:
                store.log(run.run_id, tags=fields.tags_of_attempts(job))
            return experiment_id, above, run

        experiment_id, above, run = _persist(find)
        # A client without the login would fail.
        needs_login = credentials.given and not _LOGIN.intersection(job.secret_env)
        share = self._shares(uri, shares_filesystem, needs_login)
        ref = RunRef(
            uri=address.hide_login(uri),
            experiment_id=experiment_id,
            run_id=run.run_id,
            parent_id=above.run_id if above else "",
            url=address.run_page(self.ui_url or settings.mlflow_page() or uri, experiment_id, run.run_id),
            env=_env(uri, experiment_id, run.run_id) if share else {},
            attempt=job.key if job.run_key else "",
        )
        if not run.params.keys() - {runs.STANDS_FOR}:
            self._describe(store, run, job)
        return ref

    def started(self, ref: RunRef, handle: JobHandle, script: str) -> Mapping[str, str]:
        """See :meth:`Tracker.started`."""
        store = self._store(ref)
        _persist(lambda: store.log(ref.run_id, tags=fields.tags_of_handle(handle)))
        return {"nemo_airflow/job_script.txt": redact(script)}

    def config(self, ref: RunRef, plan: Mapping[str, Any]) -> Mapping[str, str]:
        """See :meth:`Tracker.config`. A parameter that already has another value keeps it."""
        store = self._store(ref)
        with _documents_of(_plan_files(plan)) as files:
            _write_params(store, store.run(ref.run_id), fields.params_of(plan))
        return files

    def environment(self, ref: RunRef, environment: Mapping[str, Any]) -> Mapping[str, str]:
        """See :meth:`Tracker.environment`."""
        store = self._store(ref)
        files = {"nemo_airflow/environment.json": redact(_json(environment))}
        if requirements := fields.requirements_of(environment):
            files["nemo_airflow/requirements.txt"] = requirements
        with _documents_of(files):
            _write_tags(store, ref.run_id, fields.tags_of_environment(environment))
        return files

    def tag(self, ref: RunRef, tags: Mapping[str, str]) -> None:
        """See :meth:`Tracker.tag`."""
        store = self._store(ref)
        _write_tags(store, ref.run_id, fields.clean_tags({name: redact(str(value)) for name, value in tags.items()}))

    def inputs(self, ref: RunRef, inputs: Sequence[RunInput]) -> None:
        """See :meth:`Tracker.inputs`. A digest is cut: MLflow keeps 36 characters."""
        _write_inputs(self._store(ref), ref.run_id, inputs)

    def metrics(self, ref: RunRef, metrics: Sequence[Metric], mark: int) -> None:
        """See :meth:`Tracker.metrics`."""
        kept = metrics if self.log_system_metrics else [m for m in metrics if not m.name.startswith("system/")]
        points.record(self._store(ref), ref.run_id, kept, mark, ref.attempt)

    def mark(self, ref: RunRef) -> int:
        """See :meth:`Tracker.mark`."""
        store = self._store(ref)
        points.forget(store, ref.run_id, ref.attempt)
        return points.read_mark(store.run(ref.run_id).tags.get(fields.mark_of(ref.attempt)))

    def documents(self, ref: RunRef, texts: Mapping[str, str]) -> None:
        """See :meth:`Tracker.documents`."""
        store = self._store(ref)
        _upload(store, store.run(ref.run_id), texts)

    def artifacts(self, ref: RunRef, files: Mapping[str, Path], watch: UploadWatch = UNWATCHED) -> None:
        """See :meth:`Tracker.artifacts`. A path that MLflow does not take is changed."""
        if files:
            store = self._store(ref)
            models.upload(store, store.run(ref.run_id), files, watch)

    def model(self, ref: RunRef, name: str, folder: str) -> None:
        """See :meth:`Tracker.model`."""
        models.add(self._store(ref), ref.run_id, redact(name), folder)

    def outputs_kept(self, ref: RunRef) -> None:
        """See :meth:`Tracker.outputs_kept`."""
        models.finish(self._store(ref), ref.run_id)

    def artifact_root(self, ref: RunRef) -> str:
        """See :meth:`Tracker.artifact_root`. It is empty where models have files, which go to places of their own."""
        run = self._store(ref).run(ref.run_id)
        return "" if models.folders(run) else run.artifact_uri

    def artifact_path(self, path: str) -> str:
        """See :meth:`Tracker.artifact_path`."""
        return fields.clean_path(path)

    def ended(self, ref: RunRef, status: JobStatus, *, error: str = "", at: float | None = None) -> Mapping[str, str]:
        """See :meth:`Tracker.ended`."""
        store = self._store(ref)
        run = store.run(ref.run_id)
        own = run.tags.get(fields.KEY, "")
        newest = run.tags.get(ATTEMPTS, own).split(" ")[0]
        if run.tags.get(fields.STATE) or (ref.attempt or own) != newest:  # or a later attempt has the run by now
            return {}
        # Set even if user code has ended the run: that code cannot know how the job ended.
        end = _milliseconds(at)
        store.set_status(ref.run_id, _STATUS.get(status.state, "FAILED"), end)
        store.log(ref.run_id, tags=fields.tags_of_end(status, error))
        points.forget(store, ref.run_id, ref.attempt)
        runs.delete_ghosts(store, run)
        if ref.env:
            _end_children(store, ref.experiment_id, ref.run_id, _STATUS.get(status.state, "FAILED"), end)
        return {"nemo_airflow/traceback.txt": redact(error)} if error else {}

    def close_parent(self, ref: RunRef, *, succeeded: bool, at: float | None = None) -> None:
        """See :meth:`Tracker.close_parent`."""
        if not ref.parent_id:
            return None
        store = self._store(ref)
        running = store.search(ref.experiment_id, fields.PARENT, ref.parent_id, running=True)
        last = not any(fields.KEY in run.tags for run in running)  # runs of user code have no key
        if not succeeded or store.run(ref.parent_id).status == "FAILED":
            # FAILED by another task that was not tried again: a new try would have opened the parent.
            status = "FAILED"
        elif last:
            status = "FINISHED"
        else:
            return None
        if not last:
            return store.set_status(ref.parent_id, status)
        # Several jobs may end at once, in any process: all that come here find the same end.
        end = max(_milliseconds(at), store.latest_end(ref.experiment_id, ref.parent_id) or 0)
        store.set_status(ref.parent_id, status, end)
        return _end_children(store, ref.experiment_id, ref.parent_id, status, end)

    @property
    def _masked_tags(self) -> dict[str, str]:
        return {name: redact(str(value)) for name, value in self.tags.items()}

    def _store(self, ref: RunRef) -> Store:
        # The run's own address: another process's environment may have another.
        uri, credentials = address.resolve(self.tracking_uri, self.conn_id)
        return open_store(
            *((uri, credentials) if address.hide_login(uri) == ref.uri else address.resolve(ref.uri, None))
        )

    def _open_parent(self, store: Store, experiment_id: str, parent: str, job: Job, began: int) -> Run:
        key = f"parent-{hashlib.sha256(parent.encode()).hexdigest()[:32]}"
        labels = {
            f"airflow.{name}": job.labels[name]
            for name in ("dag_id", "run_id", "run_type", "logical_date")
            if name in job.labels
        }
        tags = {
            **self._masked_tags,
            **labels,
            "nemo_airflow.parent": parent,
            "mlflow.source.type": "JOB",
            "mlflow.source.name": parent,
            fields.USER: job.labels.get("user", ""),
            fields.NOTE: fields.note_of(job.run_description),
        }
        run = runs.find_or_create_run(
            store, experiment_id, key, name=parent, tags=lambda: fields.clean_tags(tags), start_ms=began
        )
        # A task of the DAG run was cleared, and runs again; or another one has just begun. What a job that failed says
        # of the DAG run still holds where the records of one that ran beside it arrive later.
        if run.ended and (run.status != "FAILED" or began > (run.end_ms or 0)):
            store.set_status(run.run_id, "RUNNING")
        return run

    def _tags(self, job: Job, parent_id: str) -> dict[str, str]:
        return {
            **fields.clean_tags(self._masked_tags),
            **fields.tags_of_job(job),
            **({fields.PARENT: parent_id} if parent_id else {}),
        }

    def _shares(self, uri: str, shares_filesystem: bool, needs_login: bool) -> bool:
        if self.share is not None:
            return self.share
        if uri.startswith(("http://", "https://")):
            return not needs_login
        return shares_filesystem and uri.startswith("sqlite:")

    def _describe(self, store: Store, run: Run, job: Job) -> None:
        """Records what is known before the job runs. The run already exists, so a failure loses only this."""
        files: dict[str, str | bytes] = {**_plan_files(job.plan), _JOB: redact(_json(_asked_of(job)))}
        # Whole or not at all: a masked patch could not be applied.
        if job.package and job.package.patch and not find_secrets(job.package.patch):
            files[_PATCH] = job.package.patch.encode("utf-8", "surrogateescape")
        if job.package and job.package.included:
            files["nemo_airflow/included.json"] = _json(job.package.included)
        try:
            _within(_DESCRIBE_LIMIT, lambda: _upload(store, run, files))
        except NemoAirflowError as error:
            _log.warning("run %s has no %s: %s", run.run_id, ", ".join(files), error)
        if job.package and job.package.stored_patch and not (job.package.patch or job.package.keeps_patch_apart):
            _write_large_patch(store, run, job.package)
        try:
            _write_inputs(store, run.run_id, fields.inputs_of(job.plan))
        except TrackingError as error:
            _log.warning("run %s does not have the artifacts that it is given as inputs: %s", run.run_id, error)
        try:
            # Last: they mark a run as described. Those of a recipe are only known in the job.
            if not has_recipes(job.plan):
                _write_params(store, run, fields.params_of(job.plan))
        except TrackingError as error:
            _log.warning("the config of run %s is not recorded yet: %s", run.run_id, error)


def _write_large_patch(store: Store, run: Run, package: Package) -> None:
    """Writes a patch that is only in the stores of packages; one with a secret stays there."""
    name = f"{package.stored_patch}.{PATCH}"
    patch = read_patch(package)
    if patch is None:
        _log.warning("run %s has no %s: %s is not on this machine, and in no shared store", run.run_id, _PATCH, name)
    elif find_secrets(patch.decode("utf-8", "surrogateescape")):
        _log.warning("run %s has no %s: %s holds a secret and stays on this machine", run.run_id, _PATCH, name)
    else:
        try:
            _within(_DESCRIBE_LIMIT + len(patch) / _SLOWEST, lambda: _upload(store, run, {_PATCH: patch}))
        except NemoAirflowError as error:
            _log.warning("run %s has no %s, which is %s: %s", run.run_id, _PATCH, name, error)


_LOGIN = frozenset({"MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"})
"""Variables, one of which MLflow's client needs for a server with a login: a job has them from its secrets."""


def _env(uri: str, experiment_id: str, run_id: str) -> dict[str, str]:
    """Returns the variables that make runs of user code children of the job's run, in its experiment.

    Not MLFLOW_RUN_ID: with it the first run that user code starts is the job's own. MLflow refuses that after
    ``set_experiment``, renames the job's run, and does not make later runs its children.
    """
    return {
        "MLFLOW_TRACKING_URI": uri if uri.startswith("sqlite:") else address.hide_login(uri),
        "MLFLOW_EXPERIMENT_ID": experiment_id,
        "MLFLOW_RUN_CONTEXT": json.dumps({fields.PARENT: run_id}),
        "NEMO_AIRFLOW_RUN_ID": run_id,
    }


def _end_children(store: Store, experiment_id: str, run_id: str, status: str, end: int) -> None:
    """Ends the runs that user code left open below a run: code that was killed cannot end them."""
    for child in store.search(experiment_id, fields.PARENT, run_id, running=True):
        store.set_status(child.run_id, status, end)
        _end_children(store, experiment_id, child.run_id, status, end)


def _within(seconds: float, call: Callable[[], None]) -> None:
    """Makes a call that may hang, as MLflow's clients of artifact stores do.

    Raises:
        TrackingError: It did not return in time. It goes on in a thread that does not keep the process alive.
    """
    errors: list[Exception] = []

    def make() -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001 - handed to the caller
            errors.append(error)

    thread = threading.Thread(target=make, name="nemo-tracking-describe", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TrackingError(f"the artifact store did not answer within {seconds:.0f} s", transient=True)
    if errors:
        raise errors[0]


def _write_params(store: Store, run: Run, params: Mapping[str, str]) -> None:
    """Writes the parameters that the run does not have yet; MLflow allows writing a parameter once."""
    if conflicts := sorted(name for name, value in params.items() if run.params.get(name, value) != value):
        shown = ", ".join(conflicts[:10]) + (f" and {len(conflicts) - 10} more" if len(conflicts) > 10 else "")
        _log.warning(
            "MLflow keeps the first value of a parameter; the resolved config has another value for: %s", shown
        )
        store.log(run.run_id, tags=fields.clean_tags({fields.CONFLICTS: ", ".join(conflicts)}))
    missing = {name: value for name, value in params.items() if name not in run.params}
    refused: list[batches.Refusal[tuple[str, str]]] = []
    for part in fields.batches(missing, fields.PARAMS_AT_ONCE):
        refused += batches.write_values(store, run.run_id, part, lambda some: store.log(run.run_id, params=some))
    batches.refuse(refused, len(missing), lambda param: f"parameter {param[0]!r}")


def _write_tags(store: Store, run_id: str, tags: Mapping[str, str]) -> None:
    refused: list[batches.Refusal[tuple[str, str]]] = []
    for part in fields.batches(tags, fields.TAGS_AT_ONCE):
        refused += batches.write_values(store, run_id, part, lambda some: store.log(run_id, tags=some))
    batches.refuse(refused, len(tags), lambda tag: f"tag {tag[0]!r}")


def _write_inputs(store: Store, run_id: str, inputs: Sequence[RunInput]) -> None:
    clean = [fields.clean_input(each) for each in inputs]
    refused: list[batches.Refusal[RunInput]] = []
    for start in range(0, len(clean), fields.INPUTS_AT_ONCE):
        part = clean[start : start + fields.INPUTS_AT_ONCE]
        # Of two runs that are the first to have a data set, at once, MLflow refuses one.
        refused += batches.write_accepted(
            store, run_id, part, lambda some: _persist(lambda: store.log_inputs(run_id, some))
        )
    batches.refuse(refused, len(clean), lambda given: f"input {given.name!r}")


@contextlib.contextmanager
def _documents_of(files: dict[str, str]) -> Iterator[dict[str, str]]:
    """Gives a record's documents to the error that says which of its parts were refused."""
    try:
        yield files
    except PartlyRefusedError as error:
        error.documents = files
        raise


def _plan_files(plan: Mapping[str, Any]) -> dict[str, str]:
    return {"nemo_airflow/plan.json": redact(_json(plan))}


def _asked_of(job: Job) -> dict[str, Any]:
    """Returns what a reproduction needs of a job besides its plan; secrets by their names only."""
    return {
        **job.asked,
        "name": job.name,
        "allow": list(job.allow),
        "env": dict(job.env),
        "outputs": list(job.outputs),
        "package": without_patch(job.package.to_json()) if job.package else None,
    }


def _upload(store: Store, run: Run, texts: Mapping[str, str | bytes]) -> None:
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as folder:
        files: dict[str, Path] = {}
        for path, text in texts.items():
            files[path] = Path(folder, Path(path).name)
            files[path].write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "backslashreplace"))
        store.upload(run, files, UNWATCHED)


def _persist(call: Callable[[], T]) -> T:
    """Retries for a short time while a worker waits: its job would otherwise not be tracked."""
    for attempt in tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, TrackingError) and error.transient),
        wait=tenacity.wait_exponential(multiplier=0.2, max=3) + tenacity.wait_random(0, 0.2),
        stop=tenacity.stop_after_delay(_OPEN_LIMIT) | tenacity.stop_after_attempt(4),
        reraise=True,
    ):
        with attempt:
            return call()
    raise AssertionError("tenacity gives up by raising")


def _run_name(job: Job) -> str:
    index = job.labels.get("map_index", "-1")
    task = job.labels.get("task_id", job.name)
    return f"{task}[{index}]" if index not in ("", "-1") else task


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, default=str)


def _milliseconds(seconds: float | None) -> int:
    """Returns a time for MLflow; now for None."""
    return round((time.time() if seconds is None else seconds) * 1000)
