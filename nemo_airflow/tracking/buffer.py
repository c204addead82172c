"""A bounded buffer of points on their way to a tracker, in order and in batches."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Sequence

from nemo_airflow.tracking.base import Metric

_Entry = tuple[Metric, int]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Points that are recorded with one call.

    Attributes:
        entries: The points, each with the mark of its record.
        mark: The mark to record with them; 0 if the store must not move its mark.
    """

    entries: tuple[_Entry, ...]
    mark: int

    @property
    def metrics(self) -> list[Metric]:
        """The points alone."""
        return [metric for metric, _ in self.entries]


class PointBuffer:
    """Keeps points until they are recorded. May be used from several threads.

    Args:
        limit: Most points in the buffer. Above it the oldest are dropped, system samples first.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: deque[_Entry] = deque()
        self._acknowledged = 0
        self._hole: int | None = None
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

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
            while self._entries and self._entries[0][1] <= self._acknowledged:
                self._entries.popleft()

    def take(self, size: int) -> Batch | None:
        """Returns the oldest points, at most ``size``, and removes them; None when there are none."""
        with self._lock:
            entries = [self._entries.popleft() for _ in range(min(size, len(self._entries)))]
            if not entries:
                return None
            mark = entries[-1][1]
            if self._entries and self._entries[0][1] == mark:
                # The rest of this record comes later, so the mark is that of the record before.
                mark = next((earlier for _, earlier in reversed(entries) if earlier < mark), 0)
            if self._hole is not None and mark >= self._hole:
                mark = 0
            return Batch(tuple(entries), mark)

    def put_back(self, batch: Batch) -> None:
        """Puts back a batch that could not be recorded."""
        with self._lock:
            self._entries.extendleft(reversed(batch.entries))
            self._make_room()

    def _make_room(self) -> None:
        excess = len(self._entries) - self._limit
        if excess <= 0:
            return
        excess += self._limit // 10  # several at once, because each time walks through all of them
        samples = min(excess, sum(_is_sample(metric) for metric, _ in self._entries))
        others = min(excess, len(self._entries)) - samples
        kept: deque[_Entry] = deque()
        for metric, mark in self._entries:
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
