"""All jobs of one connection: looked at together, judged one by one, each told its own trouble and nobody else's.

A service looks at all jobs that are due in one call of its driver, and reads all streams that may have grown in one
more. How often it looks at a job adapts: often while the job is young, seldom when it is old. A back-end that does not
answer says nothing of its jobs: nothing but a job's own end ends its watch, unless ``give_up_after`` says otherwise, or
the connection that leads there is not defined.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import random
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import ClassVar, TypeAlias

from nemo_airflow import settings
from nemo_airflow.exceptions import BackendUnavailable, NotDefinedError
from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor
from nemo_airflow.executors.seen import Seen
from nemo_airflow.job import JobHandle, JobState, JobStatus
from nemo_airflow.jobs.isolation import AWAY, IsolatingDriver, one_line
from nemo_airflow.jobs.judge import Policy, Sighting, add_sighting, judge, judge_unread
from nemo_airflow.jobs.outage import Outage
from nemo_airflow.jobs.turns import Turns

_AGE_SHARE = 0.02
"""A job is looked at each 2 % of its age, within the driver's limits: a minute-old job each 1.2 s."""

_IDLE_SHARE = 4.0
"""Seconds of rest for each second that a look took: many jobs, or a slow back-end, are looked at seldom."""

_LONGEST_REST = 2.0
_LONGEST_BACKOFF = 60.0
_SWEEP_EVERY = 600.0

_READ_AT_ONCE = 16 << 20
"""Bytes that are read of all jobs in one turn: each gets its part, and one that writes much keeps none waiting."""

_LEAST, _MOST = 16 << 10, 4 << 20
"""Bytes of one job in one turn."""

_UNUSED = 6 * 3600.0
"""Seconds after which a connection that nobody has asked for is closed, where a new one is opened."""

_REMEMBERED = 10_000
"""Ended jobs of which the end is remembered: also when somebody clears them away."""

_log = logging.getLogger(__name__)

_Id: TypeAlias = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Update:
    """What a watcher is told.

    Attributes:
        offset: Where ``data`` begins in the stream, in bytes.
        gone: How many bytes after ``offset`` are lost: the back-end has dropped them before they were read.
        data: New bytes of the stream, after those; may be empty.
        status: The job's status as last judged. Final in the last update only, after all data.
        outage: That the back-end, or this job in it, cannot be reached, or can again, in one line; else empty.
        is_over: Whether it can be reached again.
        cut: Whether the stream has no end record though the job's runner has ended: the last of it did not show.
    """

    offset: int = 0
    gone: int = 0
    data: bytes = b""
    status: JobStatus | None = None
    outage: str = ""
    is_over: bool = False
    cut: bool = False


@dataclasses.dataclass(eq=False)
class _Watch:
    handle: JobHandle
    offset: int
    due: float
    begun: float
    has_end_record: Callable[[], bool] | None
    since: float | None
    at_once: int
    queue: asyncio.Queue[Update | BaseException] = dataclasses.field(default_factory=asyncio.Queue)
    told: JobStatus | None = None
    """The status that the watcher was last told: it is not told the same again."""
    outage: Outage = dataclasses.field(default_factory=Outage)
    final_since: float | None = None
    unread_since: float | None = None
    """Since when the stream cannot be read, though the job has ended."""

    @property
    def id(self) -> _Id:
        return self.handle.key, self.handle.id

    @property
    def waiting(self) -> bool:
        """Whether the watcher has taken all it was given: no more is read for one that lags."""
        return self.queue.empty()


@dataclasses.dataclass(frozen=True)
class _Known:
    """What is known of one job."""

    status: JobStatus
    marked: bool = False
    """Whether its runner has left an end mark: then its stream has an end record."""
    trouble: str = ""


_Services: TypeAlias = "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, JobService]]"


