"""Keeps outputs that are in the shared store already in a run whose artifacts are in a bucket of the same service.

The service copies on its own side. Where it cannot, nothing is lost: the caller fetches the outputs, and keeps them as
those of any job.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Mapping
from typing import Any

from nemo_airflow.exceptions import StoreError, TrackingError
from nemo_airflow.progress import Progress
from nemo_airflow.store.incoming import Incoming, Manifest
from nemo_airflow.store.s3 import S3Place
from nemo_airflow.store.shared import SharedStore, blob_name
from nemo_airflow.store.trees import TreeFile
from nemo_airflow.tracking import reserved
from nemo_airflow.tracking.base import OUTPUTS_DIGEST
from nemo_airflow.tracking.links import Links
from nemo_airflow.tracking.run import TrackedRun

_COPIES = 16


def keep_stored(
    run: TrackedRun,
    store: SharedStore,
    manifest: Manifest,
    *,
    inform: Callable[[str], None],
    warn: Callable[[str], None],
) -> bool:
    """Has the store copy the outputs of a job to where its run keeps artifacts. Blocks.

    Args:
        run: The job's run.
        store: The store, which has accepted all pieces.
        manifest: All that the job has sent.
        inform: Called with how far it has come.
        warn: Called with what is not as it was asked for, in one line.

    Returns:
        Whether all is kept; False where the run's artifacts are elsewhere, or something was refused.
    """
    if run.collector:  # code that looks at the files
        return False
    place = store.place
    try:
        ref = run.ref or run.open().ref
        root = run.tracker.artifact_root(ref) if ref is not None else ""
        if ref is None or not isinstance(place, S3Place) or not _is_same_service(place, root):
            return False
        files = kept_files(manifest, warn)
        run.tracker.tag(ref, {OUTPUTS_DIGEST: Incoming(store, run.job.key).put_tree(manifest, files)})
        progress = Progress("outputs kept", inform, sum(file.size for file in files))
        _copy_all(place, manifest, {run.tracker.artifact_path(file.path): file for file in files}, root, progress)
    except (TrackingError, StoreError) as error:
        inform(f"the store cannot copy the outputs to the run by itself, so they are fetched: {error}")
        return False
    return True


def kept_files(manifest: Manifest, warn: Callable[[str], None]) -> list[TreeFile]:
    """Returns the files that a run keeps: a link to one is kept as that file; the record's place stays free."""
    links = Links()
    for path, target in manifest.links.items():
        links.add(path, target, hard=False)
    files = [file._replace(path=path) for file in manifest.files for path in (file.path, *links.names_of(file.path))]
    tops = {file.path.partition("/")[0] for file in files}
    if reserved.RECORD in tops:
        name = reserved.free_name(tops)
        warn(f"the job's output {reserved.RECORD!r} has the name of the run's record, so it is kept as {name!r}")
        files = [_moved(file, name) for file in files]
    return sorted(files)


def _moved(file: TreeFile, name: str) -> TreeFile:
    top, slash, rest = file.path.partition("/")
    return file._replace(path=f"{name}{slash}{rest}") if top == reserved.RECORD else file


def _is_same_service(place: S3Place, root: str) -> bool:
    """Returns whether an address of artifacts is in a bucket of the service that has the store."""
    endpoint = os.environ.get("MLFLOW_S3_ENDPOINT_URL") or ""
    return root.startswith("s3://") and endpoint.rstrip("/") == place.endpoint.rstrip("/")


def _copy_all(place: S3Place, manifest: Manifest, files: Mapping[str, TreeFile], root: str, progress: Progress) -> None:
    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    by_content: dict[str, list[str]] = {}
    for path, file in files.items():
        by_content.setdefault(file.sha256, []).append(f"{prefix.rstrip('/')}/{path}")
    packed = {sha256 for pack in manifest.packs for sha256, _ in pack["files"]}

    def copy(file: TreeFile, key: str) -> None:
        if file.sha256 in manifest.pieces:
            place.join_out([blob_name(piece) for piece, _ in manifest.pieces[file.sha256]], bucket, key)
        else:
            place.copy_out(blob_name(file.sha256), bucket, key)
        progress.add(file.size)

    def unpack(pack: Mapping[str, Any]) -> None:
        content = place.read(blob_name(pack["sha256"]))
        if content is None:
            raise StoreError(f"{blob_name(pack['sha256'])} is not in the store {place.where} any more")
        for sha256, offset in pack["files"]:
            for key in by_content.get(sha256, ()):
                place.write_out(bucket, key, content[offset : offset + sizes[sha256]])
                progress.add(sizes[sha256])

    sizes = {file.sha256: file.size for file in files.values()}
    with concurrent.futures.ThreadPoolExecutor(_COPIES) as threads:
        tasks = [threads.submit(unpack, pack) for pack in manifest.packs]
        for file in {file.sha256: file for file in files.values() if file.sha256 not in packed}.values():
            tasks += [threads.submit(copy, file, key) for key in by_content[file.sha256]]
        for task in tasks:
            task.result()
