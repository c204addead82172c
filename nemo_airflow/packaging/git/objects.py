"""Reads git's objects, and makes trees of changed ones, without touching the repository."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.content import LINK, File, algorithm_of, format_path, tree_object
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.packing import Changes

FOLDER, SUBMODULE = "40000", "160000"

_BLOCK = 1 << 20


class Entry(NamedTuple):
    """A file, link or submodule of a tree: its mode, id, path from the tree, and bytes."""

    mode: str
    id: str
    path: str
    size: int


class Blobs:
    """The objects of a repository as a source of files."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    @contextlib.contextmanager
    def reading(self, files: Sequence[File]) -> Iterator[Iterator[Iterable[bytes]]]:
        """See :meth:`~nemo_airflow.packaging.content.Source.reading`."""
        with self._repository.run_interactively("cat-file", "--batch", "--buffer") as (ask, answer):
            asking = threading.Thread(target=_ask, args=(ask, [file.at for file in files]), daemon=True)
            asking.start()
            yield (_blocks(file, answer, self._repository) for file in files)


def _ask(ask: IO[bytes], identifiers: Iterable[str]) -> None:
    with contextlib.suppress(BrokenPipeError, ValueError):  # the rest is not needed
        for identifier in identifiers:
            ask.write(identifier.encode() + b"\n")
        ask.close()


def _blocks(file: File, answer: IO[bytes], repository: Repository) -> Iterable[bytes]:
    words = answer.readline().split()
    if len(words) != 3:
        raise PackagingError(
            f"{repository} lacks the content of {format_path(file.path)} ({file.at[:12]}): fetch it, or clone anew"
        )
    size = int(words[2])
    if size <= _BLOCK:
        return (answer.read(size + 1)[:size],)
    return _large(answer, size)


