"""Puts content into a store: whole, or as changes since a package in the store."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.job import PATCH, Package, changes_name
from nemo_airflow.packaging import content as contents
from nemo_airflow.packaging.archive import write_tar
from nemo_airflow.packaging.bases import Base, Bases
from nemo_airflow.packaging.content import LINK, File
from nemo_airflow.runner.unpack import REMOVED
from nemo_airflow.store import PackageStore
from nemo_airflow.store.local import FILES

PATCH_LIMIT = 1 << 20
"""Most bytes of a patch in the package's description; a larger one is only in the stores."""

_SMALL = 256 << 10
"""Bytes of content below which a package is always packed whole."""

_SHARE = 4
"""Changes of more than one part in this many are packed whole."""


class Changes(NamedTuple):
    """Differences from an earlier package.

    Attributes:
        files: Files that are new or changed.
        removed: Paths of removed files.
        growth: Bytes by which the whole has grown.
        links: Whether a link is new, changed or removed.
        known: The paths of the earlier package, where both were compared file by file.
    """

    files: Sequence[File]
    removed: Sequence[str]
    growth: int
    links: bool
    known: frozenset[str] = frozenset()


class Part(NamedTuple):
    """One part of a package with several.

    Attributes:
        prefix: Its folder in the package; empty for the root.
        kind: Its packager.
        commit: See :class:`~nemo_airflow.job.Package`.
        origin: The same.
        subpath: The folder of its repository that it ships; empty for all of it.
        patch: As of :class:`Content`.
    """

    prefix: str
    kind: str
    commit: str
    origin: str
    subpath: str
    patch: Callable[[str | None], bytes]

    def to_json(self) -> dict[str, str]:
        """Returns the part for the package's description."""
        return {name: value for name, value in self._asdict().items() if name != "patch"}


class Content:
    """The content to pack.

    Args:
        tree: Git's id of the tree of the files; computed where it is empty.
        files: Returns the files.
        changes: Returns the changes since the package of another tree; None where that needs all files.
        commit: See :class:`~nemo_airflow.job.Package`.
        origin: The same.
        branch: The same.
        patch: Returns the uncommitted changes. Paths are those of the repository for None, else those of
            the package's files, below the folder that is given.
        dirty: Whether there are uncommitted changes.
        subpath: The folder of the repository that is shipped; empty for all of it.
        parts: Its parts, if it has several.
        included: See :class:`~nemo_airflow.job.Package`.
        excluded: The same.
    """

    def __init__(
        self,
        files: Callable[[], Iterable[File]],
        tree: str = "",
        changes: Callable[[str], Changes | None] = lambda tree: None,
        *,
        commit: str = "",
        origin: str = "",
        branch: str = "",
        patch: Callable[[str | None], bytes] = lambda folder: b"",
        dirty: bool = False,
        subpath: str = "",
        parts: Sequence[Part] = (),
        included: Mapping[str, str] | None = None,
        excluded: Sequence[str] = (),
    ) -> None:
        self._list = files
        self._files: list[File] | None = None
        self.changes = changes
        self.commit, self.origin, self.branch, self.patch, self.dirty = commit, origin, branch, patch, dirty
        self.subpath, self.parts = subpath, tuple(parts)
        self.included, self.excluded = included or {}, tuple(excluded)
        self.tree = tree or contents.tree_id(self.files())

    def files(self) -> list[File]:
        """Returns the files, in the order in which they are packed."""
        if self._files is None:
            self._files = contents.in_order(self._list())
        return self._files


def pack(content: Content, store: PackageStore, bases: Bases, formats: Sequence[str], max_size: int) -> Package:
    """Puts content into the store, unless it is already there.

    Args:
        content: What to pack.
        store: Where archives are kept.
        bases: Earlier versions of the same code.
        formats: ``tar.gz``, ``tar.zst`` or both: an existing archive in any of them is used. A new one is packed in the
            first; changes in the format of the package that they change.
        max_size: Bytes that the files may have together, unpacked.

    Raises:
        PackagingError: There is nothing to pack, or too much, or a link points outside the package.
    """
    digest = contents.package_digest(content.tree)
    package = _known(store, bases, digest, formats)
    if package is None:
        with store.writing_alone(digest):
            package = _known(store, bases, digest, formats) or _write(content, store, bases, digest, formats, max_size)
    if not package.base:
        _remember(content, store, bases, package)
    # Written for each package: the same files may come from another commit and patch.
    patch = content.patch(None)
    patch_digest = hashlib.sha256(patch).hexdigest() if patch else ""
    if patch:
        with store.write(changes_name(digest, patch_digest), PATCH) as file:
            file.write(patch)
    # A patch is bytes: those that are not UTF-8 become surrogates.
    text = patch.decode("utf-8", "surrogateescape") if len(patch) <= PATCH_LIMIT else ""
    return Package(
        digest, package.format, package.size, content.commit, content.dirty, text, content.origin,
        package.base, package.base_size, tuple(part.to_json() for part in content.parts), content.included,
        patch_digest, content.excluded, branch=content.branch,
    )  # fmt: skip


