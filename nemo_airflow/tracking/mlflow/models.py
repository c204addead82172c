"""The models that a job logs: created when it says so, and ready when their files are kept.

The files of a model are among the outputs of its job, below a folder that a tag of the run names. They go to where
MLflow keeps the model's files, instead of to those of the run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nemo_airflow.runner.models import MLMODEL
from nemo_airflow.tracking.base import UploadWatch
from nemo_airflow.tracking.mlflow.store import PENDING, LoggedModel, Run, Store

_FOLDER = "nemo_airflow.model."
"""Beginning of the tags of a run with the folders of its models, by the model's id."""

_ORIGIN = "nemo_airflow.model"
"""Tag of a model with what tells it from all others: a digest of its run and folder."""

_FROM_RUN = ("mlflow.user", "mlflow.source.", "mlflow.project.")
"""Beginnings of the run's tags that its models have too, as with MLflow's own client."""

_PARAMS = 100
"""Parameters that MLflow takes when a model is created."""


def add(store: Store, run_id: str, name: str, folder: str) -> None:
    """Creates the model of a folder as an output of the run; again, it changes nothing.

    Args:
        store: The store.
        run_id: The run.
        name: The model's name.
        folder: Its folder in the outputs of the job.
    """
    run = store.run(run_id)
    origin = hashlib.sha256(f"{run_id}\0{folder}".encode("utf-8", "surrogateescape")).hexdigest()[:32]
    found = store.models(run.experiment_id, _ORIGIN, origin)
    if not found:
        tags = {key: value for key, value in run.tags.items() if key.startswith(_FROM_RUN)}
        names = [key for key in run.params if not key.startswith("nemo_airflow.")][:_PARAMS]
        store.create_model(run, name, {**tags, _ORIGIN: origin}, {key: run.params[key] for key in names})
        # Searched again: an earlier request without an answer may have created one too.
        found = store.models(run.experiment_id, _ORIGIN, origin)
    first, *others = sorted(found, key=lambda model: model.model_id)
    for other in others:
        store.delete_model(other.model_id)
    if first.model_id not in run.models:
        store.add_output(run_id, first.model_id)
    store.log(run_id, tags={f"{_FOLDER}{first.model_id}": folder})


def folders(run: Run) -> dict[str, str]:
    """Returns the ids of a run's models by their folders in the job's outputs."""
    return {folder: tag.removeprefix(_FOLDER) for tag, folder in run.tags.items() if tag.startswith(_FOLDER)}


def upload(store: Store, run: Run, files: Mapping[str, Path], watch: UploadWatch) -> None:
    """Uploads files as artifacts of the run, and those below the folder of a model as the model's."""
    own, of_models = dict(files), {}
    for folder, model_id in folders(run).items():
        inside = {path: own.pop(path) for path in files if path.startswith(f"{folder}/") and path in own}
        if inside:
            of_models[folder] = (model_id, inside)
    if own or not of_models:
        store.upload(run, own, watch)
    for folder, (model_id, inside) in of_models.items():
        _upload_model(store, run, store.model(model_id), folder, inside, watch)


def finish(store: Store, run_id: str) -> None:
    """Declares the models of a run ready, whose files are all kept."""
    for model_id in folders(store.run(run_id)).values():
        if store.model(model_id).status == PENDING:
            store.set_model_ready(model_id)


def _upload_model(
    store: Store, run: Run, model: LoggedModel, folder: str, files: Mapping[str, Path], watch: UploadWatch
) -> None:
    place = dataclasses.replace(run, artifact_uri=model.artifact_uri)
    inside = {path.removeprefix(f"{folder}/"): file for path, file in files.items()}
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        if MLMODEL in inside:
            described = Path(scratch, MLMODEL)
            described.write_text(_describe(inside[MLMODEL], run, model), encoding="utf-8")
            inside[MLMODEL] = described
        store.upload(place, inside, _Below(folder, watch))


def _describe(file: Path, run: Run, model: LoggedModel) -> str:
    """Returns the text of an ``MLmodel`` file with what the job could not know; as it is, where it cannot be read."""
    import json

    import yaml

    text = file.read_text(encoding="utf-8", errors="replace")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if not isinstance(content, dict):
        return text
    about = {"model_id": model.model_id, "model_uuid": model.model_id, "run_id": run.run_id}
    return json.dumps(
        {**content, **about, "artifact_path": model.artifact_uri}, ensure_ascii=False, indent=2, default=str
    )


class _Below(UploadWatch):
    """Tells of files by their paths in the run."""

    def __init__(self, folder: str, watch: UploadWatch) -> None:
        self._folder = folder
        self._watch = watch

    def sent(self, size: int) -> None:
        self._watch.sent(size)

    def stored(self, path: str) -> None:
        self._watch.stored(f"{self._folder}/{path}")
