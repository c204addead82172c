"""Hands what a job reports to a tracker, without ever holding up who follows the job.

The follower runs on an event loop, and a tracker blocks. So what it says goes into a queue, which
a small pool of threads empties, a batch at a time. While the tracking server is away the queue
fills; what no longer fits is dropped, and counted. The job never notices.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobHandle, JobStatus
from nemo_airflow.tracking.base import Metric, RunRef, Tracker
from nemo_airflow.tracking.buffer import PointBuffer

BATCH = 1000
"""Points handed to the tracker at once."""

_THREADS = 4
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_LONGEST_PAUSE_AT_THE_END = 2.0

_Call = tuple[str, Callable[[], None]]


class TrackerQueue:
    """What goes from one job to a tracker. To be used on one event loop; no method but ``drain`` waits.

    Args:
        tracker: Where it goes.
        ref: The job's run.
        warn: Called on the event loop with what people should know, in one line.
        interval: Seconds between batches.
        limit: How many points are kept while the server is away.
    """

    def __init__(
        self, tracker: Tracker, ref: RunRef, *, warn: Callable[[str], None], interval: float = 2.0, limit: int = 20_000
    ) -> None:
        self._tracker = tracker
        self._ref = ref
        self._warn = warn
        self._interval = interval
        self._points = PointBuffer(limit)
        self._calls: deque[_Call] = deque()
        self._last_calls: deque[_Call] = deque()
        self._refused: deque[str] = deque()
        self._mark_known = False
        self._failures = 0
        self._warned: set[str] = set()
        self._ending = asyncio.Event()
        self._delivery: asyncio.Task[None] | None = None

    @property
    def acknowledged(self) -> int:
        """Offset in the stream, in bytes, up to which no point is missing: from here it can be read again."""
        return self._points.acknowledged

    @property
    def dropped(self) -> int:
        """How many points were dropped because the server was away for too long."""
        return self._points.dropped

    @property
    def complete(self) -> bool:
        """Whether none of the user's points was dropped; system samples do not count."""
        return self._points.complete

    def put_metrics(self, metrics: Sequence[Metric], mark: int) -> None:
        """Takes points.

        Args:
            metrics: The points of one record.
            mark: Offset of the record's end in the job's stream, in bytes. When the stream is read
                again, points that are recorded already are passed over by it.
        """
        self._points.put(metrics, mark)
        if self._points.dropped:
            self._warn_once(
                "dropped",
                f"{self._ref.uri} is away for long: the oldest points are dropped, system samples first",
            )
        self._begin()

    def put_config(self, plan: Mapping[str, Any]) -> None:
        """Takes the resolved config."""
        self._put("the config", lambda: self._tracker.config(self._ref, plan))

    def put_environment(self, environment: Mapping[str, Any]) -> None:
        """Takes the job's environment."""
        self._put("the environment", lambda: self._tracker.environment(self._ref, environment))

    def put_tags(self, tags: Mapping[str, str]) -> None:
        """Takes tags."""
        self._put("tags", lambda: self._tracker.tag(self._ref, tags))

    def put_started(self, handle: JobHandle, script: str) -> None:
        """Takes where the job runs."""
        self._put("where the job runs", lambda: self._tracker.started(self._ref, handle, script))

    def put_artifacts(self, folder: Path) -> None:
        """Takes a folder of files; it must stay until :meth:`drain` has returned."""
        self._put("the artifacts", lambda: self._tracker.artifacts(self._ref, folder), last=True)

    def put_ended(self, status: JobStatus, *, error: str = "") -> None:
        """Takes how the job ended. Like the artifacts, it is recorded after all that is put before or after it."""
        self._put("the job's end", lambda: self._tracker.ended(self._ref, status, error=error), last=True)

    def put_parent_closed(self, *, succeeded: bool) -> None:
        """Takes that this was, as far as is known now, the last job of the DAG run; another opens the parent again."""
        self._put(
            "the end of the parent run", lambda: self._tracker.close_parent(self._ref, succeeded=succeeded), last=True
        )

    async def drain(self, within: float) -> bool:
        """Waits until everything is recorded, and gives up what is not by then.

        Args:
            within: Seconds to wait at most.

        Returns:
            Whether everything was recorded. If not, there was a warning that says what is missing.
        """
        self._ending.set()
        if self._delivery is not None:
            await asyncio.wait([self._delivery], timeout=within)
        left = self._left()
        if left:
            self._warn(f"{self._ref.uri} did not take in time, for run {self._ref.run_id}: {', '.join(left)}")
            await self._give_up()
        if self._points.dropped:
            self._warn(
                f"{self._points.dropped} points of run {self._ref.run_id} were dropped while {self._ref.uri} was away"
            )
        return not left and not self._points.dropped and not self._warned & {"refused"}

    def _put(self, what: str, call: Callable[[], None], *, last: bool = False) -> None:
        (self._last_calls if last else self._calls).append((what, call))
        self._begin()

    def _begin(self) -> None:
        if self._delivery is None or self._delivery.done():
            self._delivery = asyncio.get_running_loop().create_task(
                self._deliver(), name=f"nemo-tracking-{self._ref.run_id}"
            )

    async def _deliver(self) -> None:
        """Runs while there is something to record."""
        loop = asyncio.get_running_loop()
        while self._left():
            await self._pause()
            try:
                await loop.run_in_executor(_pool(os.getpid()), self._send)
            except TrackingError as error:
                self._failures += 1
                self._warn_once("away", f"tracking is delayed, the job goes on: {error}")
            else:
                if self._failures:
                    self._warned.discard("away")
                    self._warn(f"the tracking server {self._ref.uri} is back")
                self._failures = 0
            while self._refused:
                self._warned.add("refused")
                self._warn(self._refused.popleft())

    async def _pause(self) -> None:
        """Waits before the next batch; shorter, but for the pauses after a failure, when the job has ended."""
        if not self._failures:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), self._interval)
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10)) * random.uniform(0.7, 1.0)  # noqa: S311 - only spreads the load
        if not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
        else:
            await asyncio.sleep(min(pause, _LONGEST_PAUSE_AT_THE_END))

    def _send(self) -> None:
        """Records what there is. Runs in a thread of the pool; there is never more than one for a queue."""
        self._make(self._calls)
        if len(self._points) and not self._mark_known:
            self._points.acknowledge(self._tracker_mark())
            self._mark_known = True
        while (batch := self._points.take(BATCH)) is not None:
            try:
                self._attempt("points", functools.partial(self._tracker.metrics, self._ref, batch.metrics, batch.mark))
            except TrackingError:
                self._points.put_back(batch)
                raise
            if batch.mark:
                self._points.acknowledge(batch.mark)
        self._make(self._last_calls)

    def _make(self, calls: deque[_Call]) -> None:
        while calls:
            self._attempt(*calls[0])
            with contextlib.suppress(IndexError):  # given up meanwhile
                calls.popleft()

    def _tracker_mark(self) -> int:
        marks: list[int] = []
        self._attempt("the mark", lambda: marks.append(self._tracker.mark(self._ref)))
        return marks[0] if marks else 0

    def _attempt(self, what: str, call: Callable[[], None]) -> None:
        """Makes a call to the tracker. One that a retry would not mend is given up."""
        try:
            call()
        except Exception as error:  # whatever is wrong with a tracker, a job is followed to its end
            if isinstance(error, TrackingError) and error.transient:
                raise
            self._refused.append(
                f"{what} of run {self._ref.run_id} could not be recorded: {str(error) or type(error).__name__}"
            )

    def _left(self) -> list[str]:
        points = len(self._points)
        return [*([f"{points} points"] if points else []), *(what for what, _ in (*self._calls, *self._last_calls))]

    async def _give_up(self) -> None:
        self._calls.clear()
        self._last_calls.clear()
        if self._delivery is not None:
            self._delivery.cancel()
            await asyncio.wait([self._delivery])

    def _warn_once(self, about: str, line: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self._warn(line)


@functools.cache
def _pool(pid: int) -> ThreadPoolExecutor:
    """Returns this process's threads; a fork has none of its parent's."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=f"nemo-tracking-{pid}")
