"""Keeps a flood of lines out of a task's log: a page of millions of lines helps nobody, and writing it takes a core."""

from __future__ import annotations

from nemo_airflow.stream import Block, Line

RATE = 2000
"""Lines a second of the job's own time that go to the task's log for as long as it likes."""

BURST = 100_000
"""Lines that may come at once: after that, as many as the rate allows."""

_LINE = 1_000_000
"""Room for one line: the rate times a microsecond is a whole number, so that it does not matter who adds up what."""


class FloodGate:
    """Decides which lines of a job go to its task's log.

    The time is that of the lines, so that whoever follows the job anew leaves out the same ones.

    Args:
        where: Where all lines are kept, for the line that says how many are left out.
        rate: Lines a second.
        burst: Lines at once.
    """

    def __init__(self, where: str, rate: int = RATE, burst: int = BURST) -> None:
        self._where = where
        self._rate, self._burst = rate, burst * _LINE
        self._room = self._burst
        self._time = 0
        self._left_out = 0
        self._last: tuple[float, int] | None = None
        """Time and end of the last line that was left out."""

    def admit(self, line: Line) -> list[Line]:
        """Returns what to write now that a line has come: it, perhaps behind how many were left out; or nothing."""
        time = round(line.timestamp * 1e6)
        self._room, self._time = self._room_at(time), max(time, self._time)
        if self._room < self._wanted:
            self._left_out += 1
            self._last = line.timestamp, line.end
            return []
        self._room -= _LINE
        return [*self.finish(), line]

    def leave_out(self, block: Block) -> bool:
        """Leaves out a whole block, if that is what would become of each line of it; returns whether it did."""
        room = self._room_at(block.time)
        if not self._left_out or room >= self._wanted:
            return False
        self._room, self._time = room, max(block.time, self._time)
        self._left_out += block.count
        self._last = block.time * 1e-6, block.end
        return True

    @property
    def is_shut(self) -> bool:
        """Whether lines are being left out."""
        return bool(self._left_out)

    def finish(self) -> list[Line]:
        """Returns how many lines were left out since the last one that was not, as a line, or nothing."""
        if self._last is None:
            return []
        text = f"... {self._left_out:,} lines are left out here, more than {self._rate:,} a second: {self._where}"
        said = Line(text, *self._last)
        self._left_out, self._last = 0, None
        return [said]

    def _room_at(self, time: int) -> int:
        return min(self._room + max(time - self._time, 0) * self._rate, self._burst)

    @property
    def _wanted(self) -> int:
        """The room that a line needs. In a flood: not one line here and one there, but those of a second at a time."""
        return self._rate * _LINE if self._left_out else _LINE
