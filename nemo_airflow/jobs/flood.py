"""Keeps a flood of lines out of a task's log: a page of millions of lines helps nobody, and writing it takes a core."""

from __future__ import annotations

from nemo_airflow.stream import Line

RATE = 2000.0
"""Lines a second of the job's own time that go to the task's log for as long as it likes."""

BURST = 100_000
"""Lines that may come at once: after that, as many as the rate allows."""


class FloodGate:
    """Decides which lines of a job go to its task's log.

    The time is that of the lines, so that whoever follows the job anew leaves out the same ones.

    Args:
        where: Where all lines are kept, for the line that says how many are left out.
        rate: Lines a second.
        burst: Lines at once.
    """

    def __init__(self, where: str, rate: float = RATE, burst: int = BURST) -> None:
        self._where = where
        self._rate, self._burst = rate, float(burst)
        self._room = self._burst
        self._time = 0.0
        self._left_out = 0
        self._last: Line | None = None

    def admit(self, line: Line) -> list[Line]:
        """Returns what to write now that a line has come: it, perhaps behind how many were left out; or nothing."""
        self._room = min(self._room + max(line.timestamp - self._time, 0.0) * self._rate, self._burst)
        self._time = max(line.timestamp, self._time)
        # In a flood: not one line here and one there, but those of a second at a time.
        if self._room < (self._rate if self._left_out else 1):
            return self._leave_out(line)
        self._room -= 1
        return [*self.finish(), line]

    def finish(self) -> list[Line]:
        """Returns how many lines were left out since the last one that was not, as a line, or nothing."""
        if self._last is None:
            return []
        text = f"... {self._left_out:,} lines are left out here, more than {self._rate:,.0f} a second: {self._where}"
        said = Line(text, self._last.timestamp, self._last.end)
        self._left_out, self._last = 0, None
        return [said]

    def _leave_out(self, line: Line) -> list[Line]:
        self._left_out += 1
        self._last = line
        return []
