"""Outputs that jobs have sent into the shared store by themselves.

    incoming/<key of the job>/<sha256>            a piece, until it is kept
    incoming/<key of the job>/<number>            the same, where it cannot be named by its content
    incoming/<key of the job>/manifest.json       what there is, and in which pieces; written last
    incoming/<key of the job>/manifest-<n>.json   the same of another machine, where each sends its own outputs
    incoming/<key of the job>/checkpoints.json    the same of the checkpoints that the job keeps

A job may write below its own prefix and nowhere else, so nothing there is believed: a piece gets its place in the store
when its SHA-256 is right, and a file is compared with its own when it is read.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from nemo_airflow.exceptions import StoreError
from nemo_airflow.runner import digests
from nemo_airflow.runner.checkpoint_uploads import MANIFEST as CHECKPOINTS
from nemo_airflow.runner.uploads import MANIFEST_VERSION, manifest_name
from nemo_airflow.store.shared import SharedStore, blob_name
from nemo_airflow.store.trees import TreeFile, get_tree, tree_digest

FOLDER = "incoming"

LONGEST = 7 * 86400.0
"""Seconds for which a job may write at most: no signature holds longer."""

_COPIES = 16


class DirectPlace(Protocol):
    """A place that can let a job write below a folder of it."""

    def grant(self, folder: str, seconds: float, route: str, machines: int) -> dict[str, Any]:
        """Returns leave for some machines to write there; empty where that route does not lead there."""

    def verify(self, name: str, sha256: str, size: int) -> str:
        """Compares a file with its SHA-256; returns a tag that changes with its content."""

    def copy(self, source: str, target: str, tag: str) -> None:
        """Copies a file that has that tag to another name."""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a job has sent.

    Attributes:
        complete: Whether these are all its outputs.
        files: Its files.
        packs: Pieces with several small files: ``sha256``, ``size``, and ``files`` with the place of each content.
        pieces: The pieces of a file that consists of several, with their sizes, by its SHA-256.
        names: Names of the pieces that are not named by their SHA-256, by that.
        links: Targets of links, by path.
        left_out: What cannot be kept, and why.
    """

    complete: bool
    files: tuple[TreeFile, ...]
    packs: tuple[Mapping[str, Any], ...]
    pieces: Mapping[str, list[tuple[str, int]]]
    names: Mapping[str, str]
    links: Mapping[str, str]
    left_out: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @functools.cached_property
    def blobs(self) -> dict[str, int]:
        """The sizes of all pieces, by their SHA-256."""
        packed = {sha256 for pack in self.packs for sha256, _ in pack["files"]}
        found = {str(pack["sha256"]): int(pack["size"]) for pack in self.packs}
        for file in self.files:
            if file.sha256 in self.pieces:
                found.update(self.pieces[file.sha256])
            elif file.sha256 not in packed:
                found[file.sha256] = file.size
        return found

    def parts_of(self, file: TreeFile) -> list[tuple[str, int, int]] | None:
        """Returns where a file's content is: blob, offset and size of each part; None where it is a blob itself."""
        if file.sha256 in self.pieces:
            return [(blob, 0, size) for blob, size in self.pieces[file.sha256]]
        packs = [(pack["sha256"], dict(pack["files"])) for pack in self.packs]
        found = [(blob, at[file.sha256], file.size) for blob, at in packs if file.sha256 in at]
        return found[:1] or None

    def record_of(self, files: list[TreeFile]) -> dict[str, Any]:
        """Returns the record of a tree with some of the files; see :mod:`nemo_airflow.store.trees`."""
        used = {file.sha256 for file in files}
        return {
            "files": [list(file) for file in files],
            "packs": [dict(pack) for pack in self.packs if used & {sha256 for sha256, _ in pack["files"]}],
            "pieces": {sha256: pieces for sha256, pieces in self.pieces.items() if sha256 in used},
        }

    def joined(self, other: Manifest, folder: str) -> Manifest:
        """Returns this one with the outputs of another machine, which get a folder of their own; each content once."""
        packed = {sha256 for pack in self.packs for sha256, _ in pack["files"]}
        packs = []
        for pack in other.packs:
            if new := [[sha256, offset] for sha256, offset in pack["files"] if sha256 not in packed]:
                packs.append({**pack, "files": new})
        return Manifest(
            self.complete and other.complete,
            self.files + tuple(file._replace(path=f"{folder}/{file.path}") for file in other.files),
            self.packs + tuple(packs),
            {**other.pieces, **self.pieces},
            {**other.names, **self.names},
            {**self.links, **{f"{folder}/{path}": target for path, target in other.links.items()}},
            self.left_out + tuple(f"{folder}/{line}" for line in other.left_out),
        )

    def only(self, files: list[TreeFile]) -> Manifest:
        """Returns what there is of some of the files."""
        packs = tuple(self.record_of(files)["packs"])
        return dataclasses.replace(self, files=tuple(files), packs=packs, links={}, left_out=())

    def below(self, path: str) -> list[TreeFile]:
        """Returns the files below a folder of the outputs, with their paths from there."""
        start = f"{path}/"
        return [file._replace(path=file.path.removeprefix(start)) for file in self.files if file.path.startswith(start)]


