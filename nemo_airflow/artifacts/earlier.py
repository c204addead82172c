"""Finds artifacts of earlier runs and registered models in MLflow."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_airflow.artifacts.keeping import put_here
from nemo_airflow.exceptions import ArtifactError, MissingExtraError
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.tracking.base import ARTIFACT
from nemo_airflow.tracking.mlflow import address
from nemo_airflow.tracking.mlflow.fields import clean_name, clean_path
from nemo_airflow.tracking.mlflow.store import open_store

_MODEL = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/([0-9]+))")


def artifact_of_run(run_id: str, name: str, *, tracking_uri: str = "", conn_id: str = "") -> Artifact:
    """See :meth:`nemo_airflow.Artifact.from_run`."""
    store = open_store(*address.resolve(tracking_uri or None, conn_id or None))
    tags = store.run(run_id).tags
    if tag := tags.get(clean_name(f"{ARTIFACT}{name}")):
        with contextlib.suppress(ValueError):
            return Artifact.from_json(json.loads(tag))
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        path = download(run_id, name, Path(scratch), tracking_uri=tracking_uri, conn_id=conn_id)
        if path is None:
            known = sorted(tag.removeprefix(ARTIFACT) for tag in tags if tag.startswith(ARTIFACT))
            raise ArtifactError(
                f"run {run_id} has no artifact {name!r}, and no such file: "
                + (f"its artifacts are {', '.join(known)}" if known else "its job returned no artifact")
            )
        return dataclasses.replace(put_here(path), name=name, output=name, run_id=run_id)


def artifact_of_model(uri: str, *, tracking_uri: str = "", conn_id: str = "") -> Artifact:
    """See :meth:`nemo_airflow.Artifact.from_model`."""
    client, model = _find_model(uri, tracking_uri, conn_id)
    name = model.name
    with explained(f"find {uri}"):
        source = client.get_model_version_download_uri(name, model.version)
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch, explained(f"download {uri} from {source}"):
        from mlflow.artifacts import download_artifacts

        path = download_artifacts(artifact_uri=source, dst_path=scratch, tracking_uri=client.tracking_uri)
        return dataclasses.replace(put_here(Path(path)), name=f"{name}/{model.version}", run_id=model.run_id or "")


def run_of_model(uri: str, *, tracking_uri: str = "", conn_id: str = "") -> str:
    """Returns the id of the run that made ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``. Blocks.

    Raises:
        ArtifactError: There is no such model, or MLflow has no run for it.
        MissingExtraError: MLflow is not installed.
    """
    _, model = _find_model(uri, tracking_uri, conn_id)
    if not model.run_id:
        raise ArtifactError(f"{uri} was registered without a run: what it was made from is not recorded")
    return str(model.run_id)


def _find_model(uri: str, tracking_uri: str, conn_id: str) -> tuple[Any, Any]:
    """Returns MLflow's client, and the version of the model."""
    found = _MODEL.fullmatch(uri)
    if found is None:
        raise ArtifactError(f"{uri!r} does not name a model: give models:/NAME@ALIAS or models:/NAME/VERSION")
    name, alias, version = found.groups()
    with explained(f"find {uri}"):
        client = _client(tracking_uri, conn_id)
        return client, (
            client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        )


def download(run_id: str, path: str, into: Path, *, tracking_uri: str = "", conn_id: str = "") -> Path | None:
    """Returns a copy of a run's file or folder in MLflow, in a folder; None where it has none. Blocks.

    Raises:
        ArtifactError: MLflow cannot be reached, or refuses.
        MissingExtraError: MLflow is not installed.
    """
    with explained(f"read {path} of run {run_id}"):
        client = _client(tracking_uri, conn_id)
        path = clean_path(path)
        names = {file.path for file in client.list_artifacts(run_id, path.rpartition("/")[0] or None)}
        return Path(client.download_artifacts(run_id, path, str(into))) if path in names else None


def _client(tracking_uri: str, conn_id: str) -> Any:
    from nemo_airflow.hooks.mlflow import MLflowHook

    return MLflowHook(conn_id or None, tracking_uri or None).get_conn()


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turns whatever MLflow's client raises into an error that says what it was to do."""
    try:
        yield
    except (ArtifactError, MissingExtraError):
        raise
    except Exception as error:
        raise ArtifactError(f"MLflow cannot {doing}: {' '.join(str(error).split())[:500]}") from error
