"""What people are told of a back-end, or of one job in it, that does not answer: at once, hourly, and at its end."""

from __future__ import annotations

import re

_AGAIN = 3600.0
"""Seconds after which an outage that lasts is said again."""

_REASONS = 3
"""Reasons of one outage that are said within that time: a connection is lost first, and then the login refused."""

_SHORT = 60.0


class Outage:
    """The outage of which one watcher is told, if there is one."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._said = 0.0
        self._reasons: set[str] = set()

    @property
    def is_on(self) -> bool:
        """Whether there is one."""
        return self._since is not None

    def lasts(self, now: float) -> float:
        """Returns for how many seconds it has lasted; 0 where there is none."""
        return now - self._since if self._since is not None else 0.0

    def begin(self, now: float, reason: str) -> str:
        """Notes that there is an outage; returns what is to be said of it now, or an empty string."""
        kind = _kind(reason)
        if self._since is None:
            self._since = self._said = now
            self._reasons = {kind}
            return f"the job cannot be followed just now, trying again; the job goes on: {reason}"
        if now - self._said >= _AGAIN:
            self._said, self._reasons = now, {kind}
            return f"the job could not be followed for {_words(self.lasts(now))}; the job goes on: {reason}"
        if kind not in self._reasons and len(self._reasons) < _REASONS:
            self._reasons.add(kind)
            return f"the job still cannot be followed: {reason}"
        return ""

    def end(self, now: float) -> str:
        """Notes that there is none any more; returns what is to be said of that, or an empty string."""
        if self._since is None:
            return ""
        lasted, self._since = self.lasts(now), None
        return f"the back-end tells again how the job fares, after {_words(lasted)}"


def _kind(reason: str) -> str:
    """Returns the reason without what differs from one try to the next: ports, ids, seconds."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "", reason)


def _words(seconds: float) -> str:
    if seconds < _SHORT:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
