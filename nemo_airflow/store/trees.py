"""Stores the files of a folder by digest: each content once, small files packed together.

A tree's digest is the SHA-256 of its manifest: path, mode, size and SHA-256 of each file, as canonical JSON. Its
record has the manifest and the blob of each small file: files below 256 KiB are concatenated
into packs. A pack ends after a file whose digest matches a rule, so that a changed file changes only its own pack. A
large file that a job has sent by itself may consist of several blobs, its pieces.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from nemo_airflow.exceptions import StoreError
from nemo_airflow.store.shared import SharedStore, sha256_of

_SMALL = 256 << 10
_PACK = 8 << 20
_CUT = 1 << 250  # of 2 ** 256: one file in 64 ends a pack
_TRANSFERS = 8


class TreeFile(NamedTuple):
    """A file of a tree: path with slashes, mode (0o644 or 0o755), bytes, and SHA-256 of its content."""

    path: str
    mode: int
    size: int
    sha256: str


def put_tree(store: SharedStore, folder: Path) -> str:
    """Stores the plain files under a folder, and returns their digest for :func:`get_tree`.

    Files that the store already has are not sent. Empty folders are not stored.

    Raises:
        StoreError: There is a link or a special file under it; or the store refuses.
    """
    files = list(_survey(folder))
    digest = tree_digest(files)
    name = f"trees/{digest}"
    if store.keeps_record(name) and (record := store.read_json(name)) is not None:
        blobs = blobs_of(record)
        with concurrent.futures.ThreadPoolExecutor(_TRANSFERS) as threads:
            if all(threads.map(store.keeps_blob, blobs, blobs.values())):
                return digest
    packs = list(_packs(files))
    large = {file.sha256: folder / file.path for file in files if file.size >= _SMALL}
    with (
        tempfile.TemporaryDirectory(prefix="nemo-airflow-") as scratch,
        concurrent.futures.ThreadPoolExecutor(_TRANSFERS) as threads,
    ):
        sending = [threads.submit(store.put_blob, path, sha256) for sha256, path in large.items()]
        packing = [threads.submit(_put_pack, store, folder, pack, Path(scratch)) for pack in packs]
        for done in sending:
            done.result()
        placed = [done.result() for done in packing]
    store.write_json(name, {"files": [list(file) for file in files], "packs": placed})
    return digest


def get_tree(store: SharedStore, digest: str, into: Path) -> list[Path]:
    """Writes the files of a tree into a folder.

    Args:
        store: The store.
        digest: The tree's digest.
        into: The folder; created if needed. Files of the same names are replaced.

    Returns:
        The paths of the files, relative to ``into``, sorted.

    Raises:
        StoreError: The tree does not exist, is damaged, or points outside the folder.
    """
    record = store.read_json(f"trees/{digest}")
    if record is None:
        raise StoreError(f"outputs {digest[:12]} are not in the store {store.place.where}: run the job again")
    files = _read_manifest(record, digest, store)
    into.mkdir(parents=True, exist_ok=True)
    for file in files:
        _check_path(file.path, into)
    at = {sha: pack["sha256"] for pack in record["packs"] for sha, _ in pack["files"]}
    loose: dict[str, list[TreeFile]] = {}
    packed: dict[str, list[TreeFile]] = {}
    joined: dict[str, list[TreeFile]] = {}
    pieces = record.get("pieces") or {}
    for file in files:
        if file.sha256 in pieces:
            joined.setdefault(file.sha256, []).append(file)
        elif file.sha256 in at:
            packed.setdefault(at[file.sha256], []).append(file)
        else:
            loose.setdefault(file.sha256, []).append(file)
    offsets = {pack["sha256"]: dict(pack["files"]) for pack in record["packs"]}
    with concurrent.futures.ThreadPoolExecutor(_TRANSFERS) as threads:
        tasks = [threads.submit(_write, store, sha, dict.fromkeys(group, 0), into) for sha, group in loose.items()]
        for sha, group in packed.items():
            tasks.append(threads.submit(_write, store, sha, {f: offsets[sha][f.sha256] for f in group}, into))
        tasks += [threads.submit(_join, store, pieces[sha], group, into) for sha, group in joined.items()]
        for task in tasks:
            task.result()
    return sorted(Path(file.path) for file in files)


def blobs_of(record: dict[str, Any]) -> dict[str, int | None]:
    """Returns the blobs that a tree's record names, by SHA-256, with their sizes where the record has them."""
    packed = {sha for pack in record["packs"] for sha, _ in pack["files"]}
    blobs: dict[str, int | None] = {pack["sha256"]: pack["size"] for pack in record["packs"]}
    for sha, pieces in (record.get("pieces") or {}).items():
        packed.add(sha)
        blobs.update(dict(pieces))
    return blobs | {sha: size for _, _, size, sha in record["files"] if sha not in packed}


