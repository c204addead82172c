"""Packages a git repository: a commit, optionally with uncommitted changes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from nemo_airflow.exceptions import NotARepositoryError, PackagingError, UncommittedChangesError
from nemo_airflow.job import PATCH, Package
from nemo_airflow.packaging import notes as noted
from nemo_airflow.packaging.base import ContentPackager
from nemo_airflow.packaging.content import File, algorithm_of, format_path, list_paths, tree_id
from nemo_airflow.packaging.disk import identify_files
from nemo_airflow.packaging.git.attributes import NAME as ATTRIBUTES
from nemo_airflow.packaging.git.objects import SUBMODULE, Blobs, Entry, changes, edit_tree, entries
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.git.shipped import LfsChoice, Rules, is_plain, list_files, name_by_sha1
from nemo_airflow.packaging.git.state import State
from nemo_airflow.packaging.git.worktree import Changed, find_matching, refuse_repositories, status, untracked_files
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.packing import Content, pack
from nemo_airflow.packaging.patterns import Patterns
from nemo_airflow.store import PackageStore

Choice = Literal["refuse", "include", "ignore"]

_CHOICES = {
    "uncommitted": ("refuse", "include", "ignore"),
    "untracked": ("refuse", "include", "ignore"),
    "lfs": ("resolve", "refuse", "pointer"),
}
_KEPT = 4
"""Packages and commits that are cached for each repository."""

_LISTED = 10_000
"""Most included files that are listed; more are recorded as one id, that of their tree."""

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GitArchivePackager(ContentPackager):
    """Ships the committed files of a git repository, like ``git archive``.

    The digest is made from git's tree ids, which identify contents: the same content has the same
    digest on any machine, and for a clean working tree no file is read. Nothing is written into
    the repository.

    Attributes:
        path: A folder in the repository; the DAG bundle's folder when None.
        subpath: Ship this folder only, as the root of the package; relative to the repository's top.
        ref: The commit, branch or tag, shipped as committed whatever the working tree has. Changes in the working
            tree of this very commit are shipped too if they are to be included.
        uncommitted: What to do with changes of tracked files: ``refuse`` to package, ``include``
            them, recorded as a patch, or ``ignore`` them, with a warning that names the files.
        untracked: The same for files that git neither tracks nor ignores.
        include: Patterns, as in a ``.gitignore`` file, of files to ship though git does not track them,
            whether it ignores them or not; relative to the repository's top.
        exclude: Patterns, as in a ``.gitignore`` file, of files not to ship, though git tracks them or ``include``
            matches them; relative to the repository's top.
        include_submodules: Whether submodules are shipped, at their recorded commits.
        lfs: What to do with files of Git LFS: ``resolve`` them, from the objects on this machine,
            ``refuse`` to package, or ship the ``pointer``.
    """

    kind: ClassVar[str] = "git"

    path: str | None = None
    subpath: str = ""
    ref: str = "HEAD"
    uncommitted: Choice = "refuse"
    untracked: Choice = "refuse"
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    include_submodules: bool = True
    lfs: LfsChoice = "resolve"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise PackagingError(f"{name}={getattr(self, name)!r} is not one of {', '.join(map(repr, choices))}")
        for name in ("include", "exclude"):
            Patterns(name, getattr(self, name))

    def package(
        self, store: PackageStore, *, root: Path | None = None, reads_zstd: bool = False, bundle: str = ""
    ) -> Package:
        """See :meth:`ContentPackager.package`."""
        notes = self.notes(store, root)
        state = self._look(root, notes)
        formats = self.formats(reads_zstd)
        for format in formats:
            if known := noted.find(notes.get("packages"), _key(format, state)):
                package = Package.from_json(known)
                names = [(archive.digest, archive.format) for archive in package.archives]
                if package.stored_patch:
                    names.append((package.stored_patch, PATCH))
                if all(store.has(*name) for name in names) and "patch_digest" in known:
                    notes.save()
                    self.bases(store, root, bundle).mark_wanted()
                    return package
        with self._content(state, root, notes) as content:
            package = pack(content, store, self.bases(store, root, bundle), formats, self.max_size)
        if state.is_settled:
            key = _key(package.format, state)
            notes.set("packages", noted.add_recent(notes.get("packages"), key, package.to_json(), _KEPT))
        notes.save()
        return package

    def notes(self, store: PackageStore, root: Path | None) -> Notes:
        """See :meth:`ContentPackager.notes`. All commits of a repository share them."""
        options = json.dumps({**self.to_json(), "ref": ""}, sort_keys=True, default=str)
        folder = Path(self.path).expanduser() if self.path else root
        return Notes(store.folder, f"{options}\n{folder.absolute() if folder else ''}")

    @contextlib.contextmanager
    def content(self, root: Path | None, notes: Notes) -> Iterator[Content]:
        """See :meth:`ContentPackager.content`."""
        with self._content(self._look(root, notes), root, notes) as content:
            yield content

    def _look(self, root: Path | None, notes: Notes) -> State:
        """Returns the state to ship; raises where the options refuse it."""
        folder = Path(self.path).expanduser() if self.path else root
        if folder is None:
            raise NotARepositoryError(
                "GitArchivePackager has no path, and there is no DAG bundle to take it from: give path=..."
            )
        repository = Repository.noted(folder, notes)
        commit = self._commit(repository) if repository.bare or self.ref != "HEAD" else ""
        state = State(repository, commit)
        if not repository.bare and (not commit or self._ships_tree_at(repository, commit)):
            now = status(repository, self._subpath, notes)
            exclude = Patterns("exclude", self.exclude)
            matching = self._included(repository)
            unknown = [path for path in now.untracked if path not in matching]
            if any(path.endswith("/") for path in unknown) and (matching or exclude or self.untracked == "include"):
                unknown = [path for path in untracked_files(repository, unknown) if path not in matching]
            left_out = [path for path in (*matching, *unknown) if exclude.match(path)]
            unknown = [path for path in unknown if not exclude.match(path)]
            changed = [change for change in now.changed if not exclude.match(change.path)]
            self._judge(repository, "uncommitted", [change.path for change in changed])
            self._judge(repository, "untracked", unknown)
            if self.untracked == "include":
                refuse_repositories(repository, unknown)
            state = State(
                repository,
                now.commit,
                self._changed(repository, changed) if self.uncommitted == "include" else [],
                unknown if self.untracked == "include" else [],
                sorted(matching.difference(left_out)),
                left_out,
            )
        elif self.include:
            if repository.bare:
                raise PackagingError(f"include=...: {repository} is bare and has no untracked files: leave include out")
            exclude, matching = Patterns("exclude", self.exclude), self._included(repository)
            left_out = [path for path in matching if exclude.match(path)]
            state = State(repository, commit, included=sorted(matching.difference(left_out)), left_out=left_out)
        return dataclasses.replace(state, branch=repository.branch(self.ref))

    def _ships_tree_at(self, repository: Repository, commit: str) -> bool:
        """Returns whether changes of the working tree are shipped with a given ref: if it is of that commit."""
        if "include" not in (self.uncommitted, self.untracked):
            return False
        try:
            return repository.text("rev-parse", "--verify", "--quiet", "HEAD") == commit
        except PackagingError:  # a branch without a commit yet
            return False

    def _commit(self, repository: Repository) -> str:
        try:
            return repository.text("rev-parse", "--verify", "--quiet", "--end-of-options", f"{self.ref}^{{commit}}")
        except PackagingError as error:
            if self.ref == "HEAD":
                raise NotARepositoryError(f"{repository} has no commit yet: commit first") from error
            raise PackagingError(f"ref={self.ref!r} is not a commit, branch or tag of {repository}") from error

    def _included(self, repository: Repository) -> set[str]:
        if not self.include:
            return set()
        found = find_matching(repository, self.include, self._subpath)
        if unmatched := Patterns("include", self.include).find_unmatched(found):
            raise PackagingError(
                f"include={unmatched!r} matches no file of {repository} that git does not track: "
                "make these files first, or correct the patterns; they are relative to the repository's top"
            )
        return set(found)

    def _check_exclude(self, repository: Repository, paths: Iterable[str]) -> None:
        if unmatched := Patterns("exclude", self.exclude).find_unmatched(paths):
            raise PackagingError(
                f"exclude={unmatched!r} matches no file of {repository} at {self.ref}: correct the patterns or leave "
                "them out; they are relative to the repository's top"
            )

    def _judge(self, repository: Repository, name: str, files: Sequence[str]) -> None:
        choice = getattr(self, name)
        if files and choice == "refuse":
            raise UncommittedChangesError(
                f"{repository} has {name} files: {list_paths(files)}; "
                f"commit them, or give GitArchivePackager {name}='include' or {name}='ignore'"
            )
        if files and choice == "ignore":
            _log.warning("%s files of %s are not in the package: %s", name, repository, list_paths(files))

    def _changed(self, repository: Repository, changed: Sequence[Changed]) -> Sequence[Changed]:
        """Returns the changes; refuses unmerged files, and changes within submodules (shipped as committed)."""
        if unmerged := [change.path for change in changed if change.unmerged]:
            raise UncommittedChangesError(
                f"{repository} has unmerged files, which contain conflict markers: {list_paths(unmerged)}; "
                "resolve them, then 'git add' and commit them"
            )
        inside = [change.path for change in changed if change.submodule[2:].strip(".")]
        if inside and self.include_submodules:
            raise UncommittedChangesError(
                f"submodules of {repository} have uncommitted changes: {list_paths(inside)}; "
                "commit them there, since uncommitted='include' covers only the repository itself"
            )
        return changed

    @contextlib.contextmanager
    def _content(self, state: State, root: Path | None, notes: Notes) -> Iterator[Content]:
        known = dict(notes.get("lfs") or {})
        exclude = Patterns("exclude", self.exclude)
        rules = Rules(self._subpath, self.include_submodules, self.lfs, _checkout(root), known, exclude, [])
        with state.repository.scratch() as scratch:
            committed = scratch.text("rev-parse", f"{state.commit}^{{tree}}")
            try:
                changed = state.ids(scratch, algorithm_of(committed))
            except OSError as error:
                raise PackagingError(
                    f"{error.filename} cannot be read, or changed during packaging: package again"
                ) from error
            tree = edit_tree(scratch, committed, changed) if changed else committed
            about: dict[str, Any] = {
                "commit": state.commit,
                "origin": scratch.origin(),
                "branch": state.branch,
                "dirty": bool(changed),
                "subpath": self._subpath,
                "excluded": tuple(self.exclude),
            }
            if changed:
                about["patch"] = functools.partial(_patch, scratch, state.commit, tree, self._subpath)
            listing = functools.cache(lambda tree: entries(scratch, tree))
            wide = algorithm_of(committed) != "sha1"
            special = bool(state.included or exclude or wide)
            if not special and self._plain(scratch, state.commit, changed, rules, notes, listing, committed):
                inside = self._inside(scratch, tree)
                blobs = Blobs(scratch)
                yield Content(
                    lambda: (File(e.path, e.mode, e.id, e.size, blobs, e.id) for e in listing(inside)),
                    inside,
                    lambda base: changes(scratch, base, inside),
                    **about,
                )
                return
            files = list_files(scratch, state.commit, tree, rules)
            if exclude:
                self._check_exclude(scratch, [*rules.seen, *state.left_out])
            if not files and self._subpath and not rules.seen:
                raise self._no_subpath(scratch)
            if wide:
                names = dict(notes.get("sha1") or {})
                files = name_by_sha1(files, names)
                notes.set("sha1", names)
            if state.included:
                own = {file.path for file in files}
                more = identify_files(state.repository.folder, ((path, None) for path in state.included), notes)
                more = [file._replace(path=file.path.removeprefix(rules.below)) for file in more]
                more = [file for file in more if file.path not in own]
                about["included"] = {format_path(file.path): file.blob for file in more}
                if len(more) > _LISTED:
                    about["included"] = {f"({len(more)} files)": tree_id(more)}
                files += more
            notes.set("lfs", known)
            yield Content(lambda: files, **about)

    def _plain(
        self,
        scratch: Repository,
        commit: str,
        changed: Mapping[str, tuple[str, str] | None],
        rules: Rules,
        notes: Notes,
        listing: Callable[[str], Sequence[Entry]],
        tree: str,
    ) -> bool:
        """Returns whether git's tree can be shipped unchanged; see :func:`.shipped.is_plain`."""
        if any(
            path.rpartition("/")[2] == ATTRIBUTES or (what and what[0] == SUBMODULE) for path, what in changed.items()
        ):
            return False
        plain = noted.find(notes.get("plain"), commit)
        if plain is None:
            plain = is_plain(scratch, listing(tree), rules)
            notes.set("plain", noted.add_recent(notes.get("plain"), commit, plain, _KEPT))
        return bool(plain)

    def _inside(self, scratch: Repository, tree: str) -> str:
        """Returns the id of the subpath's tree."""
        if not self._subpath:
            return tree
        try:
            found = scratch.text("rev-parse", "--verify", "--quiet", f"{tree}:{self._subpath}")
            return scratch.text("rev-parse", "--verify", "--quiet", f"{found}^{{tree}}")
        except PackagingError as error:
            raise self._no_subpath(scratch) from error

    def _no_subpath(self, scratch: Repository) -> PackagingError:
        return PackagingError(f"subpath={self.subpath!r} is not a folder of {scratch} at {self.ref}")

    @property
    def _subpath(self) -> str:
        return "/".join(name for name in self.subpath.split("/") if name not in ("", "."))


def _checkout(root: Path | None) -> Path | None:
    """Returns the top of the working tree around a folder, or None: it may have a bare clone's submodules."""
    folders = (root, *root.parents) if root is not None else ()
    return next((folder for folder in folders if (folder / ".git").exists()), None)


def _patch(scratch: Repository, commit: str, tree: str, subpath: str, folder: str | None) -> bytes:
    """Returns a patch from a commit to a tree; see :class:`~nemo_airflow.packaging.packing.Content`."""
    paths = []
    if folder is not None:
        below = f"{folder}/" if folder else ""
        paths = [f"--src-prefix=a/{below}", f"--dst-prefix=b/{below}", *([f"--relative={subpath}/"] if subpath else [])]
    return scratch.git(
        "diff-tree", "-p", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", *paths,
        commit, tree,
    )  # fmt: skip


def _key(format: str, state: State) -> str:
    return json.dumps([format, *state.signature])
