"""Says what a package would have, why each file is in it, and what is left out; packs nothing."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from nemo_airflow.packaging import content as contents
from nemo_airflow.packaging.base import ContentPackager
from nemo_airflow.packaging.content import format_path
from nemo_airflow.packaging.git.packager import GitArchivePackager
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.git.worktree import is_bytecode, status
from nemo_airflow.packaging.hybrid import HybridPackager
from nemo_airflow.packaging.packing import Content, compare_with
from nemo_airflow.packaging.pattern import PatternPackager
from nemo_airflow.packaging.patterns import Patterns, literal, own_data
from nemo_airflow.store import PackageStore

_MOST_LEFT_OUT = 1000
"""Files and folders that are named as left out."""

OWN = "jobs and packages of nemo-airflow itself"
"""Why a home folder within a folder of code is left out."""


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A file of a package.

    Attributes:
        path: Its path in the package.
        size: Bytes.
        why: Why it is in it.
    """

    path: str
    size: int
    why: str


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file, or a folder with all that is in it, that is not in a package.

    Attributes:
        path: Its path; of a folder with a slash at the end.
        why: Why it is not in it.
    """

    path: str
    why: str


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a package would have.

    Attributes:
        digest: The package's digest.
        commit: Its commit, or empty.
        dirty: Whether it has uncommitted changes.
        size: Bytes of its files.
        packed_size: Bytes of its archive, if it is packed already; else None.
        files: Its files, the largest first.
        left_out: What is left out.
        since: The digest of the package of the same code that was packed whole last; empty where there is none.
        added: Files that this one does not have.
        changed: Files that are different in it.
        removed: Files that only that one has.
    """

    digest: str
    commit: str
    dirty: bool
    size: int
    packed_size: int | None
    files: Sequence[Shipped]
    left_out: Sequence[LeftOut]
    since: str
    added: Sequence[str]
    changed: Sequence[str]
    removed: Sequence[str]


def explain_package(packager: ContentPackager, store: PackageStore, root: Path) -> Explanation:
    """Returns what a packager would ship of a folder, and why. Blocks.

    Args:
        packager: The packager.
        store: Where archives are kept.
        root: The folder of the code, for a packager without a path.

    Raises:
        PackagingError: There is nothing to package, or the packager refuses it.
    """
    notes = packager.notes(store, root)
    with packager.content(root, notes) as content:
        files = content.files()
        contents.check_links(files)
        contents.check_size(files, packager.max_size)
        digest = contents.package_digest(content.tree)
        why, left_out = _reasons(packager, store, root, content)
        since, added, changed, removed = _changes(packager, store, root, content, digest)
        packed = next((format for format in packager.formats(True) if store.has(digest, format)), "")
        return Explanation(
            digest=digest,
            commit=content.commit,
            dirty=content.dirty,
            size=sum(file.size for file in files),
            packed_size=store.path(digest, packed).stat().st_size if packed else None,
            files=[
                Shipped(format_path(file.path), file.size, why(file.path))
                for file in sorted(files, key=lambda file: (-file.size, file.path))
            ],
            left_out=left_out,
            since=since,
            added=added,
            changed=changed,
            removed=removed,
        )


def _changes(
    packager: ContentPackager, store: PackageStore, root: Path, content: Content, digest: str
) -> tuple[str, list[str], list[str], list[str]]:
    """Returns the digest of the last package that was packed whole, and what is new, changed and removed since."""
    last = packager.bases(store, root, "").newest
    changes = compare_with(content, store, last.digest) if last is not None and last.digest != digest else None
    if last is None or changes is None:
        return last.digest if last is not None and last.digest == digest else "", [], [], []
    here = {file.path for file in changes.files}
    return (
        last.digest,
        sorted(map(format_path, here - changes.known)),
        sorted(map(format_path, here & changes.known)),
        sorted(map(format_path, changes.removed)),
    )


Why = Callable[[str], str]
"""Returns why the file of a path in the package is in it."""


def _reasons(packager: ContentPackager, store: PackageStore, root: Path, content: Content) -> tuple[Why, list[LeftOut]]:
    if isinstance(packager, GitArchivePackager):
        return _reasons_of_git(packager, store, root, content)
    if isinstance(packager, PatternPackager):
        return _reasons_of_patterns(packager, root, content)
    if isinstance(packager, HybridPackager):
        return _reasons_of_parts(packager, store, root)
    return (lambda path: f"the {packager.kind} packager ships it"), []


