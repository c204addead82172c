"""Says in the log how far a transfer to a back-end is, each ten seconds; nothing of a short one."""

from __future__ import annotations

import logging
import time

from nemo_airflow.job import Archive
from nemo_airflow.runner.artifacts import size_text

_EVERY = 10.0

_log = logging.getLogger(__name__)


class Progress:
    """One transfer.

    Args:
        archive: What is sent.
        where: To where, for people.
        every: Seconds between two lines.
    """

    def __init__(self, archive: Archive, where: str, *, every: float = _EVERY) -> None:
        self._what = f"{archive.name} to {where}"
        self._size = archive.size
        self._every = every
        self._sent = 0
        self._begun = self._said = time.monotonic()

    def add(self, count: int) -> None:
        """Notes bytes that were sent."""
        self._sent += count
        now = time.monotonic()
        if now - self._said < self._every:
            return
        self._said = now
        rate = self._sent / (now - self._begun)
        done = f"{size_text(self._sent)} of {size_text(self._size)}, {size_text(rate)}/s"
        left = f", {(self._size - self._sent) / rate:.0f} s left" if self._size > self._sent and rate else ""
        _log.info("sending %s: %s%s", self._what, done, left)
