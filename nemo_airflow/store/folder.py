"""A shared store in a folder: a disk that several machines mount."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nemo_airflow.exceptions import StoreError
from nemo_airflow.store import sharing
from nemo_airflow.store.place import Entry, Place

_ABANDONED = 86400.0
"""Seconds after which an upload under a temporary name counts as abandoned."""


class FolderPlace(Place):
    """Files under a folder; a new one is written beside its place and renamed.

    Args:
        folder: The folder; created with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def stat(self, name: str) -> Entry | None:
        """See :meth:`Place.stat`."""
        with self._errors():
            try:
                found = (self.folder / name).stat()
            except FileNotFoundError:
                return None
        return Entry(name, found.st_size, found.st_mtime)

    def put(self, name: str, source: Path, sha256: str) -> None:
        """See :meth:`Place.put`."""
        with self._errors(), self._appearing(name) as file, source.open("rb") as content:
            shutil.copyfileobj(content, file, 1 << 20)
            if file.tell() != source.stat().st_size:
                raise StoreError(f"{source} changed while it was stored in {self.where}: put it again")

    def get(self, name: str, target: Path) -> bool:
        """See :meth:`Place.get`."""
        with self._errors():
            try:
                source = (self.folder / name).open("rb")
            except FileNotFoundError:
                return False
            with source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        return True

    def read(self, name: str) -> bytes | None:
        """See :meth:`Place.read`."""
        with self._errors():
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None

    def write(self, name: str, data: bytes) -> None:
        """See :meth:`Place.write`."""
        with self._errors(), self._appearing(name) as file:
            file.write(data)

    def touch(self, name: str) -> None:
        """See :meth:`Place.touch`."""
        with self._errors(), contextlib.suppress(FileNotFoundError):
            sharing.touch(self.folder / name, self.folder)

    def entries(self, folder: str) -> Iterator[Entry]:
        """See :meth:`Place.entries`."""
        for parent, _, names in os.walk(self.folder / folder):
            for name in names:
                path = Path(parent, name)
                if name.startswith(sharing.NEW):
                    _remove_abandoned(path)
                elif entry := self.stat(path.relative_to(self.folder).as_posix()):
                    yield entry

    def delete(self, names: list[str]) -> None:
        """See :meth:`Place.delete`."""
        with self._errors():
            for name in names:
                (self.folder / name).unlink(missing_ok=True)
            for folder in {Path(name).parent for name in names if name.startswith("incoming/")}:
                with contextlib.suppress(OSError):  # a job has put something there meanwhile
                    (self.folder / folder).rmdir()

    def grant(self, folder: str, seconds: float, route: str = "", machines: int = 1) -> dict[str, Any]:
        """Returns where a job may write; see :class:`nemo_airflow.store.incoming.DirectPlace`.

        Args:
            folder: The folder in the store.
            seconds: Not used: the permissions of the disk decide.
            route: The store's folder as the job's host has mounted it; without one no job writes here.
            machines: Not used.
        """
        if not route.startswith("/"):
            return {}
        with self._errors():
            self.folder.mkdir(parents=True, exist_ok=True)
        return {"folder": f"{route.rstrip('/')}/{folder}"}

    def sign(self, name: str, seconds: float, route: str = "") -> str:
        """See :meth:`Place.sign`: the file's path, where the folder is mounted."""
        return f"{route.rstrip('/')}/{name}" if route.startswith("/") else ""

    def verify(self, name: str, sha256: str, size: int) -> str:
        """Compares a file's size; its content is compared while it is copied, when nobody can change it any more.

        Raises:
            StoreError: It is not there, or has another size.
        """
        entry = self.stat(name)
        if entry is None or entry.size != size:
            raise StoreError(f"{name} in the store {self.where} is not what its name says")
        return sha256

    def copy(self, source: str, target: str, tag: str) -> None:
        """Copies a file to another name of the store.

        Raises:
            StoreError: It is not there, or has not the SHA-256 that ``verify`` has returned.
        """
        digest = hashlib.sha256()
        with self._errors(), (self.folder / source).open("rb") as content, self._appearing(target) as file:
            while block := content.read(1 << 20):
                digest.update(block)
                file.write(block)
            if digest.hexdigest() != tag:
                raise StoreError(f"{source} in the store {self.where} is not what its name says")

    @contextlib.contextmanager
    def _appearing(self, name: str) -> Iterator[BinaryIO]:
        with sharing.write_whole(self.folder / name, self.folder) as file:
            yield file
            # Synced before it gets its name: a crash of the machine must not leave a partial file.
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with sharing.explain_refusals(self.folder):
                yield
        except OSError as error:
            raise StoreError(f"the store {self.where} cannot be used: {error}") from error


def _remove_abandoned(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_mtime < time.time() - _ABANDONED:
            path.unlink()
