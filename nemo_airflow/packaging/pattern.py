"""Packages the files of a folder that match patterns."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from nemo_airflow.exceptions import PackagingError
from nemo_airflow.packaging.base import ContentPackager
from nemo_airflow.packaging.disk import identify_files, walk
from nemo_airflow.packaging.notes import Notes
from nemo_airflow.packaging.packing import Content
from nemo_airflow.packaging.patterns import Patterns, own_data


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatternPackager(ContentPackager):
    """Ships the files of a folder that match patterns, with or without git.

    Patterns are those of a ``.gitignore`` file, relative to the folder: ``*.py`` at any depth, ``/conf/``
    a folder at the top, ``data/**/*.json``, and ``!`` in front to exclude an earlier match. Links are
    shipped as links, and refused where they point outside the folder.

    Attributes:
        path: The folder; the DAG bundle's when None.
        include: Patterns of files to ship.
        exclude: Patterns of files not to ship, even if ``include`` matches them.
    """

    kind: ClassVar[str] = "pattern"

    path: str | None = None
    include: Sequence[str] = ("*",)
    exclude: Sequence[str] = (".git", "__pycache__/", "*.pyc")

    @contextlib.contextmanager
    def content(self, root: Path | None, notes: Notes) -> Iterator[Content]:
        """See :meth:`ContentPackager.content`."""
        folder = Path(self.path).expanduser() if self.path else root
        if folder is None:
            raise PackagingError(
                "PatternPackager has no path, and there is no DAG bundle to take it from: give path=..."
            )
        if not folder.is_dir():
            raise PackagingError(f"{folder} is not a folder: give PatternPackager(path=...) one")
        folder = folder.absolute()
        include = Patterns("include", self.include)
        exclude = Patterns("exclude", [*self.exclude, *own_data(folder)])
        known = notes.get("disk") or {}  # paths chosen before are not matched again
        found = walk(
            folder,
            lambda path: path in known or (include.match(path) and not exclude.match(path)),
            exclude.match,
        )
        files = identify_files(folder, found, notes)
        if not files:
            raise PackagingError(f"no file of {folder} matches include={list(self.include)!r}")
        same = len(files) == len(known) and notes.get("disk") == known
        content = Content(lambda: files, notes.get("tree") or "" if same else "")
        notes.set("tree", content.tree)
        yield content
