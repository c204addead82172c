"""A store that several machines share: packages by digest, each kept as a file named by its own SHA-256.

    blobs/ab/<sha256>          content, named by itself
    packages/<digest>.<format> a record: which blob is this package, or which parts of blobs
    trees/<digest>             a record: the files of a folder, and the blobs they are in
    refs/<name>                objects that must not be collected
    incoming/<key>/            what a job sends by itself, until it is kept
    collecting/<id>            a collection in progress

A package's digest identifies its content, not the archive's bytes, so the record names the bytes. It is
written last, so a record's content is complete. Fetched content is compared with its SHA-256 before use.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from nemo_airflow.exceptions import StoreError, StoreUnavailable
from nemo_airflow.job import Archive, Package, is_patch
from nemo_airflow.store import sharing
from nemo_airflow.store.local import PackageStore
from nemo_airflow.store.place import Entry, Place

T = TypeVar("T")

FRESH = 3600.0
"""Seconds for which a file counts as wanted without being touched again. A collection spares twice that."""

COLLECTION_LASTS = 900.0
"""Seconds after which a collection counts as dead. A slower one stops itself well before."""

_ATTEMPTS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,200}")


class SharedStore:
    """Packages and outputs by digest, in a storage that several machines reach. Safe for many processes at once.

    Args:
        place: Where its files are.

    Attributes:
        sent: Bytes of content that this object has sent; for logs, tests and benchmarks.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.sent = 0

    def __repr__(self) -> str:
        return f"SharedStore({self.place.where!r})"

    def put_package(self, package: Package | Archive, archive: Path) -> bool:
        """Stores a package, unless it is already there.

        Args:
            package: The package, or one of its archives.
            archive: Where that is on this machine.

        Returns:
            Whether anything was sent.

        Raises:
            StoreError: The store refuses, or stays unreachable after a few tries.
        """
        name = record_name(package)
        record = self.read_json(name)
        if record is not None and self._still_there(name, record):
            return False
        sha256 = sha256_of(archive)
        sent = self.put_blob(archive, sha256)
        self.write_json(name, {"sha256": sha256, "size": archive.stat().st_size})
        return sent

    def get_package(self, package: Package | Archive, cache: PackageStore) -> Path:
        """Returns a package's archive in this machine's cache; fetches it if needed.

        Raises:
            StoreError: The store does not have it, or has it damaged.
        """
        path = cache.path(package.digest, package.format)
        if os.access(path, os.R_OK):
            return path
        with _one_at_a_time(path, cache.folder):
            if os.access(path, os.R_OK):  # fetched by another process meanwhile
                return path
            name = record_name(package)
            record = self.read_json(name)
            if record is None:
                raise StoreError(
                    f"package {package.digest[:12]} is not in the store {self.place.where}: build it again"
                )
            with contextlib.suppress(StoreError):  # a store that this user may only read is enough
                self.attempt(lambda: self.place.touch(name))
            with cache.write(package.digest, package.format) as file:
                self.write_content(file, record["sha256"], record.get("pieces"), path.parent)
        return path

    def has_package(self, package: Package | Archive) -> bool:
        """Returns whether the store has a package."""
        return self.read_json(record_name(package)) is not None

    def put_blob(self, source: Path, sha256: str) -> bool:
        """Stores a file under its SHA-256, unless it is already there; returns whether it was sent."""
        name, size = blob_name(sha256), source.stat().st_size
        if self._keeps(name, size):
            return False
        self.attempt(lambda: self.place.put(name, source, sha256))
        arrived = self.attempt(lambda: self.place.stat(name))
        if arrived is None or arrived.size != size:
            raise StoreUnavailable(f"{name} did not arrive whole in {self.place.where}: put it again")
        self.sent += size
        return True

    def write_content(self, file: BinaryIO, sha256: str, pieces: Sequence[Sequence[Any]] | None, scratch: Path) -> None:
        """Writes content that is a blob, or consists of parts of several, and compares it with its SHA-256.

        Args:
            file: Where to.
            sha256: SHA-256 of the content.
            pieces: The parts: SHA-256 of each blob, offset and size; None for the one blob of that name.
            scratch: Folder for temporary files.

        Raises:
            StoreError: See :meth:`fetch_blob`.
        """
        if pieces is None:
            with self.fetch_blob(sha256, scratch) as path, path.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
            return
        digest = hashlib.sha256()
        for blob, offset, left in pieces:
            with self.fetch_blob(blob, scratch) as path, path.open("rb") as source:
                source.seek(offset)
                while left and (block := source.read(min(left, 1 << 20))):
                    left -= len(block)
                    digest.update(block)
                    file.write(block)
        if digest.hexdigest() != sha256:
            raise StoreError(f"{sha256[:12]} in the store {self.place.where} does not match its record: put it again")

    @contextlib.contextmanager
    def fetch_blob(self, sha256: str, folder: Path) -> Iterator[Path]:
        """Yields a temporary file in ``folder`` with the verified content of that SHA-256.

        Raises:
            StoreError: It does not exist; or it is damaged, and then deleted so that the next put sends it again.
        """
        folder.mkdir(parents=True, exist_ok=True)
        name = blob_name(sha256)
        descriptor, path = tempfile.mkstemp(dir=folder, prefix=".new-")
        os.close(descriptor)
        target = Path(path)
        try:
            for _ in range(2):  # twice: one failed transfer is not a reason to delete it
                if not self.attempt(lambda: self.place.get(name, target)):
                    raise StoreError(f"{name} is not in the store {self.place.where}: put it again")
                if sha256_of(target) == sha256:
                    break
            else:
                self.attempt(lambda: self.place.delete([name]))
                raise StoreError(f"{name} in the store {self.place.where} is damaged and was deleted: put it again")
            yield target
        finally:
            target.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """Returns a small file's content, or None where there is none."""
        return self.attempt(lambda: self.place.read(name))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """Returns a record, or None where it is missing or unreadable."""
        data = self.read(name)
        if data is None:
            return None
        try:
            record = json.loads(data)
        except ValueError:
            return None
        return record if isinstance(record, dict) else None

    def write_json(self, name: str, record: dict[str, Any]) -> None:
        """Writes a record whole."""
        data = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
        self.attempt(lambda: self.place.write(name, data))

    def hold(self, name: str, objects: list[str], *, days: float | None = None) -> None:
        """Protects objects from collection.

        Args:
            name: Name of the reference; replaces an existing one of that name.
            objects: Names of packages and trees, as ``packages/<digest>.tar.gz`` or ``trees/<digest>``.
            days: Number of days; None for ever.
        """
        expires = None if days is None else time.time() + days * 86400
        self.write_json(_ref_name(name), {"objects": sorted(set(objects)), "expires": expires})

    def release(self, name: str) -> bool:
        """Deletes a reference; returns whether it existed."""
        there = self.attempt(lambda: self.place.stat(_ref_name(name))) is not None
        self.attempt(lambda: self.place.delete([_ref_name(name)]))
        return there

    def entries(self, folder: str) -> list[Entry]:
        """Returns the files below a folder, sorted by name."""
        return self.attempt(lambda: sorted(self.place.entries(folder), key=lambda entry: entry.name))

    def delete(self, names: list[str]) -> None:
        """Deletes files; see :mod:`nemo_airflow.store.collection` for when this is safe."""
        self.attempt(lambda: self.place.delete(names))

    def find(self, digest: str) -> str:
        """Returns the name of the one package or tree whose digest begins with a prefix.

        Raises:
            StoreError: None matches, or more than one.
        """
        found = [e.name for folder in ("packages", "trees") for e in self.entries(folder) if not is_patch(e.name)]
        names = [name for name in found if name.partition("/")[2].startswith(digest)]
        if not digest or len(names) != 1:
            many = f"{len(names)} objects begin" if names else "nothing begins"
            raise StoreError(
                f"{many} with {digest!r} in the store {self.place.where}: `nemo-airflow store ls` lists them"
            )
        return names[0]

    def keeps_record(self, name: str) -> bool:
        """Returns whether a record exists and is safe from collection for a while; marks it as wanted."""
        return self._keeps(name, None)

    def keeps_blob(self, sha256: str, size: int | None = None) -> bool:
        """The same for content, which must have the given size, if any."""
        return self._keeps(blob_name(sha256), size)

    def _still_there(self, name: str, record: dict[str, Any]) -> bool:
        blobs = blobs_of(record)
        return self.keeps_record(name) and all(self.keeps_blob(sha256, size) for sha256, size in blobs.items())

    def _keeps(self, name: str, size: int | None) -> bool:
        """Returns whether a file exists and is safe from collection for a while; see the argument in ``collection``."""
        entry = self.attempt(lambda: self.place.stat(name))
        if _fits(entry, size) and entry is not None and entry.wanted_at > time.time() - FRESH:
            return True
        if entry is not None:
            self.attempt(lambda: self.place.touch(name))
        self._await_collections()
        return _fits(self.attempt(lambda: self.place.stat(name)), size)

    def _await_collections(self) -> None:
        end = time.monotonic() + COLLECTION_LASTS
        while time.monotonic() < end:
            if all(entry.wanted_at < time.time() - COLLECTION_LASTS for entry in self.entries("collecting")):
                return
            time.sleep(0.2)

    def attempt(self, call: Callable[[], T]) -> T:
        """Makes a call of the place, again where it may succeed later."""
        patiently = Retrying(
            retry=retry_if_exception_type(StoreUnavailable),
            wait=wait_random_exponential(multiplier=0.2, max=10),
            stop=stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        return patiently(call)


def blob_name(sha256: str) -> str:
    """Returns the name under which content is stored.

    Raises:
        StoreError: The text is not a SHA-256.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise StoreError(f"{sha256!r} is not a SHA-256: the record that names it is damaged, put the object again")
    return f"blobs/{sha256[:2]}/{sha256}"


def blobs_of(record: Mapping[str, Any]) -> dict[str, int | None]:
    """Returns the blobs that the record of a package names, by SHA-256, with their sizes where the record has them."""
    if record.get("pieces") is None:
        return {record["sha256"]: record["size"]}
    return dict.fromkeys(blob for blob, _, _ in record["pieces"])


def record_name(package: Package | Archive) -> str:
    """Returns the name of a package's record."""
    name = f"{package.digest}.{package.format}"
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} cannot name a package: build it again")
    return f"packages/{name}"


def _ref_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise StoreError(f"{name!r} cannot name a reference: use letters, digits, '.', '_' and '-'")
    return f"refs/{name}"


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fits(entry: Entry | None, size: int | None) -> bool:
    return entry is not None and size in (None, entry.size)


@contextlib.contextmanager
def _one_at_a_time(path: Path, top: Path) -> Iterator[None]:
    """Lets one process of this machine fetch a file while the others wait."""
    with sharing.explain_refusals(top):
        lock = sharing.open_lock(path.with_name(f".{path.name}.lock"), top)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
