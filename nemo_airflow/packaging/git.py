"""Packages a git repository: a commit, and on wish what has not been committed yet."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO, ClassVar, Literal, cast

from nemo_airflow.exceptions import NotARepositoryError, PackagingError, UncommittedChangesError
from nemo_airflow.job import Package
from nemo_airflow.packaging.base import Packager
from nemo_airflow.packaging.repository import Repository
from nemo_airflow.packaging.store import PackageStore

Choice = Literal["refuse", "include", "ignore"]

PATCH_LIMIT = 1 << 20
"""Bytes of a patch that is kept with the package's description; a larger one is kept in the store only."""

_SHOWN_FILES = 10
_CHUNK = 1 << 20

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GitArchivePackager(Packager):
    """Ships what is committed in a git repository, as ``git archive`` does.

    The digest is made of git's own tree ids, which name contents: the same content has the same
    digest on any machine, and for a clean working tree no file is read. Nothing is written into
    the repository.

    Attributes:
        path: A folder in the repository; the DAG bundle's folder when None.
        subpath: Ship this folder only, as the root of the package; relative to the repository's top.
        ref: The commit, branch or tag.
        uncommitted: What to do with changes of tracked files: ``refuse`` to package, ``include``
            them, recorded as a patch, or ``ignore`` them, with a warning that names the files.
        untracked: The same for files that git does not know and does not ignore.
        include_submodules: Whether submodules are shipped, at their recorded commits.
    """

    kind: ClassVar[str] = "git"

    path: str | None = None
    subpath: str = ""
    ref: str = "HEAD"
    uncommitted: Choice = "refuse"
    untracked: Choice = "refuse"
    include_submodules: bool = True

    def __post_init__(self) -> None:
        for name in ("uncommitted", "untracked"):
            if getattr(self, name) not in ("refuse", "include", "ignore"):
                raise PackagingError(f"{name}={getattr(self, name)!r} is not one of 'refuse', 'include', 'ignore'")

    def package(self, store: PackageStore, *, root: Path | None = None) -> Package:
        """See :meth:`Packager.package`."""
        folder = Path(self.path).expanduser() if self.path else root
        if folder is None:
            raise NotARepositoryError(
                "GitArchivePackager has no path, and there is no DAG bundle to take it from: give path=..."
            )
        repository = Repository.at(folder)
        commit = self._commit(repository)
        changes = self._changes(repository, commit)
        with repository.scratch() as scratch:
            tree = self._tree(scratch, commit, changes)
            parts = [Part("", scratch, self._inside(scratch, tree)), *self._submodules(scratch, tree)]
            digest = _digest(parts)
            if not store.has(digest):
                _check_links(parts)
                with store.write(digest) as file:
                    _write(parts, file)
            patch = _patch(scratch, commit, tree) if changes.included else b""
        if len(patch) > PATCH_LIMIT:
            with store.write(digest, "patch") as file:
                file.write(patch)
        text = patch.decode("utf-8", "backslashreplace") if len(patch) <= PATCH_LIMIT else ""
        size = store.path(digest).stat().st_size
        return Package(digest, "tar.gz", size, commit, bool(changes.included), text, repository.origin())

    def _commit(self, repository: Repository) -> str:
        try:
            return repository.text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.ref}^{{commit}}")
        except PackagingError as error:
            if self.ref == "HEAD":
                raise NotARepositoryError(f"{repository.folder} has no commit yet: commit first") from error
            raise PackagingError(f"ref={self.ref!r} is no commit, branch or tag of {repository.folder}") from error

    def _changes(self, repository: Repository, commit: str) -> Changes:
        """Returns what is to be included of the working tree, after refusing what is to be refused."""
        if repository.bare or repository.text("rev-parse", "HEAD") != commit:
            return Changes()  # the working tree is not that of this commit
        where = ["--", self.subpath] if self.subpath else []
        status = repository.git(
            "status", "--porcelain", "-z", "--untracked-files=all", "--no-renames", "--ignore-submodules=none", *where
        )
        entries = [entry for entry in status.decode("utf-8", "surrogateescape").split("\0") if entry]
        changed = [entry[3:] for entry in entries if not entry.startswith("??")]
        unknown = [entry[3:] for entry in entries if entry.startswith("??")]
        for name, files in (("uncommitted", changed), ("untracked", unknown)):
            self._judge(repository, name, files)
        return Changes(changed if self.uncommitted == "include" else [], unknown if self.untracked == "include" else [])

    def _judge(self, repository: Repository, name: str, files: Sequence[str]) -> None:
        choice = getattr(self, name)
        if files and choice == "refuse":
            raise UncommittedChangesError(
                f"{repository.folder} has {name} files: {_listed(files)}; "
                f"commit them, or give GitArchivePackager {name}='include' or {name}='ignore'"
            )
        if files and choice == "ignore":
            _log.warning("%s files of %s are not in the package: %s", name, repository.folder, _listed(files))

    def _tree(self, scratch: Repository, commit: str, changes: Changes) -> str:
        """Returns the id of the tree to ship, made of the commit and the included changes."""
        if not changes.included:
            return scratch.text("rev-parse", f"{commit}^{{tree}}")
        if not changes.uncommitted:
            scratch.git("read-tree", commit)
        names = "".join(f"{name}\0" for name in (*changes.uncommitted, *changes.untracked))
        scratch.git(
            "update-index", "--add", "--remove", "-z", "--stdin", input=names.encode("utf-8", "surrogateescape")
        )
        return scratch.text("write-tree")

    def _inside(self, scratch: Repository, tree: str) -> str:
        """Returns the id of the subpath's tree."""
        if not self.subpath:
            return tree
        subpath = self.subpath.strip("/")
        try:
            found = scratch.text("rev-parse", "--verify", "--quiet", f"{tree}:{subpath}")
            return scratch.text("rev-parse", "--verify", "--quiet", f"{found}^{{tree}}")
        except PackagingError as error:
            raise PackagingError(
                f"subpath={self.subpath!r} is not a folder of {scratch.folder} at {self.ref}"
            ) from error

    def _submodules(self, repository: Repository, tree: str, above: str = "") -> Iterator[Part]:
        """Yields the submodules below the subpath, and theirs, at the commits that are recorded."""
        if not self.include_submodules or not repository.git("ls-tree", tree, ".gitmodules"):
            return
        subpath = f"{self.subpath.strip('/')}/" if self.subpath else ""
        for mode, commit, name in _entries(repository, tree):
            path = f"{above}{name}"
            if mode != "160000" or not path.startswith(subpath):
                continue
            inner = self._submodule(repository.folder / name, path, commit)
            inner_tree = inner.text("rev-parse", f"{commit}^{{tree}}")
            yield Part(f"{path.removeprefix(subpath)}/", inner, inner_tree)
            yield from self._submodules(inner, inner_tree, f"{path}/")

    def _submodule(self, folder: Path, path: str, commit: str) -> Repository:
        advice = "run 'git submodule update --init --recursive', or give include_submodules=False"
        if not (folder / ".git").exists():
            raise PackagingError(f"submodule {path} is not checked out: {advice}")
        inner = Repository.at(folder)
        try:
            inner.git("cat-file", "-e", f"{commit}^{{commit}}")
        except PackagingError as error:
            raise PackagingError(f"submodule {path} does not have its recorded commit {commit}: {advice}") from error
        return inner


