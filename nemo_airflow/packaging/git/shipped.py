"""Turns a tree of a repository into files, applying attributes, LFS pointers and submodules."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from nemo_airflow.exceptions import NotARepositoryError, PackagingError
from nemo_airflow.packaging.content import SHA256_DIGITS, File, Memory, blob_id, read, start_hash
from nemo_airflow.packaging.git import attributes, lfs
from nemo_airflow.packaging.git.objects import SUBMODULE, Blobs, Entry, entries, reader
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.patterns import Patterns

LfsChoice = Literal["resolve", "refuse", "pointer"]


@dataclasses.dataclass(frozen=True)
class Rules:
    """Options for turning a tree into files.

    Attributes:
        subpath: Ship this folder only, as the package's root.
        submodules: Whether submodules are shipped.
        lfs: What to do with pointers of Git LFS.
        checkout: Another folder in which submodules may be checked out, or None.
        known: Git's ids of LFS contents by their SHA-256; grows.
        exclude: Patterns of files not to ship.
        seen: Paths that were compared with these; grows.
        above: Path of this repository from the top of the outermost, with a slash at the end, or empty.
    """

    subpath: str
    submodules: bool
    lfs: LfsChoice
    checkout: Path | None
    known: dict[str, str]
    exclude: Patterns
    seen: list[str]
    above: str = ""

    @property
    def below(self) -> str:
        """Beginning of the paths of shipped files in the repository."""
        return f"{self.subpath}/" if self.subpath else ""

    def leave_out(self, path: str) -> bool:
        """Returns whether a file of this repository, or a submodule with a slash at the end, is excluded."""
        if not self.exclude:
            return False
        self.seen.append(self.above + path)
        return self.exclude.match(self.above + path)


def is_plain(repository: Repository, found: Sequence[Entry], rules: Rules) -> bool:
    """Returns whether a tree's files are shipped unchanged, without attributes, LFS or submodules.

    Args:
        repository: The repository.
        found: All entries of the tree.
        rules: The rules.
    """
    for entry in found:
        if entry.mode == SUBMODULE and (entry.path.startswith(rules.below) or rules.below.startswith(f"{entry.path}/")):
            return False
    exports, uses_lfs = _what_attributes_do(repository, attributes.attribute_files(found), rules)
    return not exports and not uses_lfs


def list_files(repository: Repository, commit: str, tree: str, rules: Rules) -> list[File]:
    """Returns the files of the package of a tree.

    Args:
        repository: A scratch repository.
        commit: Commit for the formats of ``export-subst``.
        tree: The whole tree, not that of the subpath.
        rules: The rules.

    Raises:
        PackagingError: A submodule, or the content of an LFS file, is missing; or LFS files are refused.
    """
    return [
        file._replace(path=file.path.removeprefix(rules.below))
        for file in _files(repository, commit, tree, rules, rules.below)
    ]


def name_by_sha1(files: Sequence[File], known: dict[str, str]) -> list[File]:
    """Returns the files with the ids that a repository with SHA-1 names gives their bytes.

    Args:
        files: The files; those of a repository with SHA-256 names have its ids.
        known: Known SHA-1 ids by SHA-256 id; grows by those of files that are read.
    """
    unknown = [file for file in files if len(file.blob) == SHA256_DIGITS and file.blob not in known]
    for file, blocks in read(unknown):
        digest = start_hash(file.size)
        for block in blocks:
            digest.update(block)
        known[file.blob] = digest.hexdigest()
    return [file._replace(blob=known.get(file.blob, file.blob)) for file in files]


def _files(repository: Repository, commit: str, tree: str, rules: Rules, below: str) -> Iterator[File]:
    everything = entries(repository, tree)
    found = [
        entry
        for entry in everything
        if (entry.path.startswith(below) or below.startswith(f"{entry.path}/"))
        and not rules.leave_out(f"{entry.path}/" if entry.mode == SUBMODULE else entry.path)
    ]
    about = attributes.attribute_files(everything)
    exports, uses_lfs = _what_attributes_do(repository, about, rules)
    filled: set[str] = set()
    if exports:
        found, filled = attributes.find_exported(repository, about, found)
    special = _formats(repository, commit, [e for e in found if e.path in filled]) if filled else {}
    if uses_lfs:
        special |= _pointers(repository, [e for e in found if e.size <= lfs.LARGEST_POINTER], rules)
    source = Blobs(repository)
    for entry in found:
        if entry.mode == SUBMODULE:
            if rules.submodules:
                yield from _submodule(repository, entry, rules, below)
        elif entry.path.startswith(below):
            yield special.get(entry.path) or File(entry.path, entry.mode, entry.id, entry.size, source, entry.id)


def _what_attributes_do(repository: Repository, about: Sequence[Entry], rules: Rules) -> tuple[bool, bool]:
    """Returns whether attributes change the export, and whether there may be LFS files."""
    if not about:
        return False, False
    with reader(repository) as read:
        texts = [read(entry.id) for entry in about]
    uses_lfs = rules.lfs != "pointer" and any(map(lfs.is_used, texts))
    return any(b"export-" in text or b"[attr]" in text for text in texts), uses_lfs


def _formats(repository: Repository, commit: str, found: Sequence[Entry]) -> dict[str, File]:
    """Returns the files with ``export-subst`` formats filled in."""
    data: dict[str, bytes] = {}
    files: dict[str, File] = {}
    memory = Memory(data)
    with reader(repository) as read:
        for entry in found:
            if not entry.mode.startswith("100"):
                continue
            before = read(entry.id)
            after = attributes.fill(repository, commit, before)
            if after != before:
                data[entry.path] = after
                files[entry.path] = File(entry.path, entry.mode, blob_id(after), len(after), memory, entry.path)
    return files


def _pointers(repository: Repository, found: Sequence[Entry], rules: Rules) -> dict[str, File]:
    """Returns the files of the LFS pointers among the entries."""
    source = Blobs(repository)
    found = [entry for entry in found if entry.mode.startswith("100")]
    with source.reading([File(e.path, e.mode, e.id, e.size, source, e.id) for e in found]) as texts:
        pointers = [
            (entry, what)
            for entry, text in zip(found, texts, strict=True)
            if (what := lfs.pointer(b"".join(text))) is not None
        ]
    if pointers and rules.lfs == "refuse":
        raise lfs.make_refusal(repository, [entry.path for entry, _ in pointers], missing=False)
    objects = lfs.Objects(repository, rules.known) if pointers else None
    files = {entry.path: objects.resolve(entry, what) for entry, what in pointers} if objects else {}
    if missing := [path for path, file in files.items() if file is None]:
        raise lfs.make_refusal(repository, missing, missing=True)
    return {path: file for path, file in files.items() if file is not None}


def _submodule(repository: Repository, entry: Entry, rules: Rules, below: str) -> Iterator[File]:
    """Yields the files of a submodule and of nested ones, at their recorded commits."""
    inner = _checked_out(repository, entry, rules)
    # Only files below the subpath, where that is inside the submodule.
    inside = below.removeprefix(f"{entry.path}/") if below.startswith(f"{entry.path}/") else ""
    checkout = rules.checkout / entry.path if rules.checkout else None
    deeper = dataclasses.replace(rules, checkout=checkout, above=f"{rules.above}{entry.path}/")
    tree = inner.text("rev-parse", f"{entry.id}^{{tree}}")
    for file in _files(inner, entry.id, tree, deeper, inside):
        yield file._replace(path=f"{entry.path}/{file.path}")


def _checked_out(repository: Repository, entry: Entry, rules: Rules) -> Repository:
    advice = "run 'git submodule update --init --recursive', or give include_submodules=False"
    for above in filter(None, (None if repository.bare else repository.folder, rules.checkout)):
        folder = above / entry.path
        if (folder / ".git").exists():
            try:
                inner = Repository.at(folder)
                inner.git("cat-file", "-e", f"{entry.id}^{{commit}}")
            except NotARepositoryError:
                continue
            except PackagingError as error:
                raise PackagingError(
                    f"submodule {entry.path} does not have its recorded commit {entry.id}: {advice}"
                ) from error
            return inner
    raise PackagingError(f"submodule {entry.path} is not checked out: {advice}")
