"""What is asked of folders in which others write, move and delete meanwhile: what has gone is not counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def folder_size(folder: Path) -> int:
    """Returns the bytes of the files under a folder; 0 where there is none."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    return sum(found.st_size for found in _stat_each(paths))


def written_at(folder: Path) -> float:
    """Returns when a folder, or what is at its top, was last written (epoch seconds); 0.0 if there is none."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0.0
    return max((found.st_mtime for found in _stat_each([folder, *(folder / name for name in names)])), default=0.0)


def _stat_each(paths: Iterator[str] | list[Path]) -> Iterator[os.stat_result]:
    for path in paths:
        try:
            yield os.lstat(path)
        except FileNotFoundError:
            continue
