"""Reads a job's stream: the lines that the job wrote, and the records between them.

A record begins at a byte 0x1E, anywhere, and ends with the line. The runner never lets that
byte through from the job, so removing the records gives exactly the job's output.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from nemo_airflow.clean import PLAN_LEVELS, clean_value

VERSION = 1
"""Version of the records that this reader understands."""

MARK = b"\x1e"

_LONGEST_LINE = 1 << 20
_PROGRESS_EVERY = 10.0
"""Seconds of the job's time after which a line that redraws itself is shown though it has not ended."""

_MICROSECOND = 1e-6


@dataclasses.dataclass(frozen=True)
class Line:
    """A line that the job wrote.

    Attributes:
        text: The line without its end. For a line that redraws itself with carriage returns, the
            last content.
        timestamp: When the job wrote it, seconds since the epoch. A function of the stream's bytes
            alone, and greater than that of any line before it.
        end: Bytes of the stream up to the end of the line; for one that has not ended and only shows how far it has
            come, up to its beginning. A reader that begins there goes on as the one that read the line.
    """

    text: str
    timestamp: float
    end: int


@dataclasses.dataclass(frozen=True)
class Block:
    """Lines that stand together, with no record between them, and none of which redraws itself.

    Attributes:
        text: The lines, with newlines between them.
        count: How many they are.
        time: When the job wrote the last of them, in microseconds since the epoch.
        end: Bytes of the stream up to the end of the last of them.
        rest: What stands behind them: the beginning of another line.
    """

    text: bytes
    count: int
    time: int
    end: int
    rest: bytes


@dataclasses.dataclass(frozen=True)
class Place:
    """How far somebody has come in a stream.

    Attributes:
        offset: Bytes up to the end of the last line, as :attr:`Line.end`.
        time: When the job wrote that line, in microseconds since the epoch.
    """

    offset: int = 0
    time: int = 0


BEGINNING = Place()

IMAGE = "image"
"""Type of a record that a follower makes, and no job: the ``digest`` of the image that the job ran in."""

PHASES = "phases"
"""The same for a record with the ``phases`` of the job, as text."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A record that the runner wrote.

    Attributes:
        type: ``start``, ``config``, ``environment``, ``metrics``, ``sample``, ``artifact``, ``tags``,
            ``heartbeat``, ``warning`` or ``end``.
        data: The whole JSON object.
        timestamp: When it was written, seconds since the epoch.
        end: Bytes of the stream up to the end of the record.
    """

    type: str
    data: dict[str, Any]
    timestamp: float
    end: int


