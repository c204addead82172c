"""Lists the files that differ between two packages, each with one part or several."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nemo_airflow.comparison.code_changes import CodeState, code_changes, has_commit
from nemo_airflow.exceptions import NotARepositoryError, PackagingError
from nemo_airflow.packaging.git.repository import Repository
from nemo_airflow.packaging.sections import split


@dataclasses.dataclass(frozen=True)
class CodePart:
    """The part that one packager shipped.

    Attributes:
        prefix: Its folder in the package; empty for the root.
        kind: The packager.
        state: The state of its repository; None where it is not from a repository.
    """

    prefix: str
    kind: str
    state: CodeState | None

    def __str__(self) -> str:
        return f"{self.prefix or 'the root'} ({self.kind})"


def recorded_parts(commit: str, patch: str, parts: Sequence[Mapping[str, str]] = ()) -> list[CodePart]:
    """Returns the parts of a package.

    Args:
        commit: The package's commit.
        patch: Its patch.
        parts: Its parts; empty where it is one repository.
    """
    if not parts:
        return [CodePart("", "git", CodeState(commit, patch))]
    # Patches without numbered sections have paths of repositories, usually of the first.
    is_numbered = all("subpath" in part for part in parts)
    first = next((number for number, part in enumerate(parts) if part["commit"] == commit), 0)
    patches = split(patch) if is_numbered else {first: patch}
    found = []
    for number, part in enumerate(parts):
        folder = part["prefix"] if is_numbered else ""
        state = CodeState(part["commit"], patches.get(number, ""), part.get("subpath", ""), folder)
        found.append(CodePart(part["prefix"], part["kind"], state if part["commit"] else None))
    return found


def part_changes(
    old: Sequence[CodePart] | None, new: Sequence[CodePart] | None, folders: Sequence[Path]
) -> Iterator[str]:
    """Yields a line for each file that differs, or the reason why a part cannot be compared.

    Args:
        old: The old parts; None for the current working trees.
        new: The new parts; None likewise.
        folders: Folders in the repositories to search; a commit is read from the first that has it.
    """
    before, after = _by_place(old or ()), _by_place(new or ())
    for place in dict.fromkeys((*before, *after)):
        part = before.get(place) or after[place]
        states = [
            _now(part.state) if side is None else parts[place].state if place in parts else None
            for side, parts in ((old, before), (new, after))
        ]
        if old is not None and place not in before:
            yield f"A {part}"
        elif new is not None and place not in after:
            yield f"D {part}"
        elif states[0] is None or states[1] is None:
            yield f"{part} is of no commit: what differs in it is not known"
        elif states[0] != states[1]:
            yield from _changes(part, states[0], states[1], folders)


def _by_place(parts: Sequence[CodePart]) -> dict[tuple[str, str, int], CodePart]:
    """Returns the parts by folder and packager, and by order where these are equal."""
    found: dict[tuple[str, str, int], CodePart] = {}
    numbers: collections.Counter[tuple[str, str]] = collections.Counter()
    for part in parts:
        found[part.prefix, part.kind, numbers[part.prefix, part.kind]] = part
        numbers[part.prefix, part.kind] += 1
    return found


def _now(state: CodeState | None) -> CodeState | None:
    """Returns the current working tree for a state's repository."""
    return None if state is None else CodeState(subpath=state.subpath)


def _changes(part: CodePart, old: CodeState, new: CodeState, folders: Sequence[Path]) -> Iterator[str]:
    below = f"{part.prefix}/" if part.prefix else ""
    try:
        folder = _home([state.commit for state in (old, new) if state.commit], folders)
        for change in code_changes(folder, old, new):
            yield dataclasses.replace(change, path=below + change.path).to_text()
    except PackagingError as error:
        yield f"{part}: {error}" if part.prefix else str(error)


def _home(commits: Sequence[str], folders: Sequence[Path]) -> Path:
    """Returns the first of the folders that is in a repository with all the commits."""
    problems = []
    for folder in folders:
        try:
            repository = Repository.at(folder)
        except NotARepositoryError as error:
            problems.append(str(error))
            continue
        missing = [commit for commit in commits if not has_commit(repository, commit)]
        if not missing:
            return folder
        problems.append(f"commit {missing[0][:12]} is not in {repository}")
    raise PackagingError(f"{'; '.join(problems)}: fetch it, or name the repository that has it with --repository")
