"""Writes the stream: the job's output, with records between its lines."""

import json
import os
import re
import select
import stat
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

from nemo_airflow.runner.stream_tail import StreamTail

VERSION = 1
MARK = b"\x1e"
SHOWN_MARK = "\u241e".encode()
"""Replacement of the mark where the job itself writes one."""

PLACED = ("start", "clock", "heartbeat", "end")
"""Records with their own offset in the stream as ``at``: they locate an excerpt of a log."""

_CLOCK_EVERY = 0.1
_CLOCK_EVERY_BYTES = 256 << 10
"""However fast a job writes, the last few thousand lines of its log contain such a record."""

_HOLD = 1.0

_PATIENCE = 0.2
"""Seconds between checks for room, and for a request to end the job."""


class StreamWriter:
    """Owns the standard output of the runner.

    Args:
        fd: File descriptor to write to.
        now: Clock, in seconds since the epoch.
        folder: The job's folder, to keep the end of the stream there too; else None.
        waiting: Called repeatedly while there is no room to write: a full disk, or a reader that
            has stopped. Returns whether to keep waiting; if not, the rest of the stream is lost.
    """

    def __init__(
        self,
        fd: int,
        now: Callable[[], float] = time.time,
        folder: Optional[str] = None,
        waiting: Callable[[], bool] = lambda: True,
    ) -> None:
        self._fd = fd
        self._waiting = waiting
        self._is_file = stat.S_ISREG(os.fstat(fd).st_mode)
        self._now = now
        self._at_line_start = True
        self._clocked = 0.0
        self._clocked_at = 0
        self._held: List[Tuple[float, str, Optional[Dict[str, Any]]]] = []
        self._gone = False
        self._at = _size(fd)
        self._tail = StreamTail(folder, self._at) if folder else None

    def output(self, data: bytes) -> None:
        """Forwards output of the job."""
        if not data:
            return
        now = self._now()
        if self._at_line_start:
            self._write_held()
        if now - self._clocked >= _CLOCK_EVERY or self._at - self._clocked_at >= _CLOCK_EVERY_BYTES:
            self._clocked, self._clocked_at = now, self._at
            self._write_record(now, "clock", None)
        self._write(data.replace(MARK, SHOWN_MARK))
        self._at_line_start = data.endswith(b"\n")
        if self._at_line_start:
            self._write_held()

    def say(self, text: str) -> None:
        """Writes a line of the runner's own; what the job has written of its line ends before it."""
        line = f"{text}\n" if self._at_line_start else f"\n{text}\n"
        self.output(line.encode("utf-8", "backslashreplace"))

    def record(self, kind: str, fields: Optional[Dict[str, Any]] = None) -> None:
        """Writes a record: at once between lines, else after the current line, or within about a second."""
        now = self._now()
        self._held.append((now, kind, fields))
        if self._at_line_start:
            self._write_held()

    def tick(self) -> None:
        """Writes records that have waited for the end of a line for more than a second."""
        if self._held and self._now() - self._held[0][0] > _HOLD:
            self._write_held()

    def finish(self, kind: str, fields: Dict[str, Any]) -> bytes:
        """Writes the last record and returns its JSON."""
        self._write_held()
        return self._write_record(self._now(), kind, fields)[1:]

    def _write_held(self) -> None:
        held, self._held = self._held, []
        for now, kind, fields in held:
            self._write_record(now, kind, fields)

    def _write_record(self, now: float, kind: str, fields: Optional[Dict[str, Any]]) -> bytes:
        if kind in PLACED:
            fields = {**(fields or {}), "at": self._at}
        data = encode(kind, now, fields)
        self._write(data)
        return data

    def _write(self, data: bytes) -> None:
        if self._tail is not None:
            self._tail.write(data)
        view = memoryview(data)
        while view and not self._gone:
            try:
                # Writes to a pipe only what fits: more would block when its reader stops.
                written = os.write(self._fd, view if self._is_file else view[: self._room()])
                self._at += written
                view = view[written:]
            except BrokenPipeError:
                self._gone = True  # there is no reader any more: the job itself goes on
            except OSError:  # a full disk: the job waits rather than lose output
                self._wait()

    def _room(self) -> int:
        """Waits until there is room; returns how many bytes can be written without blocking."""
        while not select.select([], [self._fd], [], _PATIENCE)[1]:
            self._gone = not self._waiting()
            if self._gone:
                return 0
        return select.PIPE_BUF

    def _wait(self) -> None:
        time.sleep(_PATIENCE)
        self._gone = not self._waiting()


def _size(fd: int) -> int:
    """Returns the bytes already in a file, from an earlier start of the same job. Zero for a pipe."""
    info = os.fstat(fd)
    return info.st_size if stat.S_ISREG(info.st_mode) else 0


_ESCAPE = re.compile(
    r"\\(?:u(?P<pair>d[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2})|u(?P<lone>d[89a-f][0-9a-f]{2})|(?P<nul>u0000)|.)"
)
"""A JSON escape in ASCII, as :func:`json.dumps` writes it."""


def clean(text: str) -> str:
    """Returns ASCII JSON whose strings every reader and every database accepts.

    A lone surrogate (from a file name that is not UTF-8) and NUL become Python's escapes for them, ``\\udce9`` and
    ``\\x00``.

    Args:
        text: JSON as :func:`json.dumps` writes it with ``ensure_ascii``.
    """
    if "\\ud" not in text and "\\u0000" not in text:
        return text
    return _ESCAPE.sub(_show_escape, text)


def _show_escape(match: "re.Match[str]") -> str:
    if match["lone"]:
        return "\\\\u" + match["lone"]
    return "\\\\x00" if match["nul"] else match[0]


def encode(kind: str, now: float, fields: Optional[Dict[str, Any]] = None) -> bytes:
    """Returns the bytes of a record on the stream."""
    record = {"v": VERSION, "type": kind, "ts": round(now, 6)}
    record.update(fields or {})
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return MARK + clean(text).encode("ascii") + b"\n"