def _known(store: PackageStore, bases: Bases, digest: str, formats: Sequence[str]) -> Package | None:
    for format in formats:
        if store.has(digest, format):
            return Package(digest, format, store.path(digest, format).stat().st_size)
    for base in bases:
        changes = changes_name(digest, base.digest)
        if base.format in formats and store.has(changes, base.format) and store.has(base.digest, base.format):
            return _of_two(store, digest, base)
    return None


def _of_two(store: PackageStore, digest: str, base: Base) -> Package:
    base_size = store.path(base.digest, base.format).stat().st_size
    size = store.path(changes_name(digest, base.digest), base.format).stat().st_size
    return Package(digest, base.format, base_size + size, base=base.digest, base_size=base_size)


def _remember(content: Content, store: PackageStore, bases: Bases, package: Package) -> None:
    """Remembers a package that is whole in the store, by whomever it was packed."""
    if bases.newest and bases.newest[1:3] == (package.digest, package.format):
        return
    files = content.files()
    if not store.has(package.digest, FILES):
        _keep_list(store, package.digest, files)
    size = sum(file.size for file in files)
    bases.add(Base(bases.code, package.digest, package.format, content.tree, size))


def _write(
    content: Content, store: PackageStore, bases: Bases, digest: str, formats: Sequence[str], max_size: int
) -> Package:
    for base in bases.to_compare():
        if base.size < _SMALL or base.format not in formats or not store.has(base.digest, base.format):
            continue
        changes = content.changes(base.tree) or compare_with(content, store, base.digest)
        if changes is not None and _is_worth_it(changes, base):
            if changes.links:
                contents.check_links(content.files())
            if base.size + changes.growth > max_size:
                contents.check_size(content.files(), max_size)
            removed = b"".join(b"\0" + os.fsencode(path) for path in sorted(changes.removed))
            with store.write(changes_name(digest, base.digest), base.format) as file:
                write_tar(contents.in_order(changes.files), file, base.format, first=(REMOVED, removed))
            return _of_two(store, digest, base)
    format = formats[0]
    files = content.files()
    if not files:
        raise PackagingError("there are no files to package: check the packager's path, subpath and patterns")
    contents.check_size(files, max_size)
    contents.check_links(files)
    with store.write(digest, format) as file:
        write_tar(files, file, format)
    return Package(digest, format, store.path(digest, format).stat().st_size)


def _is_worth_it(changes: Changes, base: Base) -> bool:
    return sum(file.size for file in changes.files) * _SHARE <= base.size


def _keep_list(store: PackageStore, digest: str, files: Sequence[File]) -> None:
    text = b"".join(b"%s %s %d %s\0" % (f.mode.encode(), f.blob.encode(), f.size, os.fsencode(f.path)) for f in files)
    with store.write(digest, FILES) as file:
        file.write(zlib.compress(text, 1))


def compare_with(content: Content, store: PackageStore, base: str) -> Changes | None:
    """Compares all files with those of a package that is whole in the store; None where its list is not kept."""
    if not store.has(base, FILES):
        return None
    before: dict[str, tuple[str, str, int]] = {}
    for line in zlib.decompress(store.path(base, FILES).read_bytes()).split(b"\0"):
        if line:
            *about, name = line.split(b" ", 3)
            before[os.fsdecode(name)] = (about[0].decode(), about[1].decode(), int(about[2]))
    files, growth, links, known = [], 0, False, frozenset(before)
    for file in content.files():
        mode, blob, size = before.pop(file.path, ("", "", 0))
        if (mode, blob) != (file.mode, file.blob):
            files.append(file)
            growth += file.size - size
            links = links or LINK in (mode, file.mode)
    growth -= sum(size for _, _, size in before.values())
    links = links or any(mode == LINK for mode, _, _ in before.values())
    return Changes(files, list(before), growth, links, known)