def _large(answer: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        block = answer.read(min(size, _BLOCK))
        if not block:
            return
        size -= len(block)
        yield block
    answer.read(1)


@contextlib.contextmanager
def reader(repository: Repository) -> Iterator[Callable[[str], bytes]]:
    """Yields a function that returns the bytes of an object by id."""
    with repository.run_interactively("cat-file", "--batch") as (ask, answer):

        def read(identifier: str) -> bytes:
            ask.write(identifier.encode() + b"\n")
            ask.flush()
            words = answer.readline().split()
            if len(words) != 3:
                raise PackagingError(f"{repository} lacks object {identifier}: fetch it, or clone anew")
            return answer.read(int(words[2]) + 1)[:-1]

        yield read


def entries(repository: Repository, tree: str) -> list[Entry]:
    """Returns all entries of a tree and its folders. A partial clone fetches what it lacks of them at once."""
    if repository.is_partial:
        fetch_missing(repository, tree)
    found = []
    for line in repository.git("ls-tree", "-r", "-l", "-z", "--full-tree", tree).split(b"\0"):
        if line:
            about, _, path = line.partition(b"\t")
            mode, _, identifier, size = about.split()
            found.append(Entry(mode.decode(), identifier.decode(), os.fsdecode(path), 0 if size == b"-" else int(size)))
    return found


def fetch_missing(repository: Repository, tree: str) -> None:
    """Fetches the objects of a tree that a partial clone lacks, with one request; git alone makes one for each.

    Raises:
        PackagingError: The remote does not give them.
    """
    while True:
        listed = repository.git("rev-list", "--objects", "--missing=print", tree).splitlines()
        missing = [line[1:] for line in listed if line.startswith(b"?")]
        if not missing:
            return
        try:
            repository.git(
                "-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
                "--recurse-submodules=no", "--no-filter", "--stdin", repository.promisor, input=b"\n".join(missing),
            )  # fmt: skip
        except PackagingError as error:
            raise PackagingError(
                f"{repository} is a partial clone that lacks {len(missing)} objects of the commit, and they cannot be "
                f"fetched: {error}; make the remote reachable, or run 'git fetch --refetch --no-filter' there"
            ) from error


def changes(repository: Repository, old: str, new: str) -> Changes | None:
    """Returns the differences between two trees; None where the repository does not have both, or parts of them."""
    if repository.is_partial:
        return None
    try:
        raw = repository.git("diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", old, new)
    except PackagingError:  # git's error when the tree does not exist
        return None
    fields = raw.split(b"\0")
    lines = [
        (*about.decode().lstrip(":").split()[:4], os.fsdecode(path))
        for about, path in zip(fields[:-1:2], fields[1::2], strict=True)
    ]
    sizes = sizes_of(repository, {i for line in lines for i in line[2:4] if int(i, 16)})
    source = Blobs(repository)
    files, removed, growth = [], [], 0
    for _, mode, before, after, path in lines:
        growth += sizes.get(after, 0) - sizes.get(before, 0)
        if int(after, 16):
            files.append(File(path, mode, after, sizes[after], source, after))
        else:
            removed.append(path)
    return Changes(files, removed, growth, any(LINK in line[:2] for line in lines))


def sizes_of(repository: Repository, identifiers: Iterable[str]) -> dict[str, int]:
    """Returns the bytes of objects by id, of those that exist."""
    asked = "".join(f"{identifier}\n" for identifier in identifiers)
    if not asked:
        return {}
    answer = repository.git("cat-file", "--batch-check=%(objectname) %(objectsize)", input=asked.encode())
    pairs = (line.split() for line in answer.decode().splitlines())
    return {identifier: int(size) for identifier, size in pairs if size.isdigit()}


def edit_tree(scratch: Repository, tree: str, changed: Mapping[str, tuple[str, str] | None]) -> str:
    """Makes a changed copy of a tree, reading only folders with changes.

    Args:
        scratch: Where to write the new trees; see :meth:`Repository.scratch`.
        tree: Id of the other tree.
        changed: Mode and id by path; None for a removed entry.

    Returns:
        The id of the new tree.
    """
    with reader(scratch) as read:
        # A file may replace a folder, and the reverse: remove everything first, then add.
        for some in (
            {path: what for path, what in changed.items() if what is None},
            {path: what for path, what in changed.items() if what is not None},
        ):
            if some:
                tree = _edit(scratch, read, tree, _nested(some)) or scratch.write_object(
                    "tree", b"", algorithm_of(tree)
                )
    return tree


def _nested(paths: Mapping[str, Any]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for path, what in paths.items():
        folder = root
        *above, name = path.split("/")
        for part in above:
            folder = folder.setdefault(part, {})
        folder[name] = what
    return root


def _edit(scratch: Repository, read: Callable[[str], bytes], tree: str, changed: Mapping[str, Any]) -> str:
    found = _parse(read(tree), len(tree) // 2)
    algorithm = algorithm_of(tree)
    for name, what in changed.items():
        if isinstance(what, dict):
            mode, identifier = found.get(name, ("", ""))
            if mode != FOLDER:
                if not any(_leaves(what)):
                    continue  # the entries below it are already removed
                identifier = scratch.write_object("tree", b"", algorithm)
            inside = _edit(scratch, read, identifier, what)
            what = (FOLDER, inside) if inside else None
        if what is None:
            found.pop(name, None)
        else:
            found[name] = what
    return scratch.write_object("tree", tree_object(found), algorithm) if found else ""


def _leaves(changed: Mapping[str, Any]) -> Iterator[Any]:
    for what in changed.values():
        if isinstance(what, dict):
            yield from _leaves(what)
        else:
            yield what


def _parse(data: bytes, width: int) -> dict[str, tuple[str, str]]:
    found = {}
    position = 0
    while position < len(data):
        end = data.index(b"\0", position)
        mode, _, name = data[position:end].partition(b" ")
        position = end + 1 + width
        found[os.fsdecode(name)] = (mode.decode(), data[end + 1 : position].hex())
    return found