_NOTHING = Manifest(complete=False, files=(), packs=(), pieces={}, names={}, links={}, left_out=())


class Incoming:
    """What one job has sent into a store.

    Args:
        store: The store.
        key: The job's key.
    """

    def __init__(self, store: SharedStore, key: str) -> None:
        self._store = store
        self._folder = f"{FOLDER}/{key}"

    def read(self, sha256: str = "", machines: int = 1) -> Manifest | None:
        """Returns what was sent; None where the job has sent nothing that is of use.

        Args:
            sha256: SHA-256 of the first machine's manifest, as the job has reported it; empty for any, and then also of
                outputs that are not all.
            machines: How many of them send their own outputs. Those of others than the first are below ``node-<n>``.

        Raises:
            StoreError: A manifest is missing, another one, or damaged; or the store cannot be reached.
        """
        manifest = self._read(manifest_name(0), sha256)
        for machine in range(1, machines):
            other = self._read(manifest_name(machine), "")
            if sha256 and not (other and other.complete):
                raise StoreError(f"machine {machine} of the job has not sent all its outputs")
            if other is not None:
                manifest = (manifest or _NOTHING).joined(other, f"node-{machine}")
        return manifest

    def read_checkpoints(self) -> Manifest | None:
        """Returns the checkpoints that were sent, perhaps not all of them whole; None where none was.

        Raises:
            StoreError: The list is damaged, or the store cannot be reached.
        """
        return self._read(CHECKPOINTS, "")

    def _read(self, name: str, sha256: str) -> Manifest | None:
        data = self._store.read(f"{self._folder}/{name}")
        if data is None and not sha256:
            return None
        if data is None or (sha256 and hashlib.sha256(data).hexdigest() != sha256):
            raise StoreError(f"{self._folder}/{name} is not what the job has sent")
        return _parse(data, f"{self._folder}/{name} in {self._store.place.where}")

    def accept(self, manifest: Manifest, moved: Callable[[int], None]) -> None:
        """Has the store keep all pieces at their place, by their content.

        Args:
            manifest: What was sent.
            moved: Called with the size of each piece, from several threads.

        Raises:
            StoreError: A piece is missing or damaged.
        """

        def keep(blob: tuple[str, int]) -> None:
            self._accept(*blob, manifest.names.get(blob[0], blob[0]))
            moved(blob[1])

        with concurrent.futures.ThreadPoolExecutor(_COPIES) as threads:
            for _ in threads.map(keep, manifest.blobs.items()):
                continue

    def put_tree(self, manifest: Manifest, files: list[TreeFile]) -> str:
        """Has some of the files be a tree of the store; returns its digest. All pieces are accepted."""
        digest = tree_digest(files)
        self._store.write_json(f"trees/{digest}", manifest.record_of(files))
        return digest

    def fetch(self, manifest: Manifest, into: Path) -> None:
        """Writes all outputs into a folder of this machine. All pieces are accepted."""
        get_tree(self._store, self.put_tree(manifest, list(manifest.files)), into)
        root = into.resolve()
        for path, target in manifest.links.items():
            link = into / path
            link.parent.mkdir(parents=True, exist_ok=True)
            inside = (link.parent / target).resolve().is_relative_to(root)
            if inside and link.parent.resolve().is_relative_to(root) and not link.is_symlink():
                link.symlink_to(target)

    def forget(self) -> None:
        """Deletes what the job has sent; what was accepted is elsewhere."""
        if names := [entry.name for entry in self._store.entries(self._folder)]:
            self._store.delete(names)

    def _accept(self, sha256: str, size: int, sent_as: str) -> None:
        if self._store.keeps_blob(sha256, size):
            return
        source = f"{self._folder}/{sent_as}"
        place: Any = self._store.place
        tag = self._store.attempt(lambda: place.verify(source, sha256, size))
        self._store.attempt(lambda: place.copy(source, blob_name(sha256), tag))


