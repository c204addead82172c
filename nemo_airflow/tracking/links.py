"""Finds out what the links among a job's outputs stand for, by names alone: the files may be gone already."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

_MOST_LINKS = 40
"""Links that a path may lead through, as on Linux."""


class Links:
    """The links of a tree of files, which are told in any order."""

    def __init__(self) -> None:
        self._targets: dict[str, tuple[str, bool]] = {}
        self._files: set[str] = set()
        self._folders: set[str] = {""}
        self._names: dict[str, list[str]] = {}
        self._is_current = True

    def add(self, name: str, target: str, *, hard: bool) -> None:
        """Adds a link: what it says, or of a hard link the other name."""
        self._targets[name] = target, hard
        self._is_current = False
        self.add_folder(posixpath.dirname(name))

    def add_file(self, name: str) -> None:
        """Adds a file."""
        self._files.add(name)
        self.add_folder(posixpath.dirname(name))

    def add_folder(self, name: str) -> None:
        """Adds a folder, with those that it is in."""
        while name not in self._folders:
            self._folders.add(name)
            name = posixpath.dirname(name)

    def is_hard(self, name: str) -> bool:
        """Returns whether a name is a hard link."""
        return name in self._targets and self._targets[name][1]

    def names_of(self, file: str) -> list[str]:
        """Returns the links that stand for a file, of those that are known."""
        if not self._is_current:
            self._names = {}
            for name in self._targets:
                if (target := self._resolve(name)) is not None:
                    self._names.setdefault(target, []).append(name)
            self._is_current = True
        return self._names.get(file, [])

    def of_files(self) -> Iterator[str]:
        """Yields the links that stand for a file."""
        for name in self._targets:
            if self._resolve(name) in self._files:
                yield name

    def soft(self) -> Iterator[tuple[str, str]]:
        """Yields the symbolic links that lead somewhere, with what they say."""
        broken = {name for name, _ in self.find_broken()}
        for name, (target, hard) in self._targets.items():
            if not hard and name not in broken:
                yield name, target

    def find_broken(self) -> Iterator[tuple[str, str]]:
        """Yields the links to nothing, each with why it cannot be kept."""
        for name, (target, hard) in self._targets.items():
            found = self._resolve(name)
            if found in self._files or (found in self._folders and not hard):
                continue
            yield (
                name,
                f"is a hard link to {target}, which is not among the outputs"
                if hard
                else f"links to {target}, which is not there",
            )

    def _resolve(self, name: str) -> str | None:
        """Returns the path that a name leads to; None where that is outside, or in a circle."""
        ahead, here, followed = name.split("/")[::-1], "", 0
        while ahead:
            part = ahead.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not here:
                    return None
                here = posixpath.dirname(here)
                continue
            here = posixpath.join(here, part)
            if here in self._targets:
                target, hard = self._targets[here]
                followed += 1
                if followed > _MOST_LINKS or (target.startswith("/") and not hard):
                    return None
                here = "" if hard else posixpath.dirname(here)
                ahead += target.split("/")[::-1]
        return here
