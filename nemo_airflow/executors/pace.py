"""Bounds how often a back-end is asked, however many jobs there are."""

from __future__ import annotations

import time


class Pace:
    """How many calls may be made for jobs that run: a back-end has more users than us.

    Args:
        rate: Calls a second, on average.
        burst: Calls at one time.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._allowed = float(burst)
        self._then = time.monotonic()

    def take(self, wanted: int) -> int:
        """Returns how many of these calls may be made now."""
        now = time.monotonic()
        self._allowed = min(self._burst, self._allowed + (now - self._then) * self._rate)
        self._then = now
        taken = min(wanted, int(self._allowed))
        self._allowed -= taken
        return taken
