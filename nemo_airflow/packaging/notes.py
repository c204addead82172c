"""A packager's cache beside the packages: unchanged files are not read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nemo_airflow.store import sharing

FOLDER = ".notes"


class Notes:
    """A small JSON file in the store. It is only a cache: lost or damaged entries are computed again.

    Args:
        folder: The store's folder.
        about: The subject of the notes: each text has its own file.
    """

    def __init__(self, folder: Path, about: str) -> None:
        self.folder = folder.absolute() / FOLDER  # absolute, since git runs in another folder
        self.key = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        self._path = self.folder / f"{self.key}.json"
        self._read: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text("utf-8"))
            self._read = found if isinstance(found, dict) else {}
            os.utime(self._path)  # in use
        self._now = dict(self._read)

    def get(self, name: str) -> Any:
        """Returns a noted value, or None."""
        return self._now.get(name)

    def set(self, name: str, value: Any) -> None:
        """Notes a value of plain JSON types; None deletes it."""
        self._now[name] = value

    def save(self) -> None:
        """Writes new notes. With two processes at once, those of one are lost."""
        if self._now == self._read:
            return
        with self.write_whole(self._path) as file:
            file.write(json.dumps(self._now, separators=(",", ":")).encode())  # much faster than json.dump
        self._read = dict(self._now)

    @contextlib.contextmanager
    def write_whole(self, path: Path) -> Iterator[BinaryIO]:
        """Yields a file to write, which appears whole beside the notes."""
        store = self.folder.parent
        with sharing.explain_refusals(store), sharing.write_whole(path, store) as file:
            yield file


def find_unused(store: Path, before: float) -> list[Path]:
    """Returns the files of notes that nobody has used since a time, and of their copies of an index.

    Args:
        store: The store's folder.
        before: The time, in seconds since the epoch.
    """
    used_at: dict[str, float] = {}
    found: list[tuple[Path, float]] = []
    for file in (store / FOLDER).glob("*"):
        with contextlib.suppress(FileNotFoundError):
            about = file.stat()
            found.append((file, max(about.st_mtime, about.st_ctime)))
            if file.suffix == ".json":
                used_at[file.stem] = about.st_mtime
    # The time of a copy of an index is that of the index: it is as old as its notes.
    return [file for file, changed_at in found if used_at.get(file.name.split(".")[0], changed_at) < before]


def add_recent(kept: Any, key: str, value: Any, most: int) -> list[Any]:
    """Returns pairs of key and value with a new one in front, at most ``most``."""
    others = [pair for pair in kept or () if pair[0] != key]
    return [[key, value], *others[: most - 1]]


def find(kept: Any, key: str) -> Any:
    """Returns the value of a key in such pairs, or None."""
    return next((value for known, value in kept or () if known == key), None)
