"""One poller a back-end connection, shared by all jobs that are watched on it.

A monitor looks at all jobs that are due in one call, and reads all streams that may have grown in
one more. How often it looks at a job adapts: often while the job is young, seldom when it is old.
A back-end that cannot be reached says nothing of its jobs: the monitor tries again, ever slower,
and tells each watcher once.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import time
import weakref
from collections.abc import AsyncIterator, Hashable
from typing import ClassVar, TypeAlias

from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.base import Cursor, Executor, Session
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus

_AGE_SHARE = 0.02
"""A job is looked at each 2 % of its age, within the session's limits: a minute-old job each 1.2 s."""

_IDLE_SHARE = 4.0
"""Seconds of rest for each second that a look took: many jobs, or a slow back-end, are looked at seldom."""

_LONGEST_REST = 2.0

_LONGEST_BACKOFF = 60.0


@dataclasses.dataclass(frozen=True)
class Update:
    """What a watcher is told.

    Attributes:
        offset: Where ``data`` begins in the stream, in bytes.
        data: New bytes of the stream; may be empty.
        status: The job's status as last seen. Final in the last update only, after all data.
        outage: Why the back-end cannot be reached, once for each outage; else empty.
    """

    offset: int = 0
    data: bytes = b""
    status: JobStatus | None = None
    outage: str = ""


@dataclasses.dataclass(eq=False)
class _Watch:
    handle: JobHandle
    offset: int
    due: float
    begun: float
    queue: asyncio.Queue[Update | BaseException]
    misses: int = 0
    told: JobStatus | None = None
    """The status that the watcher was last told: it is not told the same again."""

    @property
    def waiting(self) -> bool:
        """Whether the watcher has taken all it was given: no more is read for one that lags."""
        return self.queue.empty()


_Monitors: TypeAlias = "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Monitor]]"


class Monitor:
    """Polls one session for all its watchers. Use :meth:`shared`, inside an event loop."""

    _shared: ClassVar[_Monitors] = weakref.WeakKeyDictionary()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._watches: set[_Watch] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rest = 0.0

    @classmethod
    def shared(cls, executor: Executor) -> Monitor:
        """Returns the running loop's monitor for the executor's connection."""
        monitors = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = executor.connection_key()
        if key not in monitors:
            monitors[key] = cls(executor.connect())
        return monitors[key]

    @property
    def session(self) -> Session:
        """The session that it polls, for the verbs that are not watching."""
        return self._session

    async def watch(self, handle: JobHandle, offset: int = 0) -> AsyncIterator[Update]:
        """Yields what the job writes from ``offset`` on and how it fares, until it has ended.

        The iterator can be left at any time, and begun again at any offset.
        """
        now = time.monotonic()
        watch = _Watch(handle, offset, due=now, begun=now, queue=asyncio.Queue())
        self._watches.add(watch)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="nemo-monitor")
        try:
            while True:
                update = await watch.queue.get()
                if isinstance(update, BaseException):
                    raise update
                self._wake.set()
                yield update
                if update.status and update.status.state.is_final:
                    return
        finally:
            self._watches.discard(watch)
            self._wake.set()

    async def _run(self) -> None:
        backoff = 0.0
        while self._watches:
            due = await self._next_due()
            if not due:
                continue
            try:
                await self._tick(due)
                backoff = 0.0
            except BackendUnavailable as error:
                if not backoff:
                    for watch in self._watches:
                        watch.queue.put_nowait(Update(watch.offset, outage=str(error)))
                backoff = min(max(2 * backoff, self._session.poll_interval[0], 0.5), _LONGEST_BACKOFF)
                await asyncio.sleep(backoff)
            except Exception as error:  # noqa: BLE001 - a fault of the adapter is told to every watcher, who raise it
                for watch in due:
                    self._watches.discard(watch)
                    watch.queue.put_nowait(error)

    async def _next_due(self) -> list[_Watch]:
        """Waits until a job is due, or a watcher has come, gone or caught up."""
        self._wake.clear()
        waiting = [watch for watch in self._watches if watch.waiting]
        pause = min((watch.due for watch in waiting), default=time.monotonic() + 3600) - time.monotonic()
        if pause > 0:
            with contextlib.suppress(TimeoutError):  # the time-out: a job is due now
                await asyncio.wait_for(self._wake.wait(), pause)
        now = time.monotonic()
        # Those due within the shortest interval go along: one call for all of them.
        slack = self._session.poll_interval[0] / 2
        if not any(watch.waiting and watch.due <= now for watch in self._watches):
            return []
        return [watch for watch in self._watches if watch.waiting and watch.due <= now + slack]

    async def _tick(self, due: list[_Watch]) -> None:
        begun = time.monotonic()
        # Status before stream: all that a job wrote before it was seen to have ended is then read.
        statuses = await self._session.poll([watch.handle for watch in due])
        chunks = await self._session.read([Cursor(watch.handle, watch.offset) for watch in due])
        self._rest = min(_IDLE_SHARE * (time.monotonic() - begun), _LONGEST_REST)
        by_key = {chunk.key: chunk for chunk in chunks}
        for watch in due:
            chunk = by_key.get(watch.handle.key)
            status = self._judge(watch, statuses[watch.handle.key])
            data = chunk.data if chunk is not None else b""
            # A final status waits until nothing more comes.
            more = bool(data) or (chunk is not None and chunk.awaited)
            shown = None if more and status.state.is_final else status
            if data or shown != watch.told:
                watch.queue.put_nowait(Update(watch.offset, data, shown))
                watch.told = shown
            watch.offset += len(data)
            watch.due = time.monotonic() if data and status.state.is_final else self._next_look(watch)

    def _next_look(self, watch: _Watch) -> float:
        """Returns when to look at a job again: on a grid, so that jobs fall due together."""
        now = time.monotonic()
        shortest, longest = self._session.poll_interval
        pause = max(min(max((now - watch.begun) * _AGE_SHARE, shortest), longest), self._rest)
        return math.ceil((now + pause) / shortest - 0.5) * shortest

    def _judge(self, watch: _Watch, status: JobStatus) -> JobStatus:
        """Turns UNKNOWN into LOST after several misses: one empty answer is no evidence."""
        if status.state is not JobState.UNKNOWN:
            watch.misses = 0
            return status
        watch.misses += 1
        if watch.misses < self._session.misses:
            return status
        return dataclasses.replace(status, state=JobState.LOST, failure=FailureKind.LOST)
