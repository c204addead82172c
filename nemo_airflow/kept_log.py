"""The copy of a job's log in its run: of bounded size; an error here does not fail a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

HEAD = 32 << 20
"""Bytes from the beginning of a log that are always kept."""

PIECE = 16 << 20
"""Bytes of each of the last two pieces; between one and two pieces are kept after the head."""

TAIL = 2 * PIECE
"""Bytes of a log's end that are kept at most."""


class KeptLog:
    """Collects the lines of one job in a folder; :meth:`close` writes them as ``log.txt``.

    The middle of a log larger than :data:`HEAD` and two pieces is left out, and a line says how much. A disk that is
    full costs only the copy, with one warning: the task's log goes on.

    Args:
        folder: An empty folder.
        warn: Called with the warning, in one line.
        head: Bytes of the beginning.
        piece: Bytes of a piece of the end.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None], *, head: int = HEAD, piece: int = PIECE) -> None:
        self.path = folder / "log.txt"
        self._tail, self._before = folder / "log.tail", folder / "log.before"
        self._warn = warn
        self._head, self._piece = head, piece
        self._written = 0
        self._in_tail = 0
        self._left_out = 0
        self._broken = False

    def add(self, lines: Sequence[str]) -> None:
        """Adds lines, each without its newline."""
        if self._broken or not lines:
            return
        data = "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")
        try:
            # Not left open: thousands of jobs may be followed at once.
            if self._written < self._head:
                _append(self.path, data)
                self._written += len(data)
                return
            if self._in_tail >= self._piece:
                self._left_out += self._before.stat().st_size if self._before.exists() else 0
                self._tail.replace(self._before)
                self._in_tail = 0
            _append(self._tail, data)
            self._in_tail += len(data)
        except OSError as error:
            self._broken = True
            self._warn(f"the run's copy of the log ends here, but the task's log goes on: {error}")

    def leave_out(self, size: int) -> None:
        """Notes that so many bytes of the log are not given: what comes after them belongs to its end."""
        self._head = min(self._head, self._written)
        self._left_out += size

    def close(self) -> None:
        """Joins the pieces."""
        try:
            self.path.touch()
            if self._left_out:
                gap = f"[{self._left_out} bytes are left out here: the back-end's own log of the job has them]\n"
                _append(self.path, gap.encode())
            for piece in (self._before, self._tail):
                if piece.exists():
                    _append(self.path, piece.read_bytes())
                    piece.unlink()
        except OSError as error:
            self._warn(f"the run's copy of the log is incomplete, the task's log is not affected: {error}")


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)
