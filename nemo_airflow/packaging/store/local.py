"""Keeps packages by the digest of their content."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nemo_airflow.exceptions import StoreError
from nemo_airflow.packaging.store import sharing

_LEAST_AGE = 7200.0


class PackageStore:
    """A folder of archives, each named by its digest. Safe for many processes at once, of several users, too.

    Args:
        folder: The store's folder; made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str, format: str = "tar.gz") -> Path:
        """Returns where the archive of that digest is, or would be."""
        return self.folder / digest[:2] / f"{digest}.{format}"

    def has(self, digest: str, format: str = "tar.gz") -> bool:
        """Returns whether the archive is there; notes that it was wanted."""
        path = self.path(digest, format)
        try:
            sharing.touch(path, self.folder)
        except FileNotFoundError:
            return False
        except PermissionError:  # of another user: it may be for reading, or this user may write one in its place
            if not os.access(path, os.R_OK) and not os.access(path.parent, os.W_OK | os.X_OK):
                with sharing.explaining(self.folder):
                    raise
            return os.access(path, os.R_OK)
        return True

    @contextlib.contextmanager
    def write(self, digest: str, format: str = "tar.gz") -> Iterator[BinaryIO]:
        """Gives a file to write the archive into; it appears in the store whole, or not at all."""
        with sharing.explaining(self.folder), sharing.appearing(self.path(digest, format), self.folder) as file:
            yield file

    def prune(self, older_than: float, *, dry_run: bool = False) -> tuple[int, int]:
        """Deletes what nobody has wanted for a while, unfinished archives among it.

        What a package needs is noted as wanted whenever the package is made or sent, so that of two archives
        that belong together neither goes alone.

        Args:
            older_than: Seconds for which it was not wanted; at least two hours, for jobs that are being submitted.
            dry_run: Whether only to count.

        Returns:
            How many files it were, and their bytes.

        Raises:
            StoreError: The time is too short.
        """
        if older_than < _LEAST_AGE:
            raise StoreError(
                f"older_than={older_than:.0f} s is too short, since jobs may be starting: give two hours or more"
            )
        before = time.time() - older_than
        count = size = 0
        for file in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            try:
                about = file.stat()
                if about.st_mtime >= before:
                    continue
                if not dry_run:
                    with sharing.explaining(self.folder):
                        file.unlink()
            except FileNotFoundError:  # somebody else prunes
                continue
            count, size = count + 1, size + about.st_size
        return count, size

    @contextlib.contextmanager
    def writing_alone(self, digest: str) -> Iterator[None]:
        """Lets one process of this machine pack a package, and the others wait for it."""
        # One file for many digests: it stays, because whoever deletes a lock takes it from those who wait.
        path = self.folder / ".locks" / digest[:2]
        with sharing.explaining(self.folder):
            lock = sharing.open_lock(path, self.folder)
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