def _reasons_of_git(
    packager: GitArchivePackager, store: PackageStore, root: Path, content: Content
) -> tuple[Why, list[LeftOut]]:
    folder = Path(packager.path).expanduser() if packager.path else root
    repository = Repository.at(folder)
    if repository.bare:
        return (lambda path: "committed"), []
    now = status(repository, packager.subpath.strip("/"), packager.notes(store, root))
    below = f"{packager.subpath.strip('/')}/" if packager.subpath.strip("/") else ""
    changed = {change.path.removeprefix(below) for change in now.changed}
    untracked = Patterns("untracked", [f"/{literal(path)}" for path in now.untracked])

    def why(path: str) -> str:
        if format_path(path) in content.included:
            return "git does not track it, and include matches it"
        if untracked.match(below + path):
            return "git does not track it, and untracked='include'"
        return "tracked, with uncommitted changes" if content.dirty and path in changed else "tracked"

    exclude = Patterns("exclude", packager.exclude)
    own_folder = Patterns("exclude", own_data(Path(repository.folder)))

    def left_out(path: str) -> str:
        if exclude.match(path):
            return "exclude matches it"
        if own_folder.match(path):
            return OWN
        if path.endswith("/.git/") or path == ".git/" or is_bytecode(path):
            return ""
        if untracked.match(path):
            return "git does not track it, and untracked='ignore'" if packager.untracked == "ignore" else ""
        return "git ignores it"

    own = {below + file.path for file in content.files()}
    return why, _walk(Path(repository.folder) / below, own, below, left_out)


def _reasons_of_patterns(packager: PatternPackager, root: Path, content: Content) -> tuple[Why, list[LeftOut]]:
    include = [(pattern, Patterns("include", [pattern])) for pattern in packager.include]
    exclude = [(pattern, Patterns("exclude", [pattern])) for pattern in packager.exclude]

    def first(patterns: Sequence[tuple[str, Patterns]], path: str) -> str:
        return next((pattern for pattern, spec in patterns if spec.match(path)), "")

    folder = Path(packager.path).expanduser() if packager.path else root
    own_folder = Patterns("exclude", own_data(folder))

    def left_out(path: str) -> str:
        if own_folder.match(path):
            return OWN
        pattern = first(exclude, path)
        return f"exclude has {pattern!r}" if pattern else "nothing of include matches it"

    own = {file.path for file in content.files()}
    return (lambda path: f"include has {first(include, path)!r}"), _walk(folder, own, "", left_out)


def _reasons_of_parts(packager: HybridPackager, store: PackageStore, root: Path) -> tuple[Why, list[LeftOut]]:
    found: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for prefix, packagers in packager.by_prefix().items():
        folder = prefix.strip("/")
        for each in packagers:
            part = explain_package(each, store, root)
            found |= {f"{folder}/{file.path}" if folder else file.path: file.why for file in part.files}
            left_out += part.left_out
    return (lambda path: found.get(format_path(path), "")), left_out


def _walk(top: Path, shipped: set[str], below: str, why: Callable[[str], str]) -> list[LeftOut]:
    """Returns what of a folder is not shipped: a folder of which nothing is, by its own name."""
    folders = {path[: at + 1] for path in shipped for at, char in enumerate(path) if char == "/"}
    found: list[LeftOut] = []
    for above, names, files in os.walk(top):
        names.sort()
        relative = os.path.relpath(above, top)
        at = below if relative == "." else f"{below}{relative}/"
        whole = [name for name in names if f"{at}{name}/" not in folders]
        names[:] = [name for name in names if name not in whole]
        for path in (*(f"{at}{name}/" for name in whole), *(f"{at}{name}" for name in sorted(files))):
            if path not in shipped and (reason := why(path)):
                found.append(LeftOut(format_path(path), reason))
                if len(found) == _MOST_LEFT_OUT:
                    return found
    return found


def modules_not_in(files: Set[str], modules: Sequence[str]) -> list[str]:
    """Returns the modules whose files are not in a package: they have to be installed where the job runs.

    Args:
        files: The paths of its files.
        modules: Dotted names.
    """
    return [
        module
        for module in modules
        if not {f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py"} & files
    ]
