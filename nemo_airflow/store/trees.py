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
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from nemo_airflow.exceptions import StoreError
from nemo_airflow.store.shared import SharedStore, sha256_of

_SMALL = 256 << 10
_PACK = 8 << 20
_CUT = 1 << 250  # of 2 ** 256: one file in 64 ends a pack
_TRANSFERS = 8
_SENDERS = 4
"""Files and packs that are sent at one time. So many packs may wait on disk, too: their files are gone by then."""


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
    with TreeWriter(store) as tree:
        for path in _list_files(folder):
            tree.add(path, path.relative_to(folder).as_posix())
        return tree.finish()


class TreeWriter:
    """Stores files one by one as they come, from one thread; small ones are packed in that order.

    Args:
        store: The store.
        attempt: Makes a call of the store; again, where it may succeed later.
    """

    def __init__(self, store: SharedStore, attempt: Callable[[Callable[[], Any]], Any] = lambda call: call()) -> None:
        self._store = store
        self._attempt = attempt
        self._files: list[TreeFile] = []
        self._packed: set[str] = set()
        self._pack = bytearray()
        self._offsets: list[tuple[str, int]] = []
        self._packs: list[Future[dict[str, Any]]] = []
        self._sent: list[Future[str]] = []
        self._threads = concurrent.futures.ThreadPoolExecutor(_SENDERS, "nemo-tree")
        self._scratch = tempfile.TemporaryDirectory(prefix="nemo-airflow-")

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of threads and room; what has not been sent is not."""
        self._threads.shutdown(cancel_futures=True)
        self._scratch.cleanup()

    def add(self, path: Path, *names: str) -> Future[str]:
        """Stores a file under one or several paths; returns its SHA-256, which is known when the file may go.

        Raises:
            StoreError: The store has refused an earlier file.
        """
        for pack in self._packs:
            if pack.done():
                pack.result()
        size = path.stat().st_size
        if size >= _SMALL:
            sent = self._threads.submit(self._send, path, names)
            self._sent.append(sent)
            return sent
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        self._note(path, names, len(data), sha256)
        if sha256 not in self._packed:
            self._packed.add(sha256)
            self._offsets.append((sha256, len(self._pack)))
            self._pack += data
            if int(sha256, 16) < _CUT or len(self._pack) >= _PACK:
                self._end_pack()
        packed: Future[str] = Future()
        packed.set_result(sha256)
        return packed

    def finish(self) -> str:
        """Returns the digest of all that was added, once it is stored.

        Raises:
            StoreError: The store refuses.
        """
        self._end_pack()
        for sent in self._sent:
            sent.result()
        placed = [pack.result() for pack in self._packs]
        files = sorted(self._files)
        digest = tree_digest(files)
        record = {"files": [list(file) for file in files], "packs": placed}
        self._attempt(lambda: self._put_record(f"trees/{digest}", record))
        return digest

    def _put_record(self, name: str, record: dict[str, Any]) -> None:
        if self._store.keeps_record(name) and (there := self._store.read_json(name)) is not None:
            blobs = blobs_of(there)
            if all(self._threads.map(self._store.keeps_blob, blobs, blobs.values())):
                return
        self._store.write_json(name, record)

    def _note(self, path: Path, names: Iterable[str], size: int, sha256: str) -> None:
        mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
        self._files += [TreeFile(name, mode, size, sha256) for name in names]

    def _send(self, path: Path, names: Iterable[str]) -> str:
        sha256 = sha256_of(path)
        self._attempt(lambda: self._store.put_blob(path, sha256))
        self._note(path, names, path.stat().st_size, sha256)
        return sha256

    def _end_pack(self) -> None:
        if self._offsets:
            waiting = [pack for pack in self._packs if not pack.done()]
            if len(waiting) >= 2 * _SENDERS:
                concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
            sha256 = hashlib.sha256(self._pack).hexdigest()
            target = Path(self._scratch.name, sha256)
            target.write_bytes(self._pack)
            self._packs.append(self._threads.submit(self._put_pack, target, sha256, len(self._pack), self._offsets))
            self._pack, self._offsets = bytearray(), []

    def _put_pack(self, target: Path, sha256: str, size: int, offsets: list[tuple[str, int]]) -> dict[str, Any]:
        self._attempt(lambda: self._store.put_blob(target, sha256))
        target.unlink(missing_ok=True)
        return {"sha256": sha256, "size": size, "files": [list(each) for each in offsets]}


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


def read_places(store: SharedStore, digest: str) -> list[tuple[TreeFile, list[tuple[str, int, int]]]]:
    """Returns the files of a tree with the parts of blobs that each consists of: SHA-256, offset, size.

    Files that are in one blob come one after the other, in the order in which they are there.

    Raises:
        StoreError: The tree does not exist, or is damaged.
    """
    record = store.read_json(f"trees/{digest}")
    if record is None:
        raise StoreError(f"outputs {digest[:12]} are not in the store {store.place.where}: run the job again")
    pieces = record.get("pieces") or {}
    packed = {sha: (str(pack["sha256"]), int(offset)) for pack in record["packs"] for sha, offset in pack["files"]}

    def parts_of(file: TreeFile) -> list[tuple[str, int, int]]:
        if file.sha256 in pieces:
            return [(str(piece), 0, int(size)) for piece, size in pieces[file.sha256]]
        blob, offset = packed.get(file.sha256, (file.sha256, 0))
        return [(blob, offset, file.size)]

    places = [(file, parts_of(file)) for file in _read_manifest(record, digest, store)]
    return sorted(places, key=lambda place: place[1][0])


def blobs_of(record: dict[str, Any]) -> dict[str, int | None]:
    """Returns the blobs that a tree's record names, by SHA-256, with their sizes where the record has them."""
    packed = {sha for pack in record["packs"] for sha, _ in pack["files"]}
    blobs: dict[str, int | None] = {pack["sha256"]: pack["size"] for pack in record["packs"]}
    for sha, pieces in (record.get("pieces") or {}).items():
        packed.add(sha)
        blobs.update(dict(pieces))
    return blobs | {sha: size for _, _, size, sha in record["files"] if sha not in packed}


def _list_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in folders + names:
            path = Path(parent, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise StoreError(f"{path} is a link or a special file: only plain files can be stored; copy its target")
        yield from (Path(parent, name) for name in sorted(names))


def tree_digest(files: Iterable[TreeFile]) -> str:
    """Returns the digest of a tree with these files."""
    text = json.dumps(sorted(list(file) for file in files), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


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
