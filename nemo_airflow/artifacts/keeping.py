"""Keeps artifacts in this machine's store and the shared one, by their digests, and brings them from there.

A file is kept as it is, a folder as an archive, beside the packages of code.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nemo_airflow import settings
from nemo_airflow.artifact_references import find_references, replace_references
from nemo_airflow.exceptions import ArtifactError, MissingExtraError, NemoAirflowError, StoreError
from nemo_airflow.job import Archive
from nemo_airflow.language import artifact
from nemo_airflow.language.artifact import Artifact, place_in
from nemo_airflow.packaging.archive import GZIP, write_tar
from nemo_airflow.packaging.content import FILE, LINK, PROGRAM, File
from nemo_airflow.runner import artifacts, digests
from nemo_airflow.runner.inputs import artifacts_in
from nemo_airflow.store import PackageStore
from nemo_airflow.store.address import configured_store
from nemo_airflow.store.incoming import Manifest
from nemo_airflow.store.shared import SharedStore, record_name
from nemo_airflow.store.trees import get_tree, tree_digest

_AS_IS = "file"
"""Format of an artifact that is a single file."""

_MODES = {digests.FILE: FILE, digests.PROGRAM: PROGRAM, digests.LINK: LINK}

_log = logging.getLogger(__name__)


def keep_artifacts(result: Any, key: str, outputs: Path) -> Any:
    """Keeps the artifacts that a job returned. Blocks; done again, it changes nothing.

    Args:
        result: What the job returned, as plain JSON types.
        key: The job's key.
        outputs: Folder with the job's outputs.

    Returns:
        The same with artifacts that say where they are kept.

    Raises:
        ArtifactError: One is not among the outputs, or is not what the job said.
        StoreError: A store refuses, or cannot be reached.
    """
    kept: dict[Artifact, Artifact] = {}
    for made in find_references(result):
        if made.job == key and made.digest:  # not one that the job was given itself
            kept[made] = keep(made, outputs / made.output)
    return replace_references(result, kept)


def keep(made: Artifact, path: Path) -> Artifact:
    """Puts a file or folder into the stores; returns its artifact with their address. Blocks.

    Raises:
        ArtifactError: It does not exist, or has another digest.
        StoreError: A store refuses, or cannot be reached.
    """
    store = PackageStore(settings.packages_folder())
    format = format_of(made)
    if not store.has(made.digest, format):
        _check(made, path)
        _store(store, made, path)
    shared = configured_store()
    if shared is not None:
        shared.put_package(_archive(store, made), store.path(made.digest, format))
    address = shared.place.where if shared is not None else f"file://{socket.gethostname()}{store.folder}"
    return dataclasses.replace(made, address=address)


def keep_stored_artifacts(result: Any, key: str, store: SharedStore, manifest: Manifest) -> dict[str, str] | None:
    """Keeps the artifacts that a job returned where the shared store has its outputs already. Blocks.

    Args:
        result: What the job returned, as plain JSON types.
        key: The job's key.
        store: The store, which has accepted all pieces.
        manifest: All that the job has sent.

    Returns:
        Where each is kept, by its digest; None if one is not among the outputs as it should be, or has links: it has to
        be fetched then.
    """
    files = {file.path: file for file in manifest.files}
    addresses = {}
    for made in find_references(result):
        if made.job != key or not made.digest:
            continue
        if made.kind == artifact.FILE:
            file = files.get(made.output)
            if file is None or file.sha256 != made.digest:
                return None
            record = {"sha256": file.sha256, "size": file.size, "pieces": manifest.parts_of(file)}
            store.write_json(record_name(Archive(made.digest, _AS_IS, file.size, "")), record)
        else:
            below = manifest.below(made.output)
            if tree_digest(below) != made.digest:
                return None
            store.write_json(f"trees/{made.digest}", manifest.record_of(below))
        addresses[made.digest] = store.place.where
    return addresses


def archives_for(
    plan: Mapping[str, Any], fetched: Mapping[str, Archive] = MappingProxyType({}), *, also: Sequence[Artifact] = ()
) -> tuple[Archive, ...]:
    """Returns the archives of the artifacts of a plan, which are on this machine then. Blocks.

    Args:
        plan: The plan.
        fetched: The archives that the job fetches by itself, by digest: these need not be here.
        also: Further artifacts that the job is given.

    Raises:
        ArtifactError: An artifact is nowhere any more, or is not what it was.
        StoreUnavailable: The shared store cannot be reached.
    """
    archives = {given.digest: fetched.get(given.digest) or bring_here(given) for given in (*artifacts_in(plan), *also)}
    return tuple(archives.values())


def fetch_artifact(given: Artifact, into: Path | None = None) -> Path:
    """Returns the path of an artifact on this machine. Blocks.

    Args:
        given: The artifact.
        into: Folder for it, which is made if needed; one in ``<home>/artifacts`` when None.

    Raises:
        ArtifactError: It is nowhere any more, is damaged, or something else is at its place.
        StoreUnavailable: The shared store cannot be reached.
    """
    given = settle(given)
    root = into if into is not None else Path(place_in(str(fetched_folder()), given)).parent
    target = root / given.file
    if os.path.lexists(target):
        if _is(target, given):
            os.utime(root)  # wanted now
            return target
        if into is not None:
            raise ArtifactError(f"{target} is there already and is not {given}: give another folder, or remove it")
        shutil.rmtree(root, ignore_errors=True)  # what a collection of old files, or somebody, has left of it
    archive = bring_here(given)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".new-") as scratch:
        new = Path(scratch, given.file)
        source = PackageStore(settings.packages_folder()).path(archive.digest, archive.format)
        if given.kind == artifact.FOLDER:
            from nemo_airflow.runner.unpack import unpack

            new.mkdir()
            unpack(str(source), str(new))
        else:
            shutil.copyfile(source, new)
        _check(given, new)
        new.rename(target)
    return target


def fetched_folder() -> Path:
    """Returns the folder of the artifacts that tasks on this machine have asked for, each below its digest."""
    return settings.home() / "artifacts"


def find_fetched(before: float) -> Iterator[Path]:
    """Yields the files of those that nobody asked for since then, in seconds since the epoch."""
    for folder in fetched_folder().glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process deletes it
            if folder.stat().st_mtime < before:
                yield from [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]


def settle(given: Artifact) -> Artifact:
    """Returns an artifact with a digest: what is elsewhere is read, and kept here. Blocks."""
    if given.digest:
        return given
    from nemo_airflow.artifacts.elsewhere import read_elsewhere

    return read_elsewhere(given)


def bring_here(given: Artifact) -> Archive:
    """Returns the archive of an artifact, which is in this machine's store then. Blocks.

    Raises:
        ArtifactError: It is nowhere any more, or is not what it was.
        StoreUnavailable: The shared store cannot be reached.
    """
    store, format = PackageStore(settings.packages_folder()), format_of(given)
    if store.has(given.digest, format):
        return _archive(store, given)
    looked = [f"in {store.folder} on {socket.gethostname()}"]
    shared = configured_store()
    if shared is not None:
        looked.append(f"in the store {shared.place.where}")
        if shared.has_package(Archive(given.digest, format, 0, "")):
            shared.get_package(Archive(given.digest, format, 0, ""), store)
            return _archive(store, given)
        if given.kind == artifact.FOLDER and shared.read_json(f"trees/{given.digest}") is not None:
            with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
                tree = Path(scratch, given.file)
                get_tree(shared, given.digest, tree)
                _check(given, tree)
                _store(store, given, tree)
            return _archive(store, given)
    if given.run_id and given.output:
        looked.append(f"among the artifacts of run {given.run_id}")
        with _from_run(given) as path:
            if path is not None:
                _check(given, path)
                _store(store, given, path)
                return _archive(store, given)
    raise ArtifactError(
        f"{given} is not there any more: neither {' nor '.join(looked)}; it was kept at {given.address or 'no store'}: "
        "run the task that made it again, or let the machines share a store with $NEMO_AIRFLOW_STORE"
    )


def put_here(path: Path) -> Artifact:
    """Puts a file or folder of this machine into its store; returns its artifact, without a place. Blocks."""
    try:
        made = artifacts.read_artifact(str(path))
    except ValueError as error:
        raise ArtifactError(str(error)) from error
    store = PackageStore(settings.packages_folder())
    if not store.has(made.digest, format_of(made)):
        _store(store, made, path)
    return dataclasses.replace(made, local="")


@contextlib.contextmanager
def _from_run(given: Artifact) -> Iterator[Path | None]:
    """Yields a copy of what MLflow keeps of an artifact, or None where it has none."""
    from nemo_airflow.artifacts.earlier import download

    with tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch:
        try:
            path = download(given.run_id, given.output, Path(scratch))
        except MissingExtraError:
            path = None
        except NemoAirflowError as error:
            _log.warning("%s", error)
            path = None
        yield path


def _store(store: PackageStore, made: Artifact, path: Path) -> None:
    if made.kind == artifact.FILE:
        store.take(path.resolve(), made.digest, _AS_IS)
        return
    entries = digests.list_files(str(path))
    source = _Folder(path)
    files = [File(entry.path, _MODES[entry.mode], "", entry.size, source, entry.path) for entry in entries]
    with store.write(made.digest, GZIP) as file:
        write_tar(files, file)


def _check(made: Artifact, path: Path) -> None:
    if not path.exists():
        raise _missing(made, path)
    try:
        digest = _digest(path)
    except digests.UnfitError as error:
        raise ArtifactError(f"{made} cannot be kept: {error}") from error
    if digest != made.digest:
        raise ArtifactError(
            f"{made} is not what arrived here, which has the digest {digest[:12]}: was it written to after "
            "artifact(...), or does a pattern of outputs= add files to it?"
        )


def _is(path: Path, given: Artifact) -> bool:
    is_file = given.kind == artifact.FILE
    if is_file and digests.is_checked(str(path), given.digest):
        return True
    try:
        found = _digest(path)
    except (digests.UnfitError, OSError):
        return False
    if is_file and found == given.digest:
        digests.note_checked(str(path), found)
    return found == given.digest


def _missing(made: Artifact, path: Path) -> ArtifactError:
    return ArtifactError(
        f"{made} is not among the outputs that arrived here, as {path.name}: it was deleted after artifact(...), or "
        "could not be collected"
    )


def _digest(path: Path) -> str:
    return digests.digest_of(str(path))


def format_of(made: Artifact) -> str:
    """Returns the format in which an artifact is kept and travels."""
    return _AS_IS if made.kind == artifact.FILE else GZIP


def _archive(store: PackageStore, made: Artifact) -> Archive:
    return archive_named(made, store.path(made.digest, format_of(made)).stat().st_size)


def archive_named(made: Artifact, size: int) -> Archive:
    """Returns the archive of an artifact, which has so many bytes."""
    format = format_of(made)
    origin = f"{made.job}/outputs/{made.output}" if format == _AS_IS and _is_below(made.job, made.output) else ""
    return Archive(made.digest, format, size, f"input.{made.digest}.{format}", origin)


def _is_below(job: str, output: str) -> bool:
    """Returns whether a job's key and the path of its output, which came with a value, lead to below its outputs."""
    return bool(re.fullmatch("[a-z0-9-]+", job) and output) and ".." not in output.split("/") and output[0] != "/"


class _Folder:
    """The bytes of a folder's files, for an archive."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextlib.contextmanager
    def reading(self, files: Sequence[File]) -> Iterator[Iterator[Iterable[bytes]]]:
        """See :meth:`nemo_airflow.packaging.content.Source.reading`."""
        yield (self._blocks(file) for file in files)

    def _blocks(self, file: File) -> Iterator[bytes]:
        path = self._root / file.at
        if file.mode == LINK:
            yield os.fsencode(os.readlink(path))
            return
        try:
            with path.open("rb", buffering=0) as content:
                while block := content.read(1 << 20):
                    yield block
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