@dataclasses.dataclass(frozen=True)
class Changes:
    """What of the working tree goes along, by path from its top."""

    uncommitted: Sequence[str] = ()
    untracked: Sequence[str] = ()

    @property
    def included(self) -> bool:
        """Whether there is anything."""
        return bool(self.uncommitted or self.untracked)


@dataclasses.dataclass(frozen=True)
class Part:
    """A tree, and where in the package it goes: the repository's own, or a submodule's."""

    prefix: str
    repository: Repository
    tree: str


def _digest(parts: Sequence[Part]) -> str:
    text = "nemo-airflow git package 1\n" + "".join(f"{part.tree} {part.prefix}\n" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _entries(repository: Repository, tree: str) -> Iterator[tuple[str, str, str]]:
    """Yields mode, object id and path of all that is in a tree."""
    for line in repository.git("ls-tree", "-r", "-z", tree).decode("utf-8", "surrogateescape").split("\0"):
        if line:
            about, _, path = line.partition("\t")
            mode, _, identifier = about.split(" ")
            yield mode, identifier, path


def _check_links(parts: Sequence[Part]) -> None:
    """Refuses links that leave the package: on another machine they lead to something else."""
    for part in parts:
        for mode, identifier, path in _entries(part.repository, part.tree):
            if mode != "120000":
                continue
            target = part.repository.git("cat-file", "blob", identifier).decode("utf-8", "surrogateescape")
            reached = posixpath.normpath(posixpath.join(posixpath.dirname(part.prefix + path), target))
            if posixpath.isabs(target) or reached.split("/")[0] == "..":
                raise PackagingError(
                    f"link {part.prefix}{path} leads to {target}, out of the package: "
                    "commit the file itself, or leave the link out"
                )


def _patch(scratch: Repository, commit: str, tree: str) -> bytes:
    return scratch.git(
        "diff-tree", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", commit, tree
    )


def _write(parts: Sequence[Part], file: BinaryIO) -> None:
    """Writes the archive, packed fast: it is read once, soon, and over a network if at all."""
    packed = _Gzip(file)
    if len(parts) == 1:
        with _archive(parts[0]) as tar:
            while data := tar.read(_CHUNK):
                packed.write(data)
    else:
        with tarfile.open(fileobj=cast("IO[bytes]", packed), mode="w|", format=tarfile.PAX_FORMAT) as whole:
            for part in parts:
                _append(part, whole)
    packed.finish()


@contextlib.contextmanager
def _archive(part: Part) -> Iterator[IO[bytes]]:
    """Gives the tar stream of a part."""
    with part.repository.scratch() as scratch:
        # Of a bare tree, git archive stamps the present time on the files; of a commit, the commit's.
        commit = scratch.text("commit-tree", part.tree, "-m", "package")
        with scratch.stream("archive", "--format=tar", f"--prefix={part.prefix}", commit) as stream:
            yield stream


def _append(part: Part, whole: tarfile.TarFile) -> None:
    with _archive(part) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            whole.addfile(member, tar.extractfile(member) if member.isfile() else None)


class _Gzip:
    """Writes a gzip file whose bytes follow from the data: no name, no time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._packer = zlib.compressobj(1, zlib.DEFLATED, 31)

    def write(self, data: bytes) -> int:
        """Packs data."""
        self._file.write(self._packer.compress(data))
        return len(data)

    def finish(self) -> None:
        """Writes what is left."""
        self._file.write(self._packer.flush())


def _listed(files: Sequence[str]) -> str:
    shown = ", ".join(os.fsencode(file).decode("utf-8", "backslashreplace") for file in files[:_SHOWN_FILES])
    return f"{shown} and {len(files) - _SHOWN_FILES} more" if len(files) > _SHOWN_FILES else shown