def _survey(folder: Path) -> Iterator[TreeFile]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in folders + names:
            path = Path(parent, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StoreError(f"{path} is a link or a special file: only plain files can be stored; copy its target")
        for name in sorted(names):
            path = Path(parent, name)
            status = path.stat()
            mode = 0o755 if status.st_mode & 0o100 else 0o644
            yield TreeFile(path.relative_to(folder).as_posix(), mode, status.st_size, sha256_of(path))


def tree_digest(files: Iterable[TreeFile]) -> str:
    """Returns the digest of a tree with these files."""
    text = json.dumps(sorted(list(file) for file in files), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _packs(files: list[TreeFile]) -> Iterator[list[TreeFile]]:
    small = {file.sha256: file for file in files if file.size < _SMALL}  # each content once
    pack: list[TreeFile] = []
    for file in small.values():
        pack.append(file)
        if int(file.sha256, 16) < _CUT or sum(each.size for each in pack) >= _PACK:
            yield pack
            pack = []
    if pack:
        yield pack


def _put_pack(store: SharedStore, folder: Path, pack: list[TreeFile], scratch: Path) -> dict[str, Any]:
    offsets, digest, offset = [], hashlib.sha256(), 0
    target = scratch / pack[0].sha256
    with target.open("wb") as out:
        for file in pack:
            data = (folder / file.path).read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise StoreError(f"{folder / file.path} changed while it was stored: put the folder again")
            out.write(data)
            digest.update(data)
            offsets.append([file.sha256, offset])
            offset += len(data)
    store.put_blob(target, digest.hexdigest())
    target.unlink()
    return {"sha256": digest.hexdigest(), "size": offset, "files": offsets}


def _read_manifest(record: dict[str, Any], digest: str, store: SharedStore) -> list[TreeFile]:
    try:
        files = [TreeFile(str(path), int(mode), int(size), str(sha)) for path, mode, size, sha in record["files"]]
        whole = tree_digest(files) == digest and isinstance(record["packs"], list)
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        store.delete([f"trees/{digest}"])
        raise StoreError(
            f"the list of outputs {digest[:12]} in the store {store.place.where} is damaged and was deleted: "
            "put the folder again"
        )
    return files


def _check_path(path: str, into: Path) -> None:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise StoreError(f"{path!r} leads out of the folder {into}: nothing was written")


def _write(store: SharedStore, sha256: str, files: dict[TreeFile, int], into: Path) -> None:
    with store.fetch_blob(sha256, into) as blob, blob.open("rb") as source:
        for file, offset in files.items():
            target = _place(file, into)
            source.seek(offset)
            _copy(source, target, file, sha256)
            target.chmod(file.mode)


def _join(store: SharedStore, pieces: list[list[Any]], files: list[TreeFile], into: Path) -> None:
    parts = [(sha256, 0, size) for sha256, size in pieces]
    for file in files:
        target = _place(file, into)
        try:
            with target.open("xb") as out:
                store.write_content(out, file.sha256, parts, into)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        target.chmod(file.mode)


def _place(file: TreeFile, into: Path) -> Path:
    """Returns the path of a file to write, at which there is nothing then."""
    target = into / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.parent.resolve().is_relative_to(into.resolve()):
        raise StoreError(f"{file.path!r} passes through a link out of the folder {into}: it was not written")
    target.unlink(missing_ok=True)
    return target


def _copy(source: Any, target: Path, file: TreeFile, blob: str) -> None:
    digest, left = hashlib.sha256(), file.size
    with target.open("xb") as out:
        while left and (block := source.read(min(left, 1 << 20))):
            out.write(block)
            digest.update(block)
            left -= len(block)
    if digest.hexdigest() != file.sha256:
        target.unlink()
        raise StoreError(f"{file.path!r} does not match its record in blob {blob[:12]}: put the folder again")
