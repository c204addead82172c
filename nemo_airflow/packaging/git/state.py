"""The state of a repository to ship: a commit, and files of the working tree."""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.content import FILE, LINK, PROGRAM
from nemo_airflow.packaging.disk import YOUNG, signature_of
from nemo_airflow.packaging.git.objects import SUBMODULE
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.git.worktree import Changed

NO_LFS = ("-c", "filter.lfs.clean=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false")
"""Settings without Git LFS, which would write into the repository, and replace shipped content by pointers."""


@dataclasses.dataclass(frozen=True)
class State:
    """The files to ship, and a signature to recognize them.

    Attributes:
        repository: The repository.
        commit: The commit.
        changed: Tracked files to ship as they are in the working tree.
        untracked: Other files of the working tree to ship as if they were committed.
        included: Files to ship that are not meant to be committed.
        left_out: Files that git does not track and that are excluded.
        branch: Name of the branch, or empty.
    """

    repository: Repository
    commit: str
    changed: Sequence[Changed] = ()
    untracked: Sequence[str] = ()
    included: Sequence[str] = ()
    left_out: Sequence[str] = ()
    branch: str = ""

    @functools.cached_property
    def _files(self) -> list[tuple[str, list[int]]]:
        """The disk's metadata of the files at the first access: later changes are seen the next time."""
        return list(self._look())

    def _look(self) -> Iterator[tuple[str, list[int]]]:
        for path in [*(change.path for change in self.changed), *self.untracked, *self.included]:
            try:
                yield path, signature_of(os.lstat(self.repository.folder / path))
            except OSError:  # deleted, or the missing folder of a submodule: recorded as such
                yield path, []

    @property
    def signature(self) -> list[Any]:
        """A value that changes whenever shipped or recorded data does."""
        config = signature_of(os.stat(self.repository.common / "config"))
        return [self.commit, self.branch, config, [change.mode for change in self.changed], self._files]

    @property
    def is_settled(self) -> bool:
        """Whether the signature is reliable: not while a file may change again within the disk's time resolution."""
        if any(change.submodule.startswith("S") for change in self.changed):
            return False  # the signature does not cover the content of submodules
        return not any(about and max(about[1:3]) > time.time_ns() - YOUNG for _, about in self._files)

    def ids(self, scratch: Repository, algorithm: str) -> dict[str, tuple[str, str] | None]:
        """Writes the objects of changed files; returns mode and id by path, None for a deleted file."""
        ids: dict[str, tuple[str, str] | None] = {}
        modes: dict[str, str] = {}
        for change in self.changed:
            if not int(change.mode, 8):
                ids[change.path] = None
            elif change.mode == SUBMODULE:
                inner = Repository.at(scratch.folder / change.path)
                ids[change.path] = (SUBMODULE, inner.text("rev-parse", "HEAD"))
            else:
                modes[change.path] = change.mode
        for path in self.untracked:
            about = os.lstat(scratch.folder / path)
            modes[path] = LINK if stat.S_ISLNK(about.st_mode) else PROGRAM if about.st_mode & 0o100 else FILE
        for path in [path for path, mode in modes.items() if mode == LINK]:
            target = os.fsencode(os.readlink(scratch.folder / path))
            ids[path] = (modes.pop(path), scratch.write_object("blob", target, algorithm))
        for path, identifier in zip(modes, _hashed(scratch, modes), strict=True):
            ids[path] = (modes[path], identifier)
        return ids


def _hashed(scratch: Repository, paths: Iterable[str]) -> list[str]:
    """Writes the objects of files as git would commit them, and returns their ids."""
    names = b"".join(_quoted(path) + b"\n" for path in paths)
    if not names:
        return []
    try:
        return scratch.git(*NO_LFS, "hash-object", "-w", "--stdin-paths", input=names).decode().split()
    except PackagingError as error:
        raise PackagingError(f"{error}: a file changed during packaging, or cannot be read; package again") from error


def _quoted(path: str) -> bytes:
    name = os.fsencode(path)
    if b"\n" not in name and not name.startswith(b'"'):
        return name
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n") + b'"'
