"""Keeps what jobs have sent of their checkpoints in the shared store, for the next attempt on any back-end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nemo_airflow.exceptions import StoreError, StoreUnavailable
from nemo_airflow.language.artifact import FOLDER, Artifact
from nemo_airflow.runner import checkpoints
from nemo_airflow.store import trees
from nemo_airflow.store.address import configured_store
from nemo_airflow.store.incoming import Incoming, Manifest
from nemo_airflow.store.shared import SharedStore
from nemo_airflow.store.trees import TreeFile

_DAYS = 30.0
"""Days for which the checkpoints of a job that is not done are kept."""


def keep_checkpoints(key: str, warn: Callable[[str], None]) -> dict[str, Any] | None:
    """Returns the checkpoints that a job has sent, as :attr:`Job.checkpoint`; None where there are none. Blocks.

    What is there is kept at its place in the store, by its content, so that what the job has sent may go.

    Args:
        key: The job's key.
        warn: Called with what is there of a checkpoint that is not whole.

    Raises:
        StoreUnavailable: The shared store cannot be reached.
    """
    store = configured_store()
    if store is None:
        return None
    incoming, reference = Incoming(store, key), f"checkpoints-{key}"
    try:
        manifest = incoming.read_checkpoints()
    except StoreUnavailable:
        raise
    except StoreError as error:
        warn(f"the checkpoints that job {key} has sent are of no use: {error}")
        manifest = None
    if manifest is not None and (files := _accept(incoming, manifest, warn)):
        digest = incoming.put_tree(manifest, files)
        store.hold(reference, [f"trees/{digest}"], days=_DAYS)
    else:
        held = store.read_json(f"refs/{reference}")
        if held is None:
            return None
        digest = held["objects"][0].partition("/")[2]
    return _describe(store, key, digest)


def _accept(incoming: Incoming, manifest: Manifest, warn: Callable[[str], None]) -> list[TreeFile]:
    """Returns the files of the checkpoints that are whole, which the store has accepted."""
    names = {file.path.partition("/")[0] for file in manifest.files}
    found: list[TreeFile] = []
    for name in sorted(filter(checkpoints.number_in, names)):
        files = [file for file in manifest.files if file.path.startswith(f"{name}/")]
        if not checkpoints.has_digest(name, trees.tree_digest(manifest.below(name))):
            continue  # it was deleted while it was sent
        try:
            incoming.accept(manifest.only(files), lambda size: None)
        except StoreUnavailable:
            raise
        except StoreError as error:
            warn(f"checkpoint {name} is not whole in the store, so the one before it is used: {error}")
            continue
        found += files
    return found


def _describe(store: SharedStore, key: str, digest: str) -> dict[str, Any] | None:
    record = store.read_json(f"trees/{digest}")
    if record is None:
        return None
    names: Sequence[str] = sorted(
        {str(path).partition("/")[0] for path, *_ in record["files"]}, key=checkpoints.number_in
    )
    size = sum(int(size) for _, _, size, _ in record["files"])
    made = Artifact(digest, size, FOLDER, checkpoints.FOLDER, names[-1], store.place.where, job=key)
    return {"artifact": made.to_json(), "blobs": sorted(trees.blobs_of(record))}
