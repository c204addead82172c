"""Keeps outputs that are in the shared store already in a run.

Where the run's artifacts are in a bucket of the same service, that copies on its own side. Else the outputs pass this
machine on their way there.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from nemo_airflow.exceptions import StoreError, TrackingError
from nemo_airflow.progress import Progress
from nemo_airflow.store.incoming import Incoming, Manifest
from nemo_airflow.store.s3 import S3Place
from nemo_airflow.store.shared import SharedStore, blob_name
from nemo_airflow.store.trees import TreeFile
from nemo_airflow.tracking import reserved
from nemo_airflow.tracking.base import OUTPUTS_DIGEST
from nemo_airflow.tracking.links import Links
from nemo_airflow.tracking.passage import Passage
from nemo_airflow.tracking.run import TrackedRun

_COPIES = 16
_FETCHES = 4


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


def pass_on(store: SharedStore, manifest: Manifest, passage: Passage) -> None:
    """Hands all outputs of a job on while they come from the store. Blocks.

    Args:
        store: The store, which has accepted all pieces.
        manifest: All that the job has sent.
        passage: What takes them.

    Raises:
        StoreError: A piece is missing or damaged.
    """
    room = passage.into
    room.mkdir(parents=True, exist_ok=True)
    for path, target in manifest.links.items():
        passage.take_link(path, target)
    places = {sha256: (str(pack["sha256"]), offset) for pack in manifest.packs for sha256, offset in pack["files"]}
    packed: dict[str, list[TreeFile]] = {}

    def take_file(file: TreeFile) -> None:
        pieces = manifest.pieces.get(file.sha256)
        parts = None if pieces is None else [(blob, 0, size) for blob, size in pieces]
        with _passing(file, passage, room) as out:
            store.write_content(out, file.sha256, parts, room)

    def take_pack(pack: str, files: list[TreeFile]) -> None:
        with store.fetch_blob(pack, room) as blob, blob.open("rb") as source:
            for file in files:
                source.seek(places[file.sha256][1])
                content = source.read(file.size)
                if hashlib.sha256(content).hexdigest() != file.sha256:
                    raise StoreError(f"{file.path!r} is not in the blob {pack[:12]} that the job has named")
                with _passing(file, passage, room) as out:
                    out.write(content)

    with concurrent.futures.ThreadPoolExecutor(_FETCHES) as threads:
        tasks = []
        for file in manifest.files:
            if file.sha256 in places and file.sha256 not in manifest.pieces:
                packed.setdefault(places[file.sha256][0], []).append(file)
            else:
                tasks.append(threads.submit(take_file, file))
        tasks += [threads.submit(take_pack, pack, files) for pack, files in packed.items()]
        for task in tasks:
            task.result()


@contextlib.contextmanager
def _passing(file: TreeFile, passage: Passage, room: Path) -> Iterator[BinaryIO]:
    """Opens a file of this machine to be written; hands it on then."""
    passage.make_room(file.size)
    path = room / uuid.uuid4().hex
    try:
        with path.open("xb") as out:
            yield out
        path.chmod(file.mode)
    except BaseException:
        path.unlink(missing_ok=True)
        passage.give_back(file.size)
        raise
    passage.note_bytes(file.size)
    passage.take_file(file.path, path, passing=True)


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
