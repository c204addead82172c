"""Reads artifacts that are in a bucket already, with the credentials of Airflow's side."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

from nemo_airflow.artifacts.keeping import put_here
from nemo_airflow.exceptions import ArtifactError
from nemo_airflow.language.artifact import FOLDER, Artifact
from nemo_airflow.store.address import open_bucket


def read_elsewhere(given: Artifact) -> Artifact:
    """Returns the artifact of an object, or of all objects below an address, which is in this machine's store then.

    Args:
        given: An artifact with an address such as ``s3://[conn_id@]bucket/path``.

    Raises:
        ArtifactError: There is no such object.
        StoreError: The bucket refuses, or cannot be reached.
    """
    bucket, _, path = given.address.partition("://")[2].partition("/")
    place = open_bucket(f"{given.address.partition('://')[0]}://{bucket}")
    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        target = Path(scratch, given.file)
        if given.kind == FOLDER:
            names = [entry.name for entry in place.entries(path.rstrip("/"))]
            for name in names:
                part = target / name.removeprefix(path)
                if not part.resolve().is_relative_to(target.resolve()):
                    raise ArtifactError(f"{given.address} has the object {name!r}, which leads out of the folder")
                part.parent.mkdir(parents=True, exist_ok=True)
                place.get(name, part)
            is_there = bool(names)
        else:
            is_there = place.get(path, target)
        if not is_there:
            raise ArtifactError(f"{given.address} is not there: nothing to give to the job")
        made = put_here(target)
    return dataclasses.replace(given, digest=made.digest, size=made.size)
