"""Which files differ between two states of a repository: commits with uncommitted changes, or the working tree."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
from pathlib import Path

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.git import lfs
from nemo_airflow.packaging.git.objects import reader, sizes_of
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.git.state import NO_LFS
from nemo_airflow.packaging.git.worktree import is_bytecode


@dataclasses.dataclass(frozen=True)
class CodeState:
    """A state of the code.

    Attributes:
        commit: A commit; empty for the working tree.
        patch: Uncommitted changes on top of the commit, as a package records them.
        subpath: The compared folder of the repository; empty for all of it.
        folder: The folder of the package with which the patch's paths begin, instead of ``subpath``.
    """

    commit: str = ""
    patch: str = ""
    subpath: str = ""
    folder: str = ""


@dataclasses.dataclass(frozen=True)
class FileChange:
    """One file that differs.

    Attributes:
        kind: ``A`` added, ``D`` deleted, ``M`` changed, ``T`` of another type.
        path: Its path from the repository's top, or from the folder in it that is compared.
        added: Lines that were added; None for a binary file.
        deleted: Lines that were deleted; None for a binary file.
    """

    kind: str
    path: str
    added: int | None = None
    deleted: int | None = None

    def to_text(self) -> str:
        """Returns the change as one line."""
        lines = "binary" if self.added is None else f"+{self.added} -{self.deleted}"
        return f"{self.kind} {self.path} ({lines})"


def code_changes(folder: Path, old: CodeState, new: CodeState) -> list[FileChange]:
    """Returns the files that differ, by path. Nothing is written into the repository.

    Args:
        folder: A folder in the repository.
        old: The state before.
        new: The state after.

    Raises:
        NotARepositoryError: The folder is in no repository.
        PackagingError: The repository lacks a commit, or a patch does not fit its commit.
    """
    repository = Repository.at(folder)
    with repository.scratch() as scratch:
        trees = [_inside(scratch, tree_of(scratch, state), state) for state in (old, new)]
        names = scratch.git("diff-tree", "-r", "-z", "--name-status", "--no-renames", *trees)
        counts = scratch.git("diff-tree", "-r", "-z", "--numstat", "--no-renames", *trees)
    fields = names.decode("utf-8", "surrogateescape").split("\0")[:-1]
    lines = {}
    for entry in counts.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        added, deleted, path = entry.split("\t", 2)
        lines[path] = (None, None) if added == "-" else (int(added), int(deleted))
    with_bytecode = old.commit and new.commit
    return [
        FileChange(kind, path, *lines.get(path, (None, None)))
        for kind, path in zip(*[iter(fields)] * 2, strict=True)
        if with_bytecode or not is_bytecode(path)
    ]


def has_commit(repository: Repository, commit: str) -> bool:
    """Returns whether a repository has a commit."""
    try:
        repository.git("cat-file", "-e", f"{commit}^{{commit}}")
    except PackagingError:  # git's error when it does not
        return False
    return True


def _inside(scratch: Repository, tree: str, state: CodeState) -> str:
    if not state.subpath:
        return tree
    try:
        return scratch.text("rev-parse", "--verify", "--quiet", f"{tree}:{state.subpath}")
    except PackagingError as error:
        when = f"at {state.commit[:12]}" if state.commit else "as it is now"
        raise PackagingError(f"{state.subpath} is not a folder of {scratch} {when}") from error


def _tree_of_files(scratch: Repository) -> str:
    """Returns the id of the tree of the working tree's files.

    A copy of the repository's index tells which files are unchanged, and which a sparse checkout leaves out.
    """
    with contextlib.suppress(FileNotFoundError):  # where nothing was added yet; with its time, which git looks at
        shutil.copy2(scratch.git_folder / "index", scratch.env["GIT_INDEX_FILE"])
    scratch.git("-c", "core.splitIndex=false", *NO_LFS, "add", "--all", ".")
    _restore_pointers(scratch)
    return scratch.text(*NO_LFS, "write-tree")


def _restore_pointers(scratch: Repository) -> None:
    """Replaces the content of files of Git LFS in the index, if it is as committed, by their committed pointers.

    Git LFS itself is not asked: it would write the content into the repository.
    """
    try:
        raw = scratch.git("diff-index", "--cached", "-z", "--raw", "--no-renames", "--no-abbrev", "HEAD")
    except PackagingError:  # git's error where there is no commit yet
        return
    fields = raw.split(b"\0")
    before = {
        os.fsdecode(path): about.decode().split() for about, path in zip(fields[:-1:2], fields[1::2], strict=True)
    }
    sizes = sizes_of(scratch, {about[2] for about in before.values() if about[4] == "M"})
    same = []
    with reader(scratch) as read:
        for path, (_, mode, old, _, _) in before.items():
            file = scratch.folder / path
            if 0 < sizes.get(old, 0) <= lfs.LARGEST_POINTER and (pointer := lfs.pointer(read(old))) is not None:
                with file.open("rb") as content:
                    is_same = hashlib.file_digest(content, "sha256").hexdigest() == pointer.oid
                same += [f"{mode} {old}\t{path}\0"] * is_same
    scratch.git(*NO_LFS, "update-index", "-z", "--index-info", input=os.fsencode("".join(same)))


def tree_of(scratch: Repository, state: CodeState) -> str:
    """Returns the id of the tree of a whole repository in a state.

    Args:
        scratch: The repository, with an index that may be written.
        state: The state; its ``subpath`` only says where its patch belongs.

    Raises:
        PackagingError: The repository lacks the commit, or the patch does not fit it.
    """
    if not state.commit:
        return _tree_of_files(scratch)
    if not has_commit(scratch, state.commit):
        raise PackagingError(
            f"commit {state.commit[:12]} is not in {scratch}: fetch it, or name the repository that has it"
        )
    if not state.patch:
        return scratch.text("rev-parse", f"{state.commit}^{{tree}}")
    scratch.git("read-tree", state.commit)
    # Strip a/FOLDER from the patch's paths: it is not part of the repository's.
    where = [f"-p{1 + len(state.folder.split('/'))}"] if state.folder else []
    where += [f"--directory={state.subpath}"] if state.subpath else []
    try:
        scratch.git(
            "apply", "--cached", "--whitespace=nowarn", *where, "-",
            input=state.patch.encode("utf-8", "surrogateescape"),
        )  # fmt: skip
    except PackagingError as error:
        raise PackagingError(
            f"the changes that were recorded on top of {state.commit[:12]} cannot be applied: {error}"
        ) from error
    return scratch.text("write-tree")
