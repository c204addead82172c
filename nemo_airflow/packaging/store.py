"""Keeps packages by the digest of their content."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class PackageStore:
    """A folder of archives, each named by its digest. Safe for many processes at once.

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
        try:
            os.utime(self.path(digest, format))
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def write(self, digest: str, format: str = "tar.gz") -> Iterator[BinaryIO]:
        """Gives a file to write the archive into; it appears in the store whole, or not at all."""
        target = self.path(digest, format)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
