"""Stores packages by the digest of their content."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from nemo_airflow.exceptions import StoreError
from nemo_airflow.job import BASE_DIGITS, is_patch
from nemo_airflow.store import sharing

FILES = "files"
"""Format of the list of a package's files, which is compared with those of later versions."""

_LEAST_AGE = 7200.0


class PackageStore:
    """A folder of archives, each named by its digest. Safe for many processes and users at once.

    Args:
        folder: The store's folder; created if needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str, format: str = "tar.gz") -> Path:
        """Returns the path of the archive of a digest, whether or not it exists."""
        return self.folder / digest[:2] / f"{digest}.{format}"

    def has(self, digest: str, format: str = "tar.gz") -> bool:
        """Returns whether the archive exists; marks it as wanted."""
        path = self.path(digest, format)
        try:
            sharing.touch(path, self.folder, keep_change=True)
        except FileNotFoundError:
            return False
        except PermissionError:  # another user's file: it may be readable, or this user may replace it
            if not os.access(path, os.R_OK) and not os.access(path.parent, os.W_OK | os.X_OK):
                with sharing.explain_refusals(self.folder):
                    raise
            return os.access(path, os.R_OK)
        return True

    @contextlib.contextmanager
    def write(self, digest: str, format: str = "tar.gz") -> Iterator[BinaryIO]:
        """Yields a file for the archive; it appears in the store when complete, or not at all."""
        with sharing.explain_refusals(self.folder), sharing.write_whole(self.path(digest, format), self.folder) as file:
            yield file

    def take(self, source: Path, digest: str, format: str) -> None:
        """Puts a file into the store, without a copy where the disk allows it; nobody may change the file then."""
        path = self.path(digest, format)
        with sharing.explain_refusals(self.folder):
            sharing.make_folder(path.parent, self.folder)
            new = path.with_name(f"{sharing.NEW}{secrets.token_hex(8)}")
            try:
                os.link(source, new)
                sharing.touch(new, self.folder, keep_change=True)
                sharing.share(new, self.folder)
                new.replace(path)
                return
            except OSError:  # another disk, or one without links, or a file of another user
                new.unlink(missing_ok=True)
            with source.open("rb") as content, sharing.write_whole(path, self.folder) as file:
                shutil.copyfileobj(content, file, 1 << 20)

    def prune(self, older_than: float, *, keep: Collection[str] = (), dry_run: bool = False) -> tuple[int, int]:
        """Deletes files that nobody wanted for a while, including unfinished archives.

        All archives of a package are marked as wanted whenever it is made or sent, so that of two archives
        that belong together neither is deleted alone.

        Args:
            older_than: Seconds since a file was last wanted; at least two hours, for jobs that are being submitted.
            keep: Digests of packages to keep at any age, with their patches and the packages that they change.
            dry_run: Whether only to count.

        Returns:
            The number of files, and their bytes.

        Raises:
            StoreError: The time is too short.
        """
        if older_than < _LEAST_AGE:
            raise StoreError(
                f"older_than={older_than:.0f} s is too short, since jobs may be starting: give two hours or more"
            )
        files = list(self.folder.glob("[0-9a-f][0-9a-f]/*"))
        living = self._living(files, time.time() - older_than, keep)
        return sharing.delete_files((file for file in files if file not in living), self.folder, dry_run=dry_run)

    @staticmethod
    def _living(files: Collection[Path], before: float, keep: Collection[str]) -> set[Path]:
        """Returns the files that stay: young or kept ones, the packages that those change, and what is beside them."""
        living = set()
        for file in files:
            with contextlib.suppress(FileNotFoundError):  # another process prunes
                if _digest(file) in keep or _wanted_at(file) >= before:
                    living.add(file)
        bases = {file.name.partition("-")[2].split(".")[0] for file in living if not _is_beside(file)} - {""}
        living.update(file for file in files if "-" not in file.name and file.name[:BASE_DIGITS] in bases)
        packages = {_digest(file) for file in living if not _is_beside(file)}
        return living.union(file for file in files if _is_beside(file) and _digest(file) in packages)

    @contextlib.contextmanager
    def writing_alone(self, digest: str) -> Iterator[None]:
        """Lets one process of this machine pack a package while the others wait."""
        # One file for many digests. It is never deleted: deleting a lock would break it for waiting processes.
        path = self.folder / ".locks" / digest[:2]
        with sharing.explain_refusals(self.folder):
            lock = sharing.open_lock(path, self.folder)
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _is_beside(file: Path) -> bool:
    """Returns whether a file belongs to a package and is kept as long as that: its patch, or the list of its files."""
    return is_patch(file.name) or file.suffix == f".{FILES}"


def _digest(file: Path) -> str:
    """Returns the digest of the package to which a file of the store belongs."""
    return file.name.partition(".")[0].partition("-")[0]


def _wanted_at(file: Path) -> float:
    found = file.stat()
    return max(found.st_atime, found.st_mtime)
