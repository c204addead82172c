"""Names files and folders by their content.

A file's digest is the SHA-256 of its bytes. A folder's is that of its list of files, as canonical JSON: path, mode,
size and SHA-256 of each, of a link those of its target's text. Empty folders and times do not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from typing import Iterable, List, NamedTuple

FILE, PROGRAM, LINK = 0o644, 0o755, 0o120000
"""Modes of the entries of a folder."""

_BLOCK = 1 << 20

_CHECKED = "user.nemo_airflow.sha256"
"""Extended attribute of a file: its SHA-256, and the size and time of change of the content that had it."""

_TICK = 0.1
"""Seconds. More than what lies between two times of change that a file system can tell apart."""


class Entry(NamedTuple):
    """A file or link of a folder.

    Attributes:
        path: Its path from the folder, with slashes; bytes that are not UTF-8 are surrogates.
        mode: ``FILE``, ``PROGRAM`` or ``LINK``.
        size: Bytes of the file, or of the link's target.
        sha256: SHA-256 of the same, in hex.
    """

    path: str
    mode: int
    size: int
    sha256: str


class UnfitError(ValueError):
    """A file or link that cannot be part of an artifact."""


def list_files(root: str) -> List[Entry]:
    """Returns the files and links under a folder, sorted by path.

    Raises:
        UnfitError: A link leads to nothing or out of the folder, or something is neither file, folder nor link.
        OSError: A file cannot be read.
    """
    root = os.path.realpath(root)
    entries = []
    for parent, folders, names in os.walk(root, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        for name in names + links:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                target = _check_link(path, relative, root)
                digest = hashlib.sha256(os.fsencode(target)).hexdigest()
                entries.append(Entry(relative, LINK, len(os.fsencode(target)), digest))
            elif stat.S_ISREG(mode):
                entries.append(
                    Entry(relative, PROGRAM if mode & 0o100 else FILE, os.path.getsize(path), sha256_of(path))
                )
            else:
                raise UnfitError(f"{relative} in {root} is neither a file, a folder nor a link: leave it out")
    return sorted(entries)


def digest_of(path: str) -> str:
    """Returns the digest of a file or folder; see :func:`list_files` for what it raises."""
    return folder_digest(list_files(path)) if os.path.isdir(path) else sha256_of(path)


def folder_digest(entries: Iterable[Entry]) -> str:
    """Returns the digest of a folder with these entries."""
    text = json.dumps(sorted(list(entry) for entry in entries), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_of(path: str) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while True:
            block = file.read(_BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)


def note_checked(path: str, sha256: str) -> None:
    """Notes at a file that its content was found to have this SHA-256; does nothing on a disk that has no room for it.

    The note is at the content, so each other name of it, in another job's folder, has it too.
    """
    if not hasattr(os, "setxattr"):  # Linux alone has it
        return
    found = os.stat(path)
    if time.time() - found.st_mtime < _TICK:
        return  # it could be written to once more without another time of change
    with contextlib.suppress(OSError):
        if not found.st_mode & 0o200:
            os.chmod(path, stat.S_IMODE(found.st_mode) | 0o200)
        try:
            os.setxattr(path, _CHECKED, _note_of(found, sha256))
        finally:
            os.chmod(path, stat.S_IMODE(found.st_mode))


def is_checked(path: str, sha256: str) -> bool:
    """Returns whether a file was found to have this SHA-256, and has not been written to since then."""
    if not hasattr(os, "getxattr"):
        return False
    try:
        return os.getxattr(path, _CHECKED) == _note_of(os.stat(path), sha256)
    except OSError:  # there is no note, or no room for one
        return False


def _note_of(found: os.stat_result, sha256: str) -> bytes:
    return f"{sha256} {found.st_size} {found.st_mtime_ns}".encode()


def _check_link(path: str, relative: str, root: str) -> str:
    target = os.readlink(path)
    if os.path.isabs(target):
        raise UnfitError(
            f"{relative} in {root} is a link to the absolute path {target}: make it relative, or copy its target"
        )
    if not os.path.exists(path):
        raise UnfitError(f"{relative} in {root} links to {target}, which is not there: remove the link")
    real = os.path.realpath(path)
    if real != root and not real.startswith(root + os.sep):
        raise UnfitError(f"{relative} in {root} links to {target}, which is outside: copy its target instead")
    return target


def _raise(error: OSError) -> None:
    raise error
