"""Files of a store that several Unix users may share: new files get the permissions of the store's top folder.

The top folder decides who may use a store: ``chgrp GROUP`` and ``chmod g+rwx`` give it to a group, whatever
the users' umasks are.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from nemo_airflow.exceptions import StoreError

NEW = ".new-"
"""Prefix of the name of a file that is being written."""


def make_folder(folder: Path, top: Path) -> None:
    """Creates a folder below a store's top, with its parents."""
    if folder.is_dir():
        return
    if folder == top:
        folder.mkdir(parents=True, exist_ok=True)
        return
    make_folder(folder.parent, top)
    with contextlib.suppress(FileExistsError):  # another process created it
        folder.mkdir()
        share(folder, top)


def share(path: Path, top: Path) -> None:
    """Gives a file or folder of this user the permissions and the group of a store's top."""
    model, about = top.stat(), path.stat()
    if about.st_gid != model.st_gid:
        with contextlib.suppress(OSError):  # this user is not in that group
            os.chown(path, -1, model.st_gid)
    path.chmod(stat.S_IMODE(model.st_mode) & (0o7777 if path.is_dir() else 0o666))


@contextlib.contextmanager
def write_whole(target: Path, top: Path) -> Iterator[BinaryIO]:
    """Yields a file to write, which appears under its name when complete, or not at all."""
    make_folder(target.parent, top)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=NEW)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        share(temporary, top)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def touch(path: Path, top: Path, *, keep_change: bool = False) -> None:
    """Marks a file as wanted now. Another user's file that cannot be touched is replaced by a copy.

    Args:
        path: The file.
        top: The store's top folder.
        keep_change: Whether by its time of access alone: that of change says since when it has its content.

    Raises:
        FileNotFoundError: The file does not exist.
        PermissionError: This user may not even replace it.
    """
    try:
        if keep_change:
            with contextlib.suppress(PermissionError):  # another user's file, to which this one may write
                os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
                return
        os.utime(path)
    except PermissionError:
        with path.open("rb") as source, write_whole(path, top) as target:
            shutil.copyfileobj(source, target, 1 << 20)


def delete_files(files: Iterable[Path], top: Path, *, dry_run: bool = False) -> tuple[int, int]:
    """Deletes files of a store.

    Args:
        files: The files; those that another process has deleted do not count.
        top: The store's top folder.
        dry_run: Whether only to count them.

    Returns:
        The number of files, and their bytes.

    Raises:
        StoreError: The user may not delete one of them.
    """
    count = size = 0
    for file in files:
        try:
            about = file.stat()
            if not dry_run:
                with explain_refusals(top):
                    file.unlink()
        except FileNotFoundError:
            continue
        count, size = count + 1, size + about.st_size
    return count, size


def delete_abandoned(top: Path, before: float, *, dry_run: bool = False) -> tuple[int, int]:
    """Deletes folders that nobody has locked and that were not changed for long: their processes have died.

    Args:
        top: The folder of these folders; each is locked by the process that works in it.
        before: The time since which they were not changed, in seconds since the epoch.
        dry_run: Whether only to count them.

    Returns:
        The number of files in them, and their bytes.
    """
    count = size = 0
    for folder in top.glob("*/"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), contextlib.ExitStack() as stack:
            lock = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, lock)
            if folder.stat().st_mtime >= before:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            files = [file.lstat().st_size for file in folder.rglob("*") if not file.is_dir() or file.is_symlink()]
            if not dry_run:
                with explain_refusals(top):
                    shutil.rmtree(folder)
            count, size = count + len(files), size + sum(files)
    return count, size


def open_lock(path: Path, top: Path) -> IO[bytes]:
    """Opens a file for ``flock``; creates it if needed."""
    make_folder(path.parent, top)
    try:
        file = path.open("ab")
    except PermissionError:
        if not path.exists():
            raise
        return path.open("rb")  # of another user: a lock need not be written
    if path.stat().st_uid == os.geteuid():
        share(path, top)
    return file


@contextlib.contextmanager
def explain_refusals(top: Path) -> Iterator[None]:
    """Turns a permission error in a store into one that says what to do.

    Raises:
        StoreError: The user may not read or write a file of the store.
    """
    try:
        yield
    except PermissionError as error:
        path = Path(os.fsdecode(error.filename or top))
        if not path.is_relative_to(top):
            raise
        if path.name.startswith(NEW):
            path = path.parent
        raise StoreError(
            f"user {_user()} may not use {path}: {error.strerror}; share the store with a group that its users are in, "
            f"'chgrp -R GROUP {top} && chmod -R g+rwX {top}', or give each user a $NEMO_AIRFLOW_HOME of their own"
        ) from error


def _user() -> str:
    try:
        return f"{getpass.getuser()} ({os.geteuid()})"
    except (KeyError, OSError):  # as in a container with any user id
        return str(os.geteuid())
