"""Reads a stream by offset out of a log that can only be asked for what came since a time.

The runner writes into its records at which byte of the stream they stand, so any excerpt of a log
can be placed, whatever was cut off before it.
"""

from __future__ import annotations

import bisect
import dataclasses
import math

from nemo_airflow.executors.base import Chunk, Cursor
from nemo_airflow.stream import MARK, read_place

_LAST = MARK + b'{"v":1,"type":"end",'

_SLACK = 2.0
"""Seconds by which a log's own times may differ from those in the records."""

_BACK = (60.0, 3600.0, 86400.0)
"""Seconds by which a clock may have been set back: so much earlier a log is asked for that lacks what is looked for."""

_MARKS = 512
"""How many places of one log are remembered: enough for readers that lag a minute behind."""


@dataclasses.dataclass(frozen=True)
class Ask:
    """What to ask a back-end for.

    Attributes:
        since: The log from when on, in seconds since the epoch; None for the log from its beginning.
        limit: Bytes of it at most.
        tries: How often the same was asked for with an earlier time.
    """

    since: float | None
    limit: int
    tries: int = 0


class TimedLog:
    """What is known of one job's log: at which offset of the stream which time was.

    Attributes:
        has_ended: Whether the runner's last record was taken.
    """

    def __init__(self) -> None:
        self.has_ended = False
        self._offsets: list[int] = []
        self._times: list[float] = []

    def ask(self, cursor: Cursor) -> Ask:
        """Returns what to ask for, to get the bytes after a cursor."""
        return Ask(self._since(cursor), cursor.limit)

    def take(self, excerpt: bytes, cursor: Cursor, ask: Ask) -> Chunk | Ask:
        """Returns what an excerpt of the log has after a cursor; or what to ask for instead, where it has nothing."""
        gone, data = self._after(excerpt, cursor.offset)
        if gone and (earlier := self._earlier(ask)):
            return earlier  # the time was too late, and nothing may be gone
        if gone or data:
            return Chunk(cursor.handle.key, cursor.offset, data, gone)
        if len(excerpt) >= ask.limit:  # all of it was written within the slack of the times
            return dataclasses.replace(ask, limit=4 * ask.limit)
        if cursor.ended and not self.has_ended and (earlier := self._earlier(ask)):
            return earlier
        return Chunk(cursor.handle.key, cursor.offset, b"")

    def _earlier(self, ask: Ask) -> Ask | None:
        """Returns the same for an earlier time; None where there is none."""
        if ask.since is None:
            return None
        back = _BACK[ask.tries] if ask.tries < len(_BACK) else None
        return Ask(None if back is None else ask.since - back, ask.limit, ask.tries + 1)

    def _since(self, cursor: Cursor) -> float | None:
        # The mark itself has to be in the excerpt, or the excerpt could not be placed.
        index = bisect.bisect_right(self._offsets, cursor.offset) - 1
        if index >= 0 and self._offsets[index] > 0:
            return math.floor(self._times[index] - _SLACK)
        return None if cursor.since is None else math.floor(cursor.since - _SLACK)

    def _after(self, excerpt: bytes, offset: int) -> tuple[int, bytes]:
        """Returns how many bytes after an offset the back-end has dropped, and what an excerpt has after those."""
        begin = self._place(excerpt)
        if begin is None:  # nothing of the runner's yet: what precedes it stands at the very start
            return 0, excerpt if offset == 0 else b""
        gone = max(begin - offset, 0)
        data = excerpt[offset + gone - begin :]
        self.has_ended = self.has_ended or (_LAST in excerpt and bool(data))
        return gone, data

    def _place(self, excerpt: bytes) -> int | None:
        """Returns the offset of the excerpt's first byte, and remembers the places that it tells of."""
        begin = None
        position = excerpt.find(MARK)
        while position >= 0:
            end = excerpt.find(b"\n", position)
            if end < 0:
                break
            if (place := read_place(excerpt[position + 1 : end])) is not None:
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
