"""Files that Git LFS keeps outside the repository: what is committed of them is a pointer.

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
from nemo_airflow.packaging.objects import Entry
from nemo_airflow.packaging.repository import Repository

LARGEST_POINTER = 1024
"""Bytes below which the specification has every pointer."""

_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize ([0-9]+)\n"
)
_BLOCK = 1 << 20


class Pointer(NamedTuple):
    """What a pointer says: SHA-256 and bytes of the content."""

    oid: str
    size: int


def pointer(data: bytes) -> Pointer | None:
    """Returns what a file says if it is a pointer, else None."""
    match = _POINTER.fullmatch(data)
    return Pointer(match[1].decode(), int(match[2])) if match else None


class Objects:
    """The LFS objects that a repository has on this machine.

    Args:
        repository: The repository.
        known: Git's ids of contents by their SHA-256, as far as they are known; grows.
    """

    def __init__(self, repository: Repository, known: dict[str, str]) -> None:
        self._repository = repository
        self._known = known
        try:
            storage = Path(repository.text("config", "--type=path", "--get", "lfs.storage"))
        except PackagingError:  # git's answer when it is not set
            storage = Path("lfs")
        self._folder = repository.common / storage

    def resolve(self, entry: Entry, what: Pointer) -> File | None:
        """Returns the file that a pointer stands for, or None where its content is not here."""
        for path in self._places(entry, what):
            if path.is_file() and path.stat().st_size == what.size:
                blob = self._id(path, what, content.algorithm_of(entry.id))
                if blob:
                    return File(entry.path, entry.mode, blob, what.size, Disk(path.parent), path.name)
        return None

    def _places(self, entry: Entry, what: Pointer) -> Iterator[Path]:
        yield self._folder / "objects" / what.oid[:2] / what.oid[2:4] / what.oid
        if not self._repository.bare:
            yield self._repository.folder / entry.path

    def _id(self, path: Path, what: Pointer, algorithm: str) -> str:
        """Returns git's id of the content, or an empty string if it is another's."""
        if known := self._known.get(f"{algorithm}:{what.oid}"):
            return known
        blob, sha256 = content.hasher(what.size, algorithm), hashlib.sha256()
        with path.open("rb") as file:
            while data := file.read(_BLOCK):
                blob.update(data)
                sha256.update(data)
        if sha256.hexdigest() != what.oid:
            return ""
        self._known[f"{algorithm}:{what.oid}"] = blob.hexdigest()
        return str(blob.hexdigest())


def is_used(attributes: bytes) -> bool:
    """Returns whether a ``.gitattributes`` file gives anything to LFS."""
    return b"lfs" in attributes


def refusal(repository: Repository, paths: list[str], *, missing: bool) -> PackagingError:
    """Returns the error for files whose content is not to be had, or not wanted."""
    named = content.listed([os.fspath(path) for path in paths])
    if missing:
        return PackagingError(
            f"the content of LFS files of {repository} is not on this machine: {named}; "
            "run 'git lfs fetch', or give GitArchivePackager lfs='pointer' to ship the pointers"
        )
    return PackagingError(
        f"{repository} has LFS files, and lfs='refuse': {named}; "
        "leave them out with export-ignore, or give lfs='resolve' or lfs='pointer'"
    )
