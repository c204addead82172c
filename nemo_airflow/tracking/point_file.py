"""Points in a file, in order: those that memory has no room for, or that wait for another process."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from nemo_airflow.tracking.base import Metric

Entry = tuple[Metric, int]
"""A point, with the mark of its record."""


class PointFile:
    """A queue in a file, which is read from the front and never changed there. Not safe for several threads.

    Args:
        path: The file; a new one if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = 0
        self._count = 0
        if path.exists():
            with path.open("rb") as file:
                self._count = sum(1 for _ in file)

    def __len__(self) -> int:
        return self._count

    def append(self, entries: Iterable[Entry]) -> None:
        """Adds points at the end, all or none.

        Raises:
            OSError: They cannot be written.
        """
        lines = [
            json.dumps([mark, point.name, point.value, point.step, point.timestamp]) + "\n" for point, mark in entries
        ]
        data = "".join(lines).encode()
        # Unbuffered: a buffer that cannot be written would be tried again as the file is closed.
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                while data:
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(size)
                raise
        self._count += len(lines)

    def peek(self, size: int) -> list[Entry]:
        """Returns the first points."""
        if not self._count:
            return []
        with self.path.open("rb") as file:
            file.seek(self._begin)
            return [_entry(line) for line in islice(file, size)]

    def drop(self, size: int) -> None:
        """Passes over the first points."""
        with self.path.open("rb") as file:
            file.seek(self._begin)
            for _ in range(size):
                file.readline()
            self._begin = file.tell()
        self._count -= size


def _entry(line: bytes) -> Entry:
    mark, name, value, step, timestamp = json.loads(line)
    return Metric(name, value, step, timestamp), mark
