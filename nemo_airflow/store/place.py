"""The interface of a shared store's storage: whole files by name, on a disk, a host or in a bucket."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of the place.

    Attributes:
        name: Its name, with parts separated by slashes.
        size: Bytes.
        wanted_at: Seconds since the epoch, by the place's own clock, at which it was written or last touched.
    """

    name: str
    size: int
    wanted_at: float


class Place(abc.ABC):
    """Whole files by name. A file appears whole or not at all, and is never changed while it can be read.

    All methods block, may be called from several threads, and raise ``StoreError`` where the storage refuses,
    ``StoreUnavailable`` where a retry may help.
    """

    where: str
    """The address for people, without credentials."""

    @abc.abstractmethod
    def stat(self, name: str) -> Entry | None:
        """Returns the file's entry, or None where there is none."""

    @abc.abstractmethod
    def put(self, name: str, source: Path, sha256: str) -> None:
        """Stores a copy of a local file; replaces an existing file.

        Args:
            name: The name in the store.
            source: The file.
            sha256: SHA-256 of its content, in hex.
        """

    @abc.abstractmethod
    def get(self, name: str, target: Path) -> bool:
        """Writes the file's content to a path of this machine; returns False where there is no such file."""

    @abc.abstractmethod
    def read(self, name: str) -> bytes | None:
        """Returns a small file's content, or None where there is none."""

    @abc.abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Stores a small file; replaces an existing file."""

    @abc.abstractmethod
    def touch(self, name: str) -> None:
        """Marks the file as wanted now; does nothing where it does not exist."""

    @abc.abstractmethod
    def entries(self, folder: str) -> Iterator[Entry]:
        """Yields the files below a folder, in no order."""

    @abc.abstractmethod
    def delete(self, names: list[str]) -> None:
        """Deletes files; missing ones count as deleted."""

    def sign(self, name: str, seconds: float, route: str = "") -> str:
        """Returns an address at which anybody can read a file for a time. Never shown.

        It is empty where the place has no such addresses, or there is no key to sign one with.

        Args:
            name: The file.
            seconds: How long it holds.
            route: The place as whoever reads knows it: the address of its service, or a folder; empty for its own.
        """
        return ""