def lets_jobs_write(store: SharedStore) -> bool:
    """Returns whether jobs can send their outputs into a store by themselves."""
    return all(hasattr(store.place, name) for name in ("grant", "verify", "copy"))


def grant(store: SharedStore, key: str, seconds: float, route: str = "", machines: int = 1) -> dict[str, Any]:
    """Returns leave for a job to write its outputs into a store; empty where it cannot be given any.

    Args:
        store: The store.
        key: The job's key.
        seconds: How long it holds.
        route: The store as the job's host knows it: the service's address, or a folder; empty for that of the store.
        machines: How many machines of the job send their own outputs.
    """
    if not lets_jobs_write(store):
        return {}
    place: Any = store.place
    given: dict[str, Any] = place.grant(f"{FOLDER}/{key}", min(seconds, LONGEST), route, machines)
    return {**given, "machines": machines} if given else {}


def _parse(data: bytes, where: str) -> Manifest:
    """Reads a manifest, which a job has written.

    Raises:
        StoreError: It is not one.
    """
    try:
        fields = json.loads(data)
        if fields["version"] != MANIFEST_VERSION:
            raise ValueError(f"version {fields['version']}")
        files = tuple(
            TreeFile(_path(path), int(mode), int(size), _sha(sha)) for path, mode, size, sha in fields["files"]
        )
        if any(file.mode not in (digests.FILE, digests.PROGRAM) for file in files):
            raise ValueError("a file has another mode")
        packs = tuple(
            {
                "sha256": _sha(pack["sha256"]),
                "size": int(pack["size"]),
                "files": [[_sha(sha), int(offset)] for sha, offset in pack["files"]],
            }
            for pack in fields["packs"]
        )
        pieces = {
            _sha(sha): [(_sha(piece), int(size)) for piece, size in parts] for sha, parts in fields["pieces"].items()
        }
        names = {_sha(sha): _sent_as(name) for sha, name in fields.get("names", {}).items()}
        links = {_path(path): str(target) for path, target in fields["links"].items()}
        left_out = tuple(str(each) for each in fields["left_out"])
        return Manifest(fields["complete"] is True, files, packs, pieces, names, links, left_out)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"{where} is not a list of outputs: {type(error).__name__}: {error}") from None


def _path(path: object) -> str:
    parts = PurePosixPath(str(path)).parts
    if not isinstance(path, str) or not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise ValueError(f"the path {str(path)[:80]!r} leads out of the outputs")
    return path


def _sent_as(name: object) -> str:
    if not isinstance(name, str) or not re.fullmatch("[0-9]{1,9}", name):
        raise ValueError(f"{str(name)[:80]!r} is not the name of a piece")
    return name


def _sha(text: object) -> str:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError(f"{str(text)[:80]!r} is not a SHA-256")
    return text
