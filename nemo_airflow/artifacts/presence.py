"""Says where the artifacts of an earlier result are now, without fetching what is in a store."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from nemo_airflow import settings
from nemo_airflow.artifact_references import find_references, replace_references
from nemo_airflow.artifacts.keeping import bring_here, format_of
from nemo_airflow.exceptions import ArtifactError
from nemo_airflow.job import Archive
from nemo_airflow.language import artifact
from nemo_airflow.language.artifact import Artifact
from nemo_airflow.runner import digests
from nemo_airflow.store import PackageStore
from nemo_airflow.store.address import configured_store

_READ = 64 << 20
"""Bytes of a file up to which it is read to compare its digest. Of others only the size is: whoever is given one
compares its digest."""


def locate_artifacts(result: Any) -> Any:
    """Returns what a job returned with artifacts that say where they are now. Blocks.

    What only the run in MLflow still has is fetched into this machine's store, and compared by its digest.

    Args:
        result: What the job returned, as plain JSON types.

    Raises:
        ArtifactError: One is nowhere any more, or is not what it was.
        StoreUnavailable: The shared store cannot be reached.
    """
    found = {each: dataclasses.replace(each, address=_locate(each)) for each in find_references(result) if each.digest}
    return replace_references(result, found)


def _locate(made: Artifact) -> str:
    """Returns the address of the store that has an artifact."""
    store, format = PackageStore(settings.packages_folder()), format_of(made)
    shared = configured_store()
    if shared is not None and (
        shared.has_package(Archive(made.digest, format, 0, ""))
        or (made.kind == artifact.FOLDER and shared.read_json(f"trees/{made.digest}") is not None)
    ):
        return str(shared.place.where)
    if store.has(made.digest, format):
        _compare(made, store)
    else:
        bring_here(made)
    return f"file://{socket.gethostname()}{store.folder}"


def _compare(made: Artifact, store: PackageStore) -> None:
    if made.kind != artifact.FILE:
        return
    path = str(store.path(made.digest, format_of(made)))
    size = store.path(made.digest, format_of(made)).stat().st_size
    is_same = size == made.size and (
        size > _READ or digests.is_checked(path, made.digest) or digests.digest_of(path) == made.digest
    )
    if not is_same:
        raise ArtifactError(f"{made} is not what it was: {path} was written to; delete that file")
