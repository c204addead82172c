"""A tracking store that MLflow's own client opens: a database, Databricks, or a plugin's kind."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, Param, RunTag
from mlflow.entities import LoggedModel as MlflowModel
from mlflow.entities import Metric as MlflowMetric
from mlflow.entities import Run as MlflowRun
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Metric, RunInput, UploadWatch
from nemo_airflow.tracking.mlflow import artifact_errors
from nemo_airflow.tracking.mlflow.address import hide_login
from nemo_airflow.tracking.mlflow.fields import INPUT_CONTEXT
from nemo_airflow.tracking.mlflow.files import list_repository, read_repository
from nemo_airflow.tracking.mlflow.lines import Line, read_database, thin
from nemo_airflow.tracking.mlflow.registered import RegisteredModel, RegisteredVersion
from nemo_airflow.tracking.mlflow.rest import deleted_experiment
from nemo_airflow.tracking.mlflow.store import (
    NEWEST_END_FIRST,
    LoggedModel,
    Run,
    StoredFile,
    ended_jobs_filter,
    is_transient_answer,
    jobs_filter,
    read_from_repository,
    sample,
    search_filter,
    upload_to_repository,
)


class ClientStore:
    """A store accessed through MLflow's own client.

    Args:
        uri: For example ``sqlite:////data/mlflow.db``.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        with self._errors(), opening_alone(uri):
            self._client = MlflowClient(tracking_uri=uri)

    def experiment(self, name: str) -> str | None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            found = self._client.get_experiment_by_name(name)
        if found is None:
            return None
        if found.lifecycle_stage == "deleted":
            raise TrackingError(deleted_experiment(name, hide_login(self.uri)))
        return str(found.experiment_id)

    def create_experiment(self, name: str, artifact_location: str | None) -> str:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return str(self._client.create_experiment(name, artifact_location))

    def create_run(self, experiment_id: str, name: str, tags: Mapping[str, str], start_ms: int) -> Run:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return _run(self._client.create_run(experiment_id, start_time=start_ms, tags=dict(tags), run_name=name))

    def search(self, experiment_id: str, tag: str, value: str, *, running: bool = False) -> list[Run]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return [_run(run) for run in self._client.search_runs([experiment_id], search_filter(tag, value, running))]

    def latest_end(self, experiment_id: str, parent_id: str) -> int | None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            found = self._client.search_runs(
                [experiment_id], ended_jobs_filter(parent_id), max_results=1, order_by=[NEWEST_END_FIRST]
            )
            return _run(found[0]).end_ms if found else None

    def search_jobs(self, which: str, order: Sequence[str], limit: int, page: str = "") -> tuple[list[Run], str]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            experiments = [experiment.experiment_id for experiment in _pages(self._client.search_experiments)]
            found = self._client.search_runs(
                experiments, jobs_filter(which), max_results=limit, order_by=list(order), page_token=page or None
            )
            token = found.token or ""  # of a database it is bytes
            return [_run(run) for run in found], token.decode() if isinstance(token, bytes) else token

    def tag_values(self, tag: str) -> set[str]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        found: set[str] = set()
        with self._errors():
            for experiment in _pages(self._client.search_experiments):
                search = functools.partial(
                    self._client.search_runs, [experiment.experiment_id], f"tags.`{tag}` LIKE '%'"
                )
                found.update(run.data.tags[tag] for run in _pages(search))
        return found

    def run(self, run_id: str) -> Run:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return _run(self._client.get_run(run_id))

    def set_status(self, run_id: str, status: str, end_ms: int | None = None) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            if end_ms is None:
                self._client.update_run(run_id, status)
            else:
                self._client.set_terminated(run_id, status, end_ms)

    def delete_run(self, run_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.delete_run(run_id)

    def write_once(self, run_id: str, param: str, value: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.log_param(run_id, param, value)

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.log_batch(
                run_id,
                metrics=[MlflowMetric(m.name, m.value, round(m.timestamp * 1000), m.step) for m in metrics],
                params=[Param(key, value) for key, value in (params or {}).items()],
                tags=[RunTag(key, value) for key, value in (tags or {}).items()],
            )

    def log_inputs(self, run_id: str, inputs: Sequence[RunInput]) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        datasets = [
            DatasetInput(
                Dataset(each.name, each.digest, each.source_type, each.source),
                [InputTag(INPUT_CONTEXT, each.context)] if each.context else [],
            )
            for each in inputs
        ]
        with self._errors():
            self._client.log_inputs(run_id, datasets=datasets)

    def create_model(self, run: Run, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.create_logged_model(run.experiment_id, name, run.run_id, dict(tags), dict(params))

    def models(self, experiment_id: str, tag: str, value: str) -> list[LoggedModel]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return list(map(_model, self._client.search_logged_models([experiment_id], f"tags.`{tag}` = '{value}'")))

    def model(self, model_id: str) -> LoggedModel:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return _model(self._client.get_logged_model(model_id))

    def set_model_ready(self, model_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.finalize_logged_model(model_id, "READY")

    def delete_model(self, model_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.delete_logged_model(model_id)

    def add_output(self, run_id: str, model_id: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])

    def model_versions(self, which: str, limit: int) -> list[RegisteredVersion]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            found = self._client.search_model_versions(which, limit, ["creation_timestamp DESC"])
            return [
                RegisteredVersion(
                    each.name, str(each.version), each.run_id or "", each.creation_timestamp / 1000, dict(each.tags)
                )
                for each in found
            ]

    def registered_models(self, which: str, limit: int) -> list[RegisteredModel]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return [
                RegisteredModel(
                    each.name, {alias: str(version) for alias, version in each.aliases.items()}, dict(each.tags)
                )
                for each in self._client.search_registered_models(which, limit)
            ]

    def history(self, run_id: str, metric: str) -> list[Metric]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            return [
                Metric(p.key, p.value, p.step, p.timestamp / 1000)
                for p in self._client.get_metric_history(run_id, metric)
            ]

    def sampled(self, run_ids: Sequence[str], metric: str, limit: int) -> dict[str, list[Metric]]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`. All are read: MLflow's client has no other way."""
        found = {}
        for run_id in run_ids:
            points = sorted(self.history(run_id, metric), key=lambda point: (point.step, point.timestamp))
            found[run_id] = sample(points, limit)
        return found

    def line(self, run_id: str, metric: str, limit: int, since: int, until: int) -> Line:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        engine = getattr(getattr(self._client._tracking_client, "store", None), "engine", None)
        if engine is not None:
            try:
                return read_database(engine, run_id, metric, limit, since, until)
            except SQLAlchemyError as error:
                line = " ".join(str(error).split())[:1000]
                raise TrackingError(f"the MLflow store {hide_login(self.uri)}: {line}", transient=True) from error
        return thin((point for point in self.history(run_id, metric) if since <= point.step <= until), limit)

    def upload(self, run: Run, files: Mapping[str, Path], watch: UploadWatch) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        upload_to_repository(run, files, self.uri, watch)

    def read(self, run: Run, path: str) -> bytes | None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        return read_from_repository(run, path, self.uri)

    def list_files(self, run: Run, folder: str) -> list[StoredFile]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        return list_repository(run, folder, self.uri)

    def read_pieces(self, run: Run, path: str) -> Generator[bytes]:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        return read_repository(run, path, self.uri)

    def delete_tag(self, run_id: str, name: str) -> None:
        """See :class:`~nemo_airflow.tracking.mlflow.store.Store`."""
        with self._errors():
            self._client.delete_tag(run_id, name)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except MlflowException as error:
            code = str(error.error_code)
            line = " ".join(str(error).split())[:1000]
            raise TrackingError(
                f"the MLflow store {hide_login(self.uri)}: {line}", transient=is_transient_answer(code, line), code=code
            ) from error
        except OSError as error:
            raise TrackingError(
                f"the MLflow store {hide_login(self.uri)} cannot be opened: {error}",
                transient=not artifact_errors.is_permanent(error),
            ) from error


@contextlib.contextmanager
def opening_alone(uri: str) -> Iterator[None]:
    """Lets one process of this machine open a sqlite database: two that create its tables at once corrupt it."""
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    # In a read-only folder no tables can be created either, so no lock is needed.
    if not uri.startswith("sqlite:///") or not os.access(database.parent, os.W_OK):
        yield
        return
    with database.with_name(f".{database.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _model(model: MlflowModel) -> LoggedModel:
    return LoggedModel(model.model_id, model.artifact_location, str(model.status.value))


def _run(run: MlflowRun) -> Run:
    return Run(
        run_id=run.info.run_id,
        experiment_id=str(run.info.experiment_id),
        status=run.info.status,
        name=run.info.run_name or "",
        start_ms=run.info.start_time or 0,
        end_ms=run.info.end_time,
        artifact_uri=run.info.artifact_uri,
        tags=dict(run.data.tags),
        params=dict(run.data.params),
        models=frozenset(made.model_id for made in (run.outputs.model_outputs if run.outputs else ())),
        # From the protocol message, because run.data.metrics has the values without their times.
        latest={metric.key: (metric.step, metric.timestamp) for metric in run.data.to_proto().metrics},
        metrics=dict(run.data.metrics),
        inputs=tuple(
            RunInput(each.dataset.name, each.dataset.digest, each.dataset.source, each.dataset.source_type)
            for each in (run.inputs.dataset_inputs if run.inputs else ())
        ),
    )
