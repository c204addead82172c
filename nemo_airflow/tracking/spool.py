"""What a tracker did not take, on disk, until somebody delivers it: this process, another one, or a person.

Each entry is a folder, which appears when it is complete and is never changed:

    <home>/spool/1764410400.123-<key>.<random>/
        entry.json     the run, and the calls of its tracker in order, the end last
        points.jsonl   the points, each with the mark of its record
        files/         files of the run, by their paths in it
        refused.txt    why the tracker refuses it for good, if it does

Names begin with the time at which the job's run began: runs are delivered in their order, by one process at a time.
A name that begins with a dot is an entry that is being written, which its writer holds locked, or deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow import settings
from nemo_airflow.folders import folder_size, written_at
from nemo_airflow.store import sharing

VERSION = 1

_ENTRY = "entry.json"
_POINTS = "points.jsonl"
_FILES = "files"
_REFUSED = "refused.txt"
_LOCK = "lock"

_NAME = re.compile(r"\d+\.\d{3}-.+\.[0-9a-f]{8}")

_ABANDONED_AFTER = 3600.0
"""Seconds after which a folder that nobody writes is deleted: its writer has died."""


class Entry:
    """What waits for one run.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def key(self) -> str:
        """The key of the job."""
        return self.folder.name.partition("-")[2].rpartition(".")[0]

    @property
    def began(self) -> float:
        """When the job's run began, seconds since the epoch."""
        return float(self.folder.name.partition("-")[0])

    @property
    def place(self) -> tuple[str, float]:
        """What the entries are sorted by: their run, and when they were written."""
        run = self.folder.name.rpartition(".")[0]
        try:
            return run, (self.folder / _ENTRY).stat().st_mtime
        except FileNotFoundError:  # delivered meanwhile
            return run, 0.0

    @property
    def points(self) -> Path:
        """The file with the points, which may not exist."""
        return self.folder / _POINTS

    @property
    def files(self) -> Path | None:
        """The folder with files, or None if there are none."""
        folder = self.folder / _FILES
        return folder if folder.is_dir() else None

    @property
    def refusal(self) -> str:
        """Why the tracker refuses it for good; empty if it does not."""
        try:
            return (self.folder / _REFUSED).read_text()
        except FileNotFoundError:
            return ""

    @property
    def may_be_removed(self) -> bool:
        """Whether this user may deliver it: what cannot be removed would be delivered again and again."""
        return all(os.access(folder, os.R_OK | os.W_OK | os.X_OK) for folder in (self.folder, self.folder.parent))

    def read(self) -> dict[str, Any]:
        """Returns the entry.

        Raises:
            ValueError: It is damaged, or of a later version.
        """
        data = json.loads((self.folder / _ENTRY).read_text())
        if not isinstance(data, dict) or data.get("version") != VERSION:
            raise ValueError(f"{self.folder / _ENTRY} is not of version {VERSION}")
        return data

    def refuse(self, reason: str) -> None:
        """Notes that the tracker refuses the entry for good: it is not delivered again unless a person asks for it."""
        (self.folder / _REFUSED).write_text(reason)

    def remove(self) -> None:
        """Removes the entry, which has been delivered."""
        gone = self.folder.with_name(f".gone-{self.folder.name}")
        self.folder.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


class Draft:
    """An entry that is being written. It is there for others when complete, or not at all.

    Args:
        spool: Its spool.
        name: Name of the entry.
    """

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool = spool
        self._name = name
        self._folder = spool.folder / f".new-{name}"
        top = settings.home()
        with sharing.explain_refusals(top):
            sharing.make_folder(self._folder, top)
            self._lock = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        _take(self._lock)

    @property
    def points(self) -> Path:
        """The file for the points.

        Raises:
            OSError: The spool is full.
        """
        self._spool.check_room()
        return self._folder / _POINTS

    def add_files(self, files: Mapping[str, Path]) -> None:
        """Adds files by their paths in the run.

        Raises:
            OSError: One cannot be copied, or the spool has no room for all.
        """
        self._spool.check_room(sum(source.stat().st_size for source in files.values()))
        for path, source in files.items():
            target = self._folder / _FILES / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def complete(self, data: Mapping[str, Any], refusal: str = "") -> Entry:
        """Makes an entry of it.

        Args:
            data: What :meth:`Entry.read` returns, apart from the version.
            refusal: Why the tracker refuses it for good, or empty.

        Raises:
            OSError: It cannot be written.
        """
        (self._folder / _ENTRY).write_text(json.dumps({"version": VERSION, **data}))
        if refusal:
            (self._folder / _REFUSED).write_text(refusal)
        for folder, _, names in os.walk(self._folder):
            for name in names:
                sharing.share(Path(folder, name), settings.home())
                _sync(Path(folder, name))
            if Path(folder) != self._folder:
                sharing.share(Path(folder), settings.home())
            _sync(Path(folder))
        complete = self._spool.folder / self._name
        self._folder.rename(complete)
        _sync(self._spool.folder)
        os.close(self._lock)
        return Entry(complete)

    def discard(self) -> None:
        """Deletes it."""
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)


class Spool:
    """All that waits on this machine. Safe for many processes, and for users that share the home folder.

    Args:
        folder: The folder; :func:`nemo_airflow.settings.spool_folder` if None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = settings.spool_folder() if folder is None else folder

    def draft(self, key: str, began: float | None = None) -> Draft:
        """Returns a new entry to write.

        Args:
            key: The key of the job.
            began: When its run began, seconds since the epoch.

        Raises:
            OSError: The folder cannot be written, or the spool is full.
            StoreError: It belongs to another user.
        """
        self.check_room()
        return Draft(self, f"{began or time.time():014.3f}-{key}.{secrets.token_hex(4)}")

    def entries(self) -> list[Entry]:
        """Returns the entries, those of the earliest runs first, and of one run those that were written first."""
        try:
            names = [item.name for item in os.scandir(self.folder) if _NAME.fullmatch(item.name)]
        except FileNotFoundError:
            return []
        return sorted((Entry(self.folder / name) for name in names), key=lambda entry: entry.place)

    @contextlib.contextmanager
    def hold(self) -> Iterator[bool]:
        """Yields whether this process alone may deliver now."""
        try:
            lock = sharing.open_lock(self.folder / f".{_LOCK}", settings.home())
        except PermissionError:  # another user's folder, of which this one may not deliver any entry
            yield True
            return
        with lock:
            yield _take(lock.fileno())

    def check_room(self, more: int = 0) -> None:
        """Checks that the spool has room.

        Args:
            more: Bytes to be added.

        Raises:
            OSError: It has not.
        """
        limit = settings.spool_limit()
        size = folder_size(self.folder)
        if size + more > limit:
            raise OSError(
                f"{self.folder} has {size} bytes, and NEMO_AIRFLOW_SPOOL_LIMIT allows {limit}: deliver them with "
                "'nemo-airflow sync', or raise the limit"
            )

    def clean(self) -> None:
        """Deletes what processes that died have left half written or half deleted. Only for who holds the spool."""
        for item in os.scandir(self.folder) if self.folder.is_dir() else ():
            folder = Path(item.path)
            if not (item.is_dir() and item.name.startswith(".")) or time.time() - written_at(folder) < _ABANDONED_AFTER:
                continue
            with contextlib.suppress(OSError):  # another user's, or another process deletes it
                lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT)
                try:
                    if _take(lock):
                        shutil.rmtree(folder)
                finally:
                    os.close(lock)


def _take(lock: int) -> bool:
    """Locks an open file, unless another process or thread has; returns whether."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
