"""Reads a job's stream by offset from its log in Ray, which gives only a number of last lines.

The runner writes into its records at which byte of the stream they stand, so an excerpt can be
placed by the first such record in it; one that begins too late is asked for again, longer. What is
too much for one read stays open, and the next read goes on there: a log of a gigabyte crosses the
network once.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import AsyncIterator

from nemo_airflow.executors.ray.api import RayApi
from nemo_airflow.stream import MARK, read_place

_LINES = (32, 1024, 32768, 1 << 20, -1)
"""How many lines from the end are asked for, one after another; -1 for the whole log."""

_OPEN = 8
"""Logs that may stay open: the dashboard serves 100 such requests at once, for all its users."""


class LogReader:
    """Reads the logs of many jobs."""

    def __init__(self, api: RayApi) -> None:
        self._api = api
        self._open: collections.OrderedDict[tuple[str, int], _Excerpt] = collections.OrderedDict()
        """Excerpts that were not read to their end, by job and by the offset that comes next."""

    async def read(self, key: str, node: str, offset: int, limit: int) -> bytes:
        """Returns some of the bytes after an offset of a job's stream; none when there is nothing new.

        Args:
            key: The job's key.
            node: Id of the node that it runs on, or ran on.
            offset: Bytes of the stream.
            limit: Bytes to return at most, and a little more.
        """
        excerpt = self._open.pop((key, offset), None)
        if excerpt and (data := await self._take(excerpt, key, offset, limit)):
            return data
        for lines in _LINES if offset else _LINES[-1:]:
            excerpt = _Excerpt(self._api, node, f"job-driver-{key}.log", lines)
            try:
                begin = await excerpt.place()
                reaches = begin is not None and begin <= offset
                if reaches and await excerpt.skip(offset - (begin or 0)):
                    return await self._take(excerpt, key, offset, limit)
            except BaseException:
                await excerpt.close()
                raise
            await excerpt.close()
            if reaches or excerpt.missing:
                break
        return b""

    async def close(self) -> None:
        """Gives the open logs back."""
        while self._open:
            _, excerpt = self._open.popitem()
            await excerpt.close()

    async def _take(self, excerpt: _Excerpt, key: str, offset: int, limit: int) -> bytes:
        try:
            data = await excerpt.take(limit)
        except BaseException:
            await excerpt.close()
            raise
        if excerpt.ended:
            await excerpt.close()
            return data
        self._open[key, offset + len(data)] = excerpt
        if len(self._open) > _OPEN:
            _, oldest = self._open.popitem(last=False)
            await oldest.close()
        return data


class _Excerpt:
    """The last lines of one log, as they come."""

    def __init__(self, api: RayApi, node: str, path: str, lines: int) -> None:
        self._stack = contextlib.AsyncExitStack()
        self._file = api.file(node, path, lines)
        self._pieces: AsyncIterator[bytes] | None = None
        self._buffer = bytearray()
        self.missing = False
        """Whether there is no such log."""
        self.ended = False
        """Whether all of it was taken."""

    async def place(self) -> int | None:
        """Returns the offset in the stream of the excerpt's first byte; None when no record tells."""
        self._pieces = await self._stack.enter_async_context(self._file)
        if self._pieces is None:
            self.missing = True
            return None
        searched = 0
        while True:
            begin, searched = _place(self._buffer, searched)
            if begin is not None:
                return begin
            if not await self._more():
                return None

    async def skip(self, count: int) -> bool:
        """Passes over bytes; returns whether there are any after them."""
        while len(self._buffer) <= count:
            dropped = len(self._buffer)
            self._buffer.clear()
            count -= dropped
            if not await self._more():
                return False
        del self._buffer[:count]
        return True

    async def take(self, limit: int) -> bytes:
        """Returns what comes next, about as much as the limit."""
        while len(self._buffer) < limit and await self._more():
            continue
        data = bytes(self._buffer)
        self._buffer.clear()
        return data

    async def close(self) -> None:
        """Gives the connection back."""
        await self._stack.aclose()

    async def _more(self) -> bool:
        if self._pieces is None or self.ended:
            return False
        piece = await anext(self._pieces, None)
        if piece is None:
            self.ended = True
            return False
        self._buffer += piece
        return True


def _place(excerpt: bytearray, searched: int) -> tuple[int | None, int]:
    """Returns the offset of the excerpt's first byte, and up to where there is nothing that tells it."""
    position = excerpt.find(MARK, searched)
    while position >= 0:
        end = excerpt.find(b"\n", position)
        if end < 0:
            return None, position
        if (place := read_place(bytes(excerpt[position + 1 : end]))) is not None:
            return place[0] - position, position
        position = excerpt.find(MARK, end)
    return None, len(excerpt)