class StreamReader:
    """Turns the bytes of a stream, cut anywhere, into lines and records.

    Args:
        offset: Bytes of the stream before the first that will be fed; the start of an item.
        clock: Timestamp of the last item before that.
    """

    def __init__(self, offset: int = 0, clock: float = 0.0) -> None:
        self._end = offset
        self._clock = clock
        self._microseconds = round(clock * 1e6)
        self._shown = clock
        """The clock of the last line."""
        self._rest = bytearray()
        """Bytes of an unfinished item."""
        self._in_record = False
        """Whether they contain the beginning of a record."""
        self._line = b""
        """The part of the job's line before a record."""
        self._line_begin = offset

    def feed(self, data: bytes) -> list[Line | Record]:
        """Returns the items that these bytes complete."""
        items: list[Line | Record] = []
        *pieces, rest = data.split(b"\n")
        if pieces:
            pieces[0] = bytes(self._rest) + pieces[0]
            self._rest, self._in_record = bytearray(), False
        # Appended, and only looked at where it is new: an item may be megabytes long, and come in small pieces.
        self._rest += rest
        self._in_record = self._in_record or MARK in rest
        for piece in pieces:
            self._end += len(piece) + 1
            text, mark, record = piece.partition(MARK)
            if mark:
                self._line += text
                self._add_record(items, record)
            else:
                items.append(self._make_line(self._line + text, self._end))
                self._line = b""
            if not self._line:
                self._line_begin = self._end
        self._cut_long_line(items)
        return items

    def block(self, data: bytes) -> Block | None:
        """Returns the lines that these bytes complete, as one; None where there is anything else among them."""
        cut = data.rfind(b"\n")
        redraws = b"\r" in data or b"\r" in self._rest
        if cut < 0 or self._in_record or self._line or redraws or MARK in data:
            return None
        text = bytes(self._rest) + data[:cut]
        count = text.count(b"\n") + 1
        return Block(text, count, self._next_time() + count - 1, self._end + len(text) + 1, data[cut + 1 :])

    def take(self, block: Block) -> None:
        """Goes on behind a block that :meth:`block` has returned, as if its bytes had been fed."""
        self._end = self._line_begin = block.end
        self._microseconds = block.time
        self._shown = self._clock
        self._rest = bytearray(block.rest)

    def finish(self) -> list[Line | Record]:
        """Returns the rest at the end of the stream: a last line without a newline."""
        items: list[Line | Record] = []
        text, mark, record = bytes(self._rest).partition(MARK)
        self._end += len(self._rest)
        self._rest, self._in_record = bytearray(), False
        if self._line + text:
            items.append(self._make_line(self._line + text, self._end))
            self._line = b""
        if mark:
            items.append(self._warning(f"the stream ends in the middle of a record: {record[:80]!r}"))
        return items

    def skip(self, size: int) -> list[Line | Record]:
        """Returns what stands before so many bytes that are lost, and a warning that says so."""
        items = self.finish()
        self._end += size
        message = f"{size} bytes of the job's log are gone: the back-end has dropped them before they were read"
        return [*items, self._warning(message)]

    def _cut_long_line(self, items: list[Line | Record]) -> None:
        if self._in_record:
            return
        while len(self._line) + len(self._rest) > _LONGEST_LINE:
            whole = self._line + bytes(self._rest)
            self._end += _LONGEST_LINE - len(self._line)
            self._line, self._rest = b"", bytearray(whole[_LONGEST_LINE:])
            self._line_begin = self._end
            items.append(self._make_line(whole[:_LONGEST_LINE], self._end))

    def _make_line(self, raw: bytes, end: int) -> Line:
        self._microseconds = self._next_time()
        self._shown = self._clock
        text = raw.decode("utf-8", errors="backslashreplace").removesuffix("\r")
        shown = text.rpartition("\r")[2] if text.rpartition("\r")[2] else text.rstrip("\r").rpartition("\r")[2]
        return Line(shown, self._microseconds * _MICROSECOND, end)

    def _next_time(self) -> int:
        """Returns the time of the next line: strictly increasing, so that it identifies a line in a log."""
        return max(self._microseconds + 1, round(self._clock * 1e6))

    def _add_record(self, items: list[Line | Record], raw: bytes) -> None:
        try:
            data = json.loads(raw)
            data = clean_value(data, PLAN_LEVELS) if data["type"] == "config" else clean_value(data)
            version, kind, timestamp = data["v"], data["type"], float(data["ts"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            items.append(self._warning(f"a record on the job's stream cannot be read: {raw[:80]!r}"))
            return
        if version != VERSION:
            items.append(self._warning(f"a record of version {version!r} was skipped: update nemo-airflow"))
        elif not math.isfinite(timestamp):
            items.append(self._warning(f"a record on the job's stream has no timestamp: {raw[:80]!r}"))
        elif kind == "clock":
            self._clock = timestamp
            # A line that redraws itself, as a progress bar does, shows how far it has come: at a clock of the stream,
            # so that it is the same however the stream is cut.
            if b"\r" in self._line and timestamp - self._shown >= _PROGRESS_EVERY:
                items.append(self._make_line(self._line, self._line_begin))
        else:
            items.append(Record(str(kind), data, timestamp, self._end))

    def _warning(self, message: str) -> Record:
        return Record(
            "warning", {"v": VERSION, "type": "warning", "ts": self._clock, "message": message}, self._clock, self._end
        )


def read_place(record: bytes) -> tuple[int, float] | None:
    """Returns at which byte of the stream a record stands, as it says itself, and its time; None where it says neither.

    Args:
        record: What follows the mark, up to the end of the line.
    """
    if b'"at":' not in record:
        return None
    try:
        data = json.loads(record)
        return int(data["at"]), float(data["ts"])
    except (ValueError, KeyError, TypeError):
        return None
