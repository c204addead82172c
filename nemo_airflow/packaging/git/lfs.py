"""Files that Git LFS keeps outside the repository: only pointers are committed.

See "Git LFS Specification" for the pointer's format and the place of the objects.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging import content
from nemo_airflow.packaging.content import File
from nemo_airflow.packaging.disk import Disk
from nemo_airflow.packaging.git.objects import Entry
from nemo_airflow.packaging.git.repository import Repository

LARGEST_POINTER = 1024
"""Most bytes of a pointer, by the specification."""

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]+)\n"
)
_BLOCK = 1 << 20


class Pointer(NamedTuple):
    """A pointer: SHA-256 and bytes of the content."""

    oid: str
    size: int


def pointer(data: bytes) -> Pointer | None:
    """Returns the pointer in a file, or None if it is not a pointer."""
    match = _POINTER.fullmatch(data)
    return Pointer(match[1].decode(), int(match[2])) if match else None


class Objects:
    """The LFS objects that a repository has on this machine.

    Args:
        repository: The repository.
        known: Known git ids of contents by their SHA-256; grows.
    """

    def __init__(self, repository: Repository, known: dict[str, str]) -> None:
        self._repository = repository
        self._known = known
        try:
            storage = Path(repository.text("config", "--type=path", "--get", "lfs.storage"))
        except PackagingError:  # git's error when it is not set
            storage = Path("lfs")
        self._folder = repository.common / storage

    def resolve(self, entry: Entry, what: Pointer) -> File | None:
        """Returns the file of a pointer, or None where its content is not here."""
        for path in self._places(entry, what):
            if path.is_file() and path.stat().st_size == what.size and (blob := self._id(path, what)):
                return File(entry.path, entry.mode, blob, what.size, Disk(path.parent), path.name)
        return None

    def _places(self, entry: Entry, what: Pointer) -> Iterator[Path]:
        yield self._folder / "objects" / what.oid[:2] / what.oid[2:4] / what.oid
        if not self._repository.bare:
            yield self._repository.folder / entry.path

    def _id(self, path: Path, what: Pointer) -> str:
        """Returns git's id of the content, or an empty string if the content does not match."""
        if known := self._known.get(what.oid):
            return known
        blob, sha256 = content.start_hash(what.size), hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(_BLOCK):
                blob.update(data)
                sha256.update(data)
        if sha256.hexdigest() != what.oid:
            return ""
        self._known[what.oid] = blob.hexdigest()
        return str(blob.hexdigest())


def is_used(attributes: bytes) -> bool:
    """Returns whether a ``.gitattributes`` file assigns files to LFS."""
    return b"lfs" in attributes


def make_refusal(repository: Repository, paths: list[str], *, missing: bool) -> PackagingError:
    """Returns the error for files whose content is missing or refused."""
    named = content.list_paths([os.fspath(path) for path in paths])
    if missing:
        return PackagingError(
            f"the content of LFS files of {repository} is not on this machine: {named}; "
            "run 'git lfs fetch', or give GitArchivePackager lfs='pointer' to ship the pointers"
        )
    return PackagingError(
        f"{repository} has LFS files, and lfs='refuse': {named}; "
        "leave them out with export-ignore, or give lfs='resolve' or lfs='pointer'"
    )
