"""Remembers which packages were packed whole: later versions of the same code are packed as changes since one of them.

A version of a DAG bundle is another checkout or another commit, so neither is part of the key: only the packager's
other options are. Any base gives a correct package. A bad choice costs bytes, a lost one too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from nemo_airflow.packaging.notes import Notes
from nemo_airflow.store import PackageStore

_KEPT_EACH = 4
"""Packages of one code that are remembered."""

_KEPT = 64
"""Packages that are remembered of all codes that are packaged with the same options."""

_TRIED_OTHERS = 2
"""Packages of another code with which a new package is compared."""

_PLACES = ("path", "ref", "wheel", "format", "max_size")
"""Options that do not tell which files of a code are shipped: its place and version, and the form of the archive."""


class Base(NamedTuple):
    """A package that was packed whole.

    Attributes:
        code: What it is a version of: a DAG bundle, or a folder.
        digest: Its digest.
        format: Its archive's format.
        tree: Git's id of the tree of its files.
        size: Bytes of its files, unpacked.
    """

    code: str
    digest: str
    format: str
    tree: str
    size: int


class Bases:
    """The bases of a packager in a store, the newest first.

    Args:
        store: The store.
        options: The packager's options, as plain JSON types.
        code: What is packaged: a DAG bundle, or a folder.
    """

    def __init__(self, store: PackageStore, options: Mapping[str, Any], code: str) -> None:
        self._store = store
        self._about = f"bases\n{json.dumps(_without_places(options), sort_keys=True, default=str)}"
        self.code = code

    def __iter__(self) -> Iterator[Base]:
        """Yields those of this code first."""
        found = self._read(Notes(self._store.folder, self._about))
        return iter(sorted(found, key=lambda base: base.code != self.code))

    def to_compare(self) -> Iterator[Base]:
        """Yields the few with which a new package is compared."""
        others = 0
        for base in self:
            others += base.code != self.code
            if others <= _TRIED_OTHERS:
                yield base

    @property
    def newest(self) -> Base | None:
        """The newest of this code."""
        return next((base for base in self if base.code == self.code), None)

    def mark_wanted(self) -> None:
        """Keeps what is remembered from being collected, as each reading does."""
        Notes(self._store.folder, self._about)

    def add(self, base: Base) -> None:
        """Remembers a base as the newest of its code."""
        notes = Notes(self._store.folder, self._about)
        with self._store.writing_alone(notes.key):
            notes = Notes(self._store.folder, self._about)  # what others have added meanwhile
            others = [each for each in self._read(notes) if each != base]
            own = [each for each in others if each.code == base.code][: _KEPT_EACH - 1]
            kept = [base, *(each for each in others if each.code != base.code or each in own)]
            notes.set("bases", kept[:_KEPT])
            notes.save()

    @staticmethod
    def _read(notes: Notes) -> list[Base]:
        return [Base(*each) for each in notes.get("bases") or ()]


def _without_places(options: Any) -> Any:
    if isinstance(options, Mapping):
        return {name: _without_places(value) for name, value in options.items() if name not in _PLACES}
    return [_without_places(each) for each in options] if isinstance(options, list) else options
