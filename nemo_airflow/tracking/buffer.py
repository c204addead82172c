"""A buffer of points on their way to a tracker, in order and in batches: in memory, and beyond that on disk."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from nemo_airflow.tracking.base import Metric
from nemo_airflow.tracking.point_file import Entry, PointFile


@dataclasses.dataclass(frozen=True)
class Batch:
    """Points that are recorded with one call.

    Attributes:
        entries: The points, each with the mark of its record.
        mark: The mark to record with them; 0 if the store must not move its mark.
    """

    entries: tuple[Entry, ...]
    mark: int

    @property
    def metrics(self) -> list[Metric]:
        """The points alone."""
        return [metric for metric, _ in self.entries]


class PointBuffer:
    """Keeps points until they are recorded. May be filled by one thread and emptied by another.

    Args:
        limit: Most points in memory. Above it all go to the file; without one, or where it cannot be written, the
            oldest are dropped, system samples first.
        spill: Returns the path of that file, each time that points go there; may raise OSError.
        file: A file with points to begin with.
    """

    def __init__(self, limit: int, spill: Callable[[], Path] | None = None, file: PointFile | None = None) -> None:
        self._limit = limit
        self._spill_to = spill
        self._lock = threading.Lock()
        self._file = file
        """Points that are older than those in memory."""
        self._entries: deque[Entry] = deque()
        self._taken = 0
        self._acknowledged = 0
        self._hole: int | None = None
        self._dropped = 0
        self.problem: OSError | None = None
        """Why points could not be written to a file."""

    def __len__(self) -> int:
        file = self._file
        return len(self._entries) + (len(file) if file is not None else 0)

    @property
    def acknowledged(self) -> int:
        """The mark up to which no point is missing."""
        return self._acknowledged

    @property
    def dropped(self) -> int:
        """Number of dropped points."""
        return self._dropped

    @property
    def complete(self) -> bool:
        """Whether no point of the user was dropped; system samples do not count."""
        return self._hole is None

    def put(self, metrics: Sequence[Metric], mark: int) -> None:
        """Adds the points of a record that ends at ``mark``; ignores them if the mark is already acknowledged."""
        with self._lock:
            if mark > self._acknowledged:
                self._entries.extend((metric, mark) for metric in metrics)
                self._make_room()

    def acknowledge(self, mark: int) -> None:
        """Notes that everything up to ``mark`` is recorded; drops points up to there."""
        with self._lock:
            self._acknowledged = max(mark, self._acknowledged)
            self._taken = 0
            while entries := self._peek(self._limit):
                known = sum(1 for _, earlier in entries if earlier <= self._acknowledged)
                self._remove(known)
                if known < len(entries):
                    break

    def take(self, size: int) -> Batch | None:
        """Returns the oldest points, at most ``size``; None when there are none. They stay until confirmed."""
        with self._lock:
            entries = self._peek(size + 1)
            following = entries[size:]
            del entries[size:]
            self._taken = len(entries)
            if not entries:
                return None
            mark = entries[-1][1]
            if following and following[0][1] == mark:
                # The rest of this record comes later, so the mark is that of the record before.
                mark = next((earlier for _, earlier in reversed(entries) if earlier < mark), 0)
            if self._hole is not None and mark >= self._hole:
                mark = 0
            return Batch(tuple(entries), mark)

    def confirm(self, batch: Batch) -> None:
        """Removes the points that were taken last: they are recorded."""
        with self._lock:
            self._remove(self._taken)
            self._taken = 0
            self._acknowledged = max(batch.mark, self._acknowledged)

    def move_to_disk(self) -> None:
        """Moves all points to the file.

        Raises:
            OSError: It cannot be written; they stay in memory.
        """
        with self._lock:
            self._spill()

    def clear(self) -> None:
        """Drops all points."""
        with self._lock:
            self._entries.clear()
            self._file, self._taken = None, 0

    def _peek(self, size: int) -> list[Entry]:
        entries = self._file.peek(size) if self._file is not None else []
        return [*entries, *islice(self._entries, size - len(entries))]

    def _remove(self, size: int) -> None:
        if self._file is not None:
            in_file = min(size, len(self._file))
            self._file.drop(in_file)
            size -= in_file
        for _ in range(size):
            self._entries.popleft()

    def _spill(self) -> None:
        if not self._entries:
            return
        if self._spill_to is None:
            raise FileNotFoundError("there is no file for points")
        path = self._spill_to()
        if self._file is None:
            self._file = PointFile(path)
        self._file.append(self._entries)
        self._entries.clear()

    def _make_room(self) -> None:
        if len(self._entries) <= self._limit:
            return
        try:
            self._spill()
        except OSError as error:
            self.problem = error
            self._drop_oldest(len(self._entries) - self._limit)

    def _drop_oldest(self, excess: int) -> None:
        excess += self._limit // 10  # several at once, because each time walks through all of them
        taken = max(self._taken - (len(self._file) if self._file is not None else 0), 0)
        kept: deque[Entry] = deque(islice(self._entries, taken))
        waiting = list(islice(self._entries, taken, None))
        samples = min(excess, sum(_is_sample(metric) for metric, _ in waiting))
        others = min(excess, len(waiting)) - samples
        for metric, mark in waiting:
            if _is_sample(metric) and samples:
                samples -= 1
            elif not _is_sample(metric) and others:
                others -= 1
                self._hole = mark if self._hole is None else min(mark, self._hole)
            else:
                kept.append((metric, mark))
        self._dropped += len(self._entries) - len(kept)
        self._entries = kept


def _is_sample(metric: Metric) -> bool:
    return metric.name.startswith("system/")
