"""Finds the differences between a working tree and its commit."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nemo_airflow.exceptions import NotARepositoryError, PackagingError
from nemo_airflow.packaging.content import list_paths
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.patterns import own_data

BYTECODE = ("__pycache__/", "*.pyc")
"""Patterns of files that Python writes beside imported modules: they are not part of the code."""

_LOCK_LASTS = 600.0
"""Seconds after which a lock on a copy of the index counts as left by a killed process."""


class Changed(NamedTuple):
    """A tracked file that is not as committed.

    Attributes:
        path: Path from the working tree's top.
        mode: Git's mode of it now; all zeros when it is deleted.
        submodule: ``N...``, or for a submodule ``S`` and which of commit, files and untracked files changed.
        unmerged: Whether it has an unresolved merge conflict.
    """

    path: str
    mode: str
    submodule: str
    unmerged: bool = False


class Status(NamedTuple):
    """The state of a working tree.

    Attributes:
        commit: What is checked out.
        changed: Tracked files that differ from the commit, except bytecode.
        untracked: Files that git neither tracks nor ignores, except bytecode; for a new folder its path with a slash
            at the end.
    """

    commit: str
    changed: Sequence[Changed]
    untracked: Sequence[str]


def status(repository: Repository, subpath: str, notes: Notes) -> Status:
    """Looks at a working tree with one git process.

    It works on a copy of the index, stored beside the notes until the index changes: there git caches what it
    has learned about files and folders, so that it reads only those that have changed.

    Args:
        repository: The repository.
        subpath: Look at this folder only; relative to the top.
        notes: Where to keep the copy.
    """
    # Git would also write caches into submodules, which have their own index.
    locks = "0" if (repository.folder / ".gitmodules").exists() else "1"
    looking = repository.with_env(GIT_INDEX_FILE=str(_index(repository, notes)), GIT_OPTIONAL_LOCKS=locks)
    return _status(repository, looking, subpath)


def _status(repository: Repository, looking: Repository, subpath: str = "") -> Status:
    where = ["--", f":(top,literal){subpath}"] if subpath else []
    out = looking.git(
        "-c", "core.untrackedCache=true", "-c", "core.splitIndex=false", "-c", "status.showUntrackedFiles=normal",
        "status", "--porcelain=v2", "--branch", "-z", "--no-renames", "--ignore-submodules=none",
        "--no-ahead-behind", *where,
    )  # fmt: skip
    commit = ""
    changed, untracked = [], []
    for line in os.fsdecode(out).split("\0"):
        if line.startswith("# branch.oid "):
            commit = line.removeprefix("# branch.oid ")
        elif line.startswith("? "):
            untracked.append(line[2:])
        elif line.startswith("1 "):
            _, _, submodule, _, _, mode, _, _, path = line.split(" ", 8)
            changed.append(Changed(path, mode, submodule))
        elif line.startswith("u "):
            _, _, submodule, _, _, _, mode, _, _, _, path = line.split(" ", 10)
            changed.append(Changed(path, mode, submodule, unmerged=True))
    if commit in ("", "(initial)"):
        raise NotARepositoryError(f"{repository} has no commit yet: commit first")
    # Git does not report a folder in the place of a tracked file here.
    instead = [f"{change.path}/" for change in changed if _is_folder_now(repository, change)]
    changed = [change for change in changed if not _is_bytecode_alone(repository, change)]
    return Status(commit, changed, [*_without_bytecode(repository, untracked), *untracked_files(repository, instead)])


def untracked_files(repository: Repository, paths: Sequence[str]) -> list[str]:
    """Returns untracked files of code, those of a folder one by one; a repository of its own as a folder."""
    folders = [path for path in paths if path.endswith("/")]
    files = [path for path in paths if not path.endswith("/")]
    if folders:
        names = [f":(top,literal){path}" for path in folders]
        found = repository.git("ls-files", "-z", "--others", "--exclude-standard", *_no_code(repository), "--", *names)
        files += [path for path in os.fsdecode(found).split("\0") if path]
    return files


def refuse_repositories(repository: Repository, untracked: Sequence[str]) -> None:
    """Refuses to ship an untracked folder that is a repository of its own.

    Raises:
        PackagingError: There is one.
    """
    if inner := [path for path in untracked if path.endswith("/")]:
        raise PackagingError(
            f"{list_paths(inner)} in {repository} is a repository of its own: "
            "make it a submodule, package it by itself, or leave it out by exclude=[...] or .gitignore"
        )


def find_matching(repository: Repository, patterns: Sequence[str], subpath: str) -> list[str]:
    """Returns the untracked files, ignored or not, that match patterns in the form of ``.gitignore``."""
    where = ["--", f":(top,literal){subpath}"] if subpath else []
    excludes = [f"--exclude={pattern}" for pattern in patterns]
    found = repository.git("ls-files", "-z", "--others", "--ignored", *excludes, *where)
    return [path for path in os.fsdecode(found).split("\0") if path and not path.endswith("/")]


def _is_folder_now(repository: Repository, change: Changed) -> bool:
    path = repository.folder / change.path
    was_file = change.submodule.startswith("N") and not int(change.mode, 8)
    return was_file and path.is_dir() and not path.is_symlink()


def _no_code(repository: Repository) -> list[str]:
    return [f"--exclude={pattern}" for pattern in (*BYTECODE, *own_data(repository.folder))]


def is_bytecode(path: str) -> bool:
    """Returns whether a path matches :data:`BYTECODE`."""
    return "__pycache__" in path.split("/") or path.endswith(".pyc")


def _without_bytecode(repository: Repository, untracked: Sequence[str]) -> list[str]:
    paths = [path for path in untracked if not is_bytecode(path)]
    folders = [f":(top,literal){path}" for path in paths if path.endswith("/")]
    if not folders:
        return paths
    # Git does not list the content of a new folder: it may be only bytecode.
    found = repository.git(
        "ls-files", "-z", "--others", "--exclude-standard", "--directory", "--no-empty-directory",
        *_no_code(repository), "--", *folders,
    )  # fmt: skip
    files = [path for path in paths if not path.endswith("/")]
    return files + [path for path in os.fsdecode(found).split("\0") if path]


def _is_bytecode_alone(repository: Repository, change: Changed) -> bool:
    """Returns whether a change is only bytecode: committed bytecode, or within a submodule."""
    if change.submodule.startswith("N"):
        return "__pycache__" in change.path.split("/")
    if change.submodule[1] == "C" or change.submodule == "S...":  # at another commit, or gone
        return False
    inner = Repository.at(repository.folder / change.path)
    inside = _status(inner, inner)
    return not inside.changed and not inside.untracked


def _index(repository: Repository, notes: Notes) -> Path:
    """Returns the copy of the current index; creates it if needed."""
    own = repository.git_folder / "index"
    try:
        about = own.stat()
        name = f"{about.st_ino:x}-{about.st_size:x}-{about.st_mtime_ns:x}-{about.st_ctime_ns:x}"
    except FileNotFoundError:
        name = "none"
    own_notes = f"{notes.key}.{os.geteuid()}"  # git rewrites it with this user's permissions
    copy = notes.folder / f"{own_notes}.{name}.index"
    lock = copy.with_name(f"{copy.name}.lock")
    with contextlib.suppress(FileNotFoundError):
        if time.time() - lock.stat().st_mtime > _LOCK_LASTS:
            lock.unlink()
    if name == "none" or copy.exists():
        return copy
    for old in notes.folder.glob(f"{own_notes}.*.index"):
        with contextlib.suppress(FileNotFoundError):
            # Not at once: another process may be reading it, and would see no tracked files.
            if time.time() - old.stat().st_ctime > _LOCK_LASTS:
                old.unlink()
    with own.open("rb") as source, notes.write_whole(copy) as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.utime(
            target.fileno(), ns=(about.st_atime_ns, about.st_mtime_ns)
        )  # git compares this time with those of files
    return copy
