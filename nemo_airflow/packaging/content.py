"""The content of a package: its files, the sources of their bytes, and its digest.

A file is identified by git's id of its bytes, and the package by git's id of the tree of
these. So the digest of a commit's package needs no file to be read, and the same files have the same
digest from any source, on any machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from nemo_airflow.exceptions import PackagingError

FILE, PROGRAM, LINK = "100644", "100755", "120000"
"""Modes of files, as git writes them."""

SHA256_DIGITS = 64
"""Digits of an object's id in a repository with SHA-256 names."""

_LINKS_FOLLOWED = 40
_LARGEST = 10


class Source(Protocol):
    """A source of the bytes of files: a folder, a git repository, a wheel."""

    def reading(self, files: Sequence[File]) -> contextlib.AbstractContextManager[Iterator[Iterable[bytes]]]:
        """Yields the bytes of each file in turn, in blocks that have to be read before the next file's.

        Raises:
            PackagingError: A file changed after its id was computed, or cannot be read.
        """


class File(NamedTuple):
    """One file of a package.

    Attributes:
        path: Path in the package, with slashes; bytes that are not UTF-8 are surrogates, as in ``os.fsdecode``.
        mode: ``FILE``, ``PROGRAM`` or ``LINK``.
        blob: Git's SHA-1 id of its bytes, or of the target of a link.
        size: Bytes.
        source: Where its bytes are.
        at: Its name in the source.
    """

    path: str
    mode: str
    blob: str
    size: int
    source: Source
    at: str


class Memory:
    """Files in memory, by path."""

    def __init__(self, data: Mapping[str, bytes]) -> None:
        self._data = data

    @contextlib.contextmanager
    def reading(self, files: Sequence[File]) -> Iterator[Iterator[Iterable[bytes]]]:
        """See :meth:`Source.reading`."""
        yield ((self._data[file.at],) for file in files)


def files_of(data: Mapping[str, bytes], modes: Mapping[str, str] | None = None) -> list[File]:
    """Returns files for bytes in memory."""
    memory = Memory(data)
    return [
        File(path, (modes or {}).get(path, FILE), blob_id(text), len(text), memory, path) for path, text in data.items()
    ]


def blob_id(data: bytes) -> str:
    """Returns git's id of a file's bytes."""
    digest = start_hash(len(data))
    digest.update(data)
    return str(digest.hexdigest())


def start_hash(size: int, algorithm: str = "sha1", kind: str = "blob") -> Any:
    """Returns the hash of an object's id, before the object's bytes."""
    return hashlib.new(algorithm, f"{kind} {size}\0".encode(), usedforsecurity=False)


def algorithm_of(identifier: str) -> str:
    """Returns the hash by which a repository names its objects, from one of their ids."""
    return "sha256" if len(identifier) == SHA256_DIGITS else "sha1"


def package_digest(tree: str) -> str:
    """Returns the digest of a package whose files are those of a git tree."""
    return hashlib.sha256(f"nemo-airflow package 2\n{tree}\n".encode()).hexdigest()


def tree_id(files: Iterable[File]) -> str:
    """Returns git's id of the tree of the files.

    Raises:
        PackagingError: A path is both a file and a folder.
    """
    root: dict[str, Any] = {}
    for file in files:
        folder = root
        *above, name = file.path.split("/")
        for part in above:
            folder = folder.setdefault(part, {})
            if not isinstance(folder, dict):
                raise PackagingError(f"{file.path} lies in a folder that is also a file: leave one of them out")
        if isinstance(folder.get(name), dict):
            raise PackagingError(f"{file.path} is both a file and a folder: leave one of them out")
        folder[name] = (file.mode, file.blob)
    return _id_of_folder(root)


def _id_of_folder(folder: Mapping[str, Any]) -> str:
    entries = {}
    for name, inside in folder.items():
        if isinstance(inside, dict):
            entries[name] = ("40000", _id_of_folder(inside))
        else:
            entries[name] = inside
    data = tree_object(entries)
    digest = start_hash(len(data), kind="tree")
    digest.update(data)
    return str(digest.hexdigest())


def tree_object(entries: Mapping[str, tuple[str, str]]) -> bytes:
    """Returns the bytes of git's tree of a folder: mode and id by name."""
    lines = []
    for name, (mode, identifier) in entries.items():
        key = os.fsencode(name)
        # Git sorts folders as if their names ended with a slash.
        lines.append((key + b"/" if mode == "40000" else key, mode.encode() + b" " + key + b"\0", identifier))
    return b"".join(begin + bytes.fromhex(identifier) for _, begin, identifier in sorted(lines))


def in_order(files: Iterable[File]) -> list[File]:
    """Returns the files in the order of their paths' bytes."""
    return sorted(files, key=lambda file: os.fsencode(file.path))


def read(files: Sequence[File]) -> Iterator[tuple[File, Iterable[bytes]]]:
    """Yields each file and its bytes in blocks, which have to be read before the next file."""
    by_source: dict[int, list[File]] = {}
    for file in files:
        by_source.setdefault(id(file.source), []).append(file)
    with contextlib.ExitStack() as stack:
        streams = {key: stack.enter_context(some[0].source.reading(some)) for key, some in by_source.items()}
        for file in files:
            yield file, next(streams[id(file.source)])


def check_size(files: Sequence[File], limit: int) -> int:
    """Returns the total size of the files in bytes.

    Raises:
        PackagingError: The total exceeds the limit; the message names the largest files.
    """
    total = sum(file.size for file in files)
    if total > limit:
        largest = sorted(files, key=lambda file: (-file.size, file.path))[:_LARGEST]
        named = ", ".join(f"{format_path(file.path)} {format_size(file.size)}" for file in largest)
        raise PackagingError(
            f"the package has {format_size(total)} in {len(files)} files, more than max_size={format_size(limit)}; "
            f"the largest: {named}; leave them out, or give the packager a larger max_size"
        )
    return total


def check_links(files: Sequence[File]) -> None:
    """Refuses links to outside the package: on another machine they point to something else.

    Raises:
        PackagingError: There is such a link; the message names it.
    """
    links = [file for file in files if file.mode == LINK]
    if not links:
        return
    targets = {file.path: os.fsdecode(b"".join(data)) for file, data in read(links)}
    for path, target in targets.items():
        if _leaves(path, target, targets):
            raise PackagingError(
                f"link {format_path(path)} points to {format_path(target)}, outside the package: "
                "commit the file itself, or leave the link out, as by exclude=[...]"
            )


def _leaves(path: str, target: str, links: Mapping[str, str]) -> bool:
    """Returns whether a link points outside, following other links of the package."""
    here: list[str] = path.split("/")[:-1]
    ahead = target.split("/")[::-1]
    if posixpath.isabs(target):
        return True
    followed = 0
    while ahead:
        part = ahead.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        here.append(part)
        further = links.get("/".join(here))
        if further is not None:
            followed += 1
            if followed > _LINKS_FOLLOWED:
                return False  # a cycle points nowhere
            if posixpath.isabs(further):
                return True
            here.pop()
            ahead.extend(further.split("/")[::-1])
    return False


def format_path(path: str) -> str:
    """Returns a path for people: bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def list_paths(paths: Sequence[str]) -> str:
    """Returns the first paths of a list, for people."""
    few = ", ".join(map(format_path, paths[:_LARGEST]))
    return f"{few} and {len(paths) - _LARGEST} more" if len(paths) > _LARGEST else few


def format_size(size: float) -> str:
    """Returns a number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" or size == int(size) else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
