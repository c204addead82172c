"""Lists the files of a folder, with their ids and bytes."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging import content
from nemo_airflow.packaging.content import FILE, LINK, PROGRAM, File, format_path
from nemo_airflow.packaging.notes import Notes

_BLOCK = 1 << 20
YOUNG = 2_000_000_000
"""Nanoseconds within which a file may change without a new time: younger files are read again."""


class Disk:
    """A folder's files; each is compared with its id when it is read."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def reading(self, files: Sequence[File]) -> Iterator[Iterator[Iterable[bytes]]]:
        """See :meth:`~nemo_airflow.packaging.content.Source.reading`."""
        yield (self._blocks(file) for file in files)

    def _blocks(self, file: File) -> Iterator[bytes]:
        digest = content.start_hash(file.size)
        try:
            for block in _bytes_of(self.root / file.at, file.mode == LINK):
                digest.update(block)
                yield block
        except OSError as error:
            raise PackagingError(f"cannot read {format_path(str(self.root / file.at))}: {error.strerror}") from error
        if digest.hexdigest() != file.blob:
            raise PackagingError(f"{format_path(str(self.root / file.at))} changed during packaging: package again")


def walk(
    root: Path, wanted: Callable[[str], bool], prune: Callable[[str], bool]
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yields the files and links under a folder, by path from it. Links are not followed.

    Args:
        root: The folder.
        wanted: Returns whether to list a file of this path.
        prune: Returns whether to skip a folder of this path.
    """
    ahead = [""]
    while ahead:
        above = ahead.pop()
        try:
            with os.scandir(root / above) as entries:
                for entry in entries:
                    path = f"{above}{entry.name}"
                    if entry.is_dir(follow_symlinks=False):
                        if not prune(f"{path}/"):
                            ahead.append(f"{path}/")
                    elif wanted(path):
                        yield path, entry
        except OSError as error:
            raise PackagingError(
                f"cannot read the folder {format_path(str(root / above))}: {error.strerror}"
            ) from error


def identify_files(
    root: Path, entries: Iterable[tuple[str, os.DirEntry[str] | None]], notes: Notes, prefix: str = ""
) -> list[File]:
    """Returns files with the ids of their bytes; reads only files that changed since the last time.

    Args:
        root: Their folder.
        entries: Their paths from it.
        notes: Cache of ids, by a file's metadata.
        prefix: Prefix of the paths in the package.

    Raises:
        PackagingError: One is neither file nor link, or cannot be read.
    """
    known = notes.get("disk") or {}
    now = time.time_ns()
    source = Disk(root)
    found: dict[str, Any] = {}
    files = []
    for path, entry in entries:
        try:
            status = entry.stat(follow_symlinks=False) if entry is not None else os.lstat(root / path)
            signature = signature_of(status)
            old = known.get(path)
            blob = old[1] if old and old[0] == signature else _id(root / path, status)
        except OSError as error:
            raise PackagingError(f"cannot read {format_path(str(root / path))}: {error.strerror}") from error
        if max(status.st_mtime_ns, status.st_ctime_ns) < now - YOUNG:
            found[path] = [signature, blob]
        mode = LINK if stat.S_ISLNK(status.st_mode) else PROGRAM if status.st_mode & 0o100 else FILE
        files.append(File(prefix + path, mode, blob, status.st_size, source, path))
    notes.set("disk", found)
    return files


def signature_of(status: os.stat_result) -> list[int]:
    """Returns metadata that changes when a file does, as far as the disk shows it."""
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_mode]


def _id(path: Path, status: os.stat_result) -> str:
    is_link = stat.S_ISLNK(status.st_mode)
    if not is_link and not stat.S_ISREG(status.st_mode):
        raise PackagingError(f"{format_path(str(path))} is neither a file nor a link: leave it out by a pattern")
    digest = content.start_hash(status.st_size)
    for block in _bytes_of(path, is_link):
        digest.update(block)
    return str(digest.hexdigest())


def _bytes_of(path: Path, is_link: bool) -> Iterator[bytes]:
    if is_link:
        yield os.fsencode(os.readlink(path))
        return
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            yield block
