"""Fetches an artifact of an earlier run, of a registered model or of a bucket into a folder of this machine."""

from __future__ import annotations

import re
from pathlib import Path

from nemo_airflow.artifacts.keeping import fetch_artifact, settle
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.language.artifact import Artifact, is_elsewhere
from nemo_airflow.runner.artifacts import artifact

_RUN = re.compile(r"(?:run:)?([0-9a-f]{32})/(.+)")


def run(reference: str, into: str, tracking_uri: str, conn_id: str) -> int:
    """Fetches the artifact and prints what it is and where."""
    found = settle(find(reference, tracking_uri, conn_id))
    path = fetch_artifact(found, Path(into or "."))
    print(found)
    print(path)
    return 0


def find(reference: str, tracking_uri: str, conn_id: str) -> Artifact:
    """Returns the artifact that a text names.

    Raises:
        SettingsError: The text names none.
        ArtifactError: There is no such artifact.
    """
    if reference.startswith("models:/"):
        return Artifact.from_model(reference, tracking_uri=tracking_uri, conn_id=conn_id)
    if is_elsewhere(reference):
        return artifact(reference)
    named = _RUN.fullmatch(reference)
    if named is None:
        raise SettingsError(
            f"{reference!r} names no artifact: give RUN_ID/NAME, models:/NAME@ALIAS, models:/NAME/VERSION or s3://..."
        )
    return Artifact.from_run(named[1], named[2], tracking_uri=tracking_uri, conn_id=conn_id)