class JobService:
    """Watches the jobs of one driver, for all who follow one. Use :meth:`shared`, inside an event loop.

    Args:
        driver: What talks to the back-end.
        policy: How long what is uncertain is waited for; that of the settings when None.

    Raises:
        SettingsError: A setting is not a number of seconds.
    """

    _shared: ClassVar[_Services] = weakref.WeakKeyDictionary()
    _closing: ClassVar[set[asyncio.Task[None]]] = set()

    def __init__(self, driver: Driver, policy: Policy | None = None) -> None:
        self._driver = driver
        self._isolating = IsolatingDriver(driver)
        self._policy = policy or Policy(lost_after=settings.lost_after())
        # Read here: a value that is none is refused when a job begins to be followed, and not in an outage.
        self._give_up_after = settings.give_up_after()
        self._watches: set[_Watch] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._rest = 0.0
        self._turns = Turns()
        self._sightings: OrderedDict[_Id, tuple[Sighting, ...]] = OrderedDict()
        self._ends: OrderedDict[_Id, _Known] = OrderedDict()
        self._sweeping: asyncio.Task[None] | None = None
        self._asked_for = time.monotonic()
        self._next_sweep = time.monotonic() + random.uniform(0, _SWEEP_EVERY)  # noqa: S311 - to spread triggerers

    @classmethod
    def shared(cls, executor: Executor) -> JobService:
        """Returns the running loop's service for the executor's connection."""
        services = cls._shared.setdefault(asyncio.get_running_loop(), {})
        key = executor.connection_key()
        if key not in services:
            cls._close_unused(services)
            services[key] = cls(executor.connect())
        services[key]._asked_for = time.monotonic()
        return services[key]

    @classmethod
    def _close_unused(cls, services: dict[Hashable, JobService]) -> None:
        """Closes connections that nobody uses: executors with templates may name a new one each day."""
        for key, service in list(services.items()):
            if not service._watches and time.monotonic() - service._asked_for > _UNUSED:
                del services[key]
                closing = asyncio.create_task(service._close(), name="nemo-close")
                cls._closing.add(closing)
                closing.add_done_callback(cls._closing.discard)

    async def _close(self) -> None:
        try:
            await self._driver.close()
        except Exception:  # noqa: BLE001 - what cannot be closed is not used any more
            _log.exception("a connection that was not used could not be closed")

    @property
    def driver(self) -> Driver:
        """What talks to the back-end."""
        return self._driver

    async def status(self, handles: Sequence[JobHandle]) -> dict[str, JobStatus]:
        """Looks at jobs, and returns how each fares, by key; UNKNOWN for one that could not be looked at.

        Raises:
            BackendUnavailable: The back-end cannot be reached.
        """
        known = await self._judge_all(handles)
        return {handle.key: known[handle.key, handle.id].status for handle in handles}

    async def watch(
        self,
        handle: JobHandle,
        offset: int = 0,
        has_end_record: Callable[[], bool] | None = None,
        since: float | None = None,
        at_once: int = _MOST,
    ) -> AsyncIterator[Update]:
        """Yields what the job writes from ``offset`` on and how it fares, until it has ended.

        The iterator can be left at any time, and begun again at any offset.

        Args:
            handle: The job.
            offset: Bytes of its stream that are known.
            has_end_record: Returns whether what was yielded has the stream's end record. Where the job's runner has
                left an end mark there is one, and the last update waits for it: some disks show files late.
            since: About when the job wrote what stands at ``offset``, as :attr:`Cursor.since`.
            at_once: Bytes that one update brings at most, where the back-end can cut there.

        Raises:
            BackendUnavailable: The back-end was away for longer than ``give_up_after``.
            NotDefinedError: There is no connection of the name that leads there.
        """
        now = time.monotonic()
        watch = _Watch(handle, offset, now, now, has_end_record, since, at_once)
        self._watches.add(watch)
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="nemo-jobs")
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
                self._sweep()
            except NotDefinedError as error:
                self._end_watches(error)
            except Exception as error:  # noqa: BLE001 - nothing else but a job's own end may end a watch
                if not isinstance(error, AWAY):
                    _log.exception("a look at jobs failed")
                self._tell_outage(self._watches, one_line(error))
                backoff = min(max(2 * backoff, self._driver.poll_interval[0], 0.5), _LONGEST_BACKOFF)
                # Not in step with others: a hundred workers would log in to one host at once.
                await asyncio.sleep(backoff * random.uniform(0.75, 1.25))  # noqa: S311

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
        slack = self._driver.poll_interval[0] / 2
        if not any(watch.waiting and watch.due <= now for watch in self._watches):
            return []
        return [watch for watch in self._watches if watch.waiting and watch.due <= now + slack]

    async def _tick(self, due: list[_Watch]) -> None:
        begun = time.monotonic()
        handles = list({watch.id: watch.handle for watch in due}.values())
        # Status before stream: all that a job wrote before it was seen to have ended is then read.
        known = await self._judge_all(handles)
        limit = max(min(_READ_AT_ONCE // len(due), _MOST), _LEAST)
        cursors = {
            (watch.handle.key, watch.offset): Cursor(
                watch.handle,
                watch.offset,
                min(limit, watch.at_once),
                known[watch.id].status.state.is_final,
                watch.since,
            )
            for watch in due
        }
        chunks = await self._isolating.read(list(cursors.values()))
        self._rest = min(_IDLE_SHARE * (time.monotonic() - begun), _LONGEST_REST)
        for watch in due:
            await self._turns.pause()
            self._tell(watch, known[watch.id], chunks.get((watch.handle.key, watch.offset)), min(limit, watch.at_once))

    def _tell(self, watch: _Watch, known: _Known, chunk: Chunk | None, limit: int) -> None:
        """Tells a watcher what is new of its job, and says when to look at it again."""
        chunk = chunk or Chunk(watch.handle.key, watch.offset, b"")
        data, status = chunk.data, known.status
        final, more, cut = status.state.is_final, bool(data), False
        if final and chunk.trouble and not (watch.has_end_record and watch.has_end_record()):
            now = time.monotonic()
            watch.unread_since = now if watch.unread_since is None else watch.unread_since
            status = judge_unread(status, chunk.trouble, now - watch.unread_since, self._policy)
            more = not status.state.is_final
        elif final and not more:
            more, cut = self._lacks_end_record(watch, known)
        trouble = known.trouble or ("" if final and not more else chunk.trouble)
        if trouble:
            self._tell_outage([watch], trouble)
        elif said := watch.outage.end(time.monotonic()):
            watch.queue.put_nowait(Update(watch.offset, outage=said, is_over=True))
        # A final status waits until nothing more comes.
        shown = None if more and final else status
        if data or cut or chunk.gone or shown != watch.told:
            watch.queue.put_nowait(Update(watch.offset, chunk.gone, data, shown, cut=cut))
            watch.told = shown
        watch.offset = chunk.end
        # A full chunk is followed by the next one at once: there is more.
        watch.due = time.monotonic() if data and (final or len(data) >= limit) else self._next_look(watch)

    def _lacks_end_record(self, watch: _Watch, known: _Known) -> tuple[bool, bool]:
        """Returns whether to wait for the end record of a job's stream, and whether that has been in vain."""
        if not known.marked or watch.has_end_record is None or watch.has_end_record():
            return False, False
        now = time.monotonic()
        if watch.final_since is None:
            watch.final_since = now
        waits = now - watch.final_since < self._policy.mark
        return waits, not waits

    def _tell_outage(self, watches: Sequence[_Watch] | set[_Watch], reason: str) -> None:
        limit = self._give_up_after
        for watch in list(watches):
            now = time.monotonic()
            if said := watch.outage.begin(now, reason):
                watch.queue.put_nowait(Update(watch.offset, outage=said))
            if limit is not None and watch.outage.lasts(now) > limit:
                self._watches.discard(watch)
                watch.queue.put_nowait(
                    BackendUnavailable(
                        f"job {watch.handle.key} could not be followed for {watch.outage.lasts(now):.0f} s, which is "
                        f"longer than NEMO_AIRFLOW_GIVE_UP_AFTER={limit:g} allows; the job may go on: {reason}"
                    )
                )

    def _end_watches(self, error: NotDefinedError) -> None:
        """Gives up all jobs: no waiting brings a connection that is not there, and each secrets back-end was asked."""
        for watch in list(self._watches):
            self._watches.discard(watch)
            watch.queue.put_nowait(
                NotDefinedError(f"job {watch.handle.key} cannot be followed, and may go on: {one_line(error)}")
            )

    def _next_look(self, watch: _Watch) -> float:
        """Returns when to look at a job again: on a grid, so that jobs fall due together."""
        now = time.monotonic()
        shortest, longest = self._driver.poll_interval
        age = now - watch.begun
        if watch.outage.is_on:  # a trouble of this job: it may last
            age = max(age, watch.outage.lasts(now) / _AGE_SHARE)
        pause = max(min(max(age * _AGE_SHARE, shortest), longest), self._rest)
        return math.ceil((now + pause) / shortest - 0.5) * shortest

    # Judging

    async def _judge_all(self, handles: Sequence[JobHandle]) -> dict[_Id, _Known]:
        known = {}
        unknown = []
        for handle in handles:
            if end := self._ends.get((handle.key, handle.id)):
                known[handle.key, handle.id] = end
            else:
                unknown.append(handle)
        while unknown:
            # Two jobs of one key, of which one is gone, are two questions.
            asked = {handle.key: handle for handle in reversed(unknown)}
            seen = await self._isolating.look(list(asked.values()))
            for key, handle in asked.items():
                await self._turns.pause()
                known[key, handle.id] = await self._judge(handle, seen[key])
            unknown = [handle for handle in unknown if asked[handle.key] is not handle]
        return known

    async def _judge(self, handle: JobHandle, seen: Seen) -> _Known:
        key = handle.key, handle.id
        sightings = self._sightings[key] = add_sighting(self._sightings.pop(key, ()), seen)
        while len(self._sightings) > _REMEMBERED:
            self._sightings.popitem(last=False)
        trouble = seen.trouble
        if not sightings:
            return _Known(JobStatus(JobState.UNKNOWN, reason=trouble), trouble=trouble)
        verdict = judge(sightings, self._policy)
        if verdict.give_up is not None:
            try:
                await self._driver.give_up(handle, verdict.give_up)
            except Exception as error:  # noqa: BLE001 - whatever it is, the job is judged again at the next look
                return _Known(JobStatus(JobState.RUNNING, reason=verdict.status.reason), trouble=one_line(error))
        known = _Known(verdict.status, sightings[-1].seen.mark is not None, trouble)
        if verdict.status.state.is_final:
            del self._sightings[key]
            self._ends[key] = known
            while len(self._ends) > _REMEMBERED:
                self._ends.popitem(last=False)
        return known

    def _sweep(self) -> None:
        """Begins to remove what was kept for its time, beside the looks, which do not wait for that."""
        if time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_EVERY
            self._sweeping = asyncio.create_task(self._remove_old(), name="nemo-sweep")

    async def _remove_old(self) -> None:
        try:
            await self._driver.sweep()
        except Exception as error:  # noqa: BLE001 - whatever it is, it waits for the next time
            _log.warning("what ended long ago was not removed: %s", one_line(error))
