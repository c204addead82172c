"""Reads a stream by offset out of a log that can only be asked for what came since a time.

The runner writes into its records at which byte of the stream they stand, so any excerpt of a log
can be placed, whatever was cut off before it.
"""

from __future__ import annotations

import bisect
import json
import math

from nemo_airflow.stream import MARK

_LAST = MARK + b'{"v":1,"type":"end",'

_SLACK = 2.0
"""Seconds by which a log's own times may differ from those in the records."""

_LARGEST_GAP = 64 << 20

_MARKS = 512
"""How many places of one log are remembered: enough for readers that lag a minute behind."""


class TimedLog:
    """What is known of one job's log: at which offset of the stream which time was.

    Attributes:
        has_ended: Whether the runner's last record was taken.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self._offsets: list[int] = []
        self._times: list[float] = []

    def since(self, offset: int) -> float | None:
        """Returns from when on to ask for the log, to get all that stands after an offset.

        Args:
            offset: Bytes of the stream.

        Returns:
            Whole seconds since the epoch, or None for the log from its beginning.
        """
        # The mark itself has to be in the excerpt, or the excerpt could not be placed.
        index = bisect.bisect_right(self._offsets, offset) - 1
        return math.floor(self._times[index] - _SLACK) if index >= 0 and self._offsets[index] > 0 else None

    def take(self, excerpt: bytes, offset: int) -> bytes:
        """Returns what an excerpt of the log has after an offset of the stream.

        Where the excerpt begins after the offset, because the back-end has dropped what came before, as
        many bytes as are gone are stood for by a record that says so.
        """
        begin = self._place(excerpt)
        if begin is None:  # nothing of the runner's yet: what precedes it stands at the very start
            return excerpt if offset == 0 else b""
        if begin > offset:
            return _filler(begin - offset)
        self.has_ended = self.has_ended or _LAST in excerpt
        return excerpt[offset - begin :]

    def _place(self, excerpt: bytes) -> int | None:
        """Returns the offset of the excerpt's first byte, and remembers the places that it tells of."""
        begin = None
        position = excerpt.find(MARK)
        while position >= 0:
            end = excerpt.find(b"\n", position)
            if end < 0:
                break
            if (place := _place_of(excerpt[position + 1 : end])) is not None:
                at, time = place
                begin = at - position if begin is None else begin
                self._remember(at, time)
            position = excerpt.find(MARK, end)
        return begin

    def _remember(self, at: int, time: float) -> None:
        if not self._offsets or at > self._offsets[-1]:
            self._offsets.append(at)
            self._times.append(time)
            if len(self._offsets) > _MARKS:
                # Every second one goes: readers far behind are helped too.
                self._offsets, self._times = self._offsets[::2], self._times[::2]


def _place_of(record: bytes) -> tuple[int, float] | None:
    if b'"at":' not in record:
        return None
    try:
        data = json.loads(record)
        return int(data["at"]), float(data["ts"])
    except (ValueError, KeyError, TypeError):
        return None


def _filler(size: int) -> bytes:
    """Returns a warning as a record of a size; of a very large one, the first part: the next read comes to the rest."""
    size = min(size, _LARGEST_GAP)
    message = f"{size} bytes of the job's log are gone: the back-end has rotated it before they were read"
    head = b"\n" + MARK + json.dumps({"v": 1, "type": "warning", "ts": 0.0, "message": message}).encode()[:-1]
    if size < len(head) + 2:
        return b"\n" * size
    return head + b" " * (size - len(head) - 2) + b"}\n"
