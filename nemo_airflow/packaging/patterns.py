"""Patterns in the form of a ``.gitignore`` file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import pathspec

from nemo_airflow import settings
from nemo_airflow.exceptions import PackagingError


class Patterns:
    """The patterns of a packager's field.

    Args:
        name: The field, for messages.
        patterns: The patterns.

    Raises:
        PackagingError: They are not a list of valid patterns.
    """

    def __init__(self, name: str, patterns: Sequence[str]) -> None:
        self._name, self._patterns = name, patterns
        self._spec = self._compile(patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def match(self, path: str) -> bool:
        """Returns whether a file is matched, or a folder whose path ends with a slash."""
        return _matches(self._spec, path)

    def find_unmatched(self, paths: Iterable[str]) -> list[str]:
        """Returns the patterns that match none of the paths, apart from those that take back another one."""
        paths = list(paths)
        found = []
        for pattern in self._patterns:
            spec = self._compile([pattern])
            takes = any(each.include for each in spec.patterns)
            if takes and not any(_matches(spec, path) for path in paths):
                found.append(pattern)
        return found

    def _compile(self, patterns: Sequence[str]) -> pathspec.GitIgnoreSpec:
        if isinstance(patterns, str):
            raise PackagingError(f"{self._name}={patterns!r} is a text: give a list of patterns")
        try:
            return pathspec.GitIgnoreSpec.from_lines(patterns)
        except (ValueError, TypeError) as error:
            raise PackagingError(f"{self._name}={list(patterns)!r}: {error}") from error


def literal(path: str) -> str:
    """Returns a pattern that matches this very path."""
    return "".join(f"\\{char}" if char in "\\*?[]! " else char for char in path)


def own_data(folder: Path) -> list[str]:
    """Returns the pattern of this project's home (jobs, packages), if that is in a folder of code."""
    home, top = settings.home().resolve(), folder.resolve()
    if home == top or not home.is_relative_to(top):
        return []
    return [f"/{literal(home.relative_to(top).as_posix())}/"]


def _matches(spec: pathspec.GitIgnoreSpec, path: str) -> bool:
    # The library's expressions end a name at a newline.
    return spec.match_file(path.replace("\n", "\0"))
