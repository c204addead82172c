"""Says how far a transfer has come: bytes, rate and what is left; and knows for how long nothing has moved."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

_FIRST, _LONGEST = 5.0, 60.0
"""Seconds to the first line, and most seconds between two: each pause is twice the one before."""


_watchers: list[Callable[[Progress], None]] = []


@contextlib.contextmanager
def watched_by(show: Callable[[Progress], None]) -> Iterator[None]:
    """Has all transfers of this process shown in the meantime, instead of the lines that they say."""
    _watchers.append(show)
    try:
        yield
    finally:
        _watchers.remove(show)


class Progress:
    """The progress of one transfer. May be used from several threads.

    Args:
        what: What moves, as the beginning of a line: ``"outputs fetched"``.
        inform: Called with a line now and then; never, for a transfer of a few seconds.
        total: Bytes in all; None where nobody has counted them.
        clock: Returns seconds, of which only the differences count.
    """

    def __init__(
        self,
        what: str,
        inform: Callable[[str], None],
        total: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what = what
        self.total = total or None
        self._inform = inform
        self._clock = clock
        self._lock = threading.Lock()
        self._begun = self._moved_at = clock()
        self._pause, self._due = _FIRST, self._begun + _FIRST
        self.size = 0
        """Bytes so far."""

    def begin_anew(self) -> None:
        """Notes that the transfer begins anew, now."""
        with self._lock:
            self.size, self._moved_at = 0, self._clock()

    @property
    def silence(self) -> float:
        """Seconds for which nothing has moved."""
        return self._clock() - self._moved_at

    def add(self, size: int) -> None:
        """Notes that so many bytes more have moved."""
        with self._lock:
            self._set(self.size + size)

    def touch(self) -> None:
        """Notes that something has moved, which is not counted."""
        with self._lock:
            self._moved_at = self._clock()

    def reach(self, size: int) -> None:
        """Notes that so many bytes have moved in all."""
        with self._lock:
            self._set(size)

    def _set(self, size: int) -> None:
        now = self._clock()
        if size != self.size:
            self.size, self._moved_at = size, now
            for show in _watchers:
                show(self)
        if _watchers:
            return
        if now >= self._due:
            self._pause = min(self._pause * 2, _LONGEST)
            self._due = now + self._pause
            self._inform(f"{self.what}: {self._text(now)}")

    def _text(self, now: float) -> str:
        rate = self.size / max(now - self._begun, 1e-3)
        of = f" of {size_text(self.total)}" if self.total else ""
        left = max(self.total - self.size, 0) if self.total else 0
        return (
            f"{size_text(self.size)}{of}, {size_text(rate)}/s"
            + (f", about {left / rate:,.0f} s left" if left and rate else "")
            + (f"; nothing has come for {self.silence:.0f} s" if self.silence >= _FIRST else "")
        )


def size_text(size: float) -> str:
    """Returns a number of bytes as people read it, in powers of 1,000: ``"1.5 GB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
