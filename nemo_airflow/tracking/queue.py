"""Passes a job's reports to a tracker without delaying the follower of the job.

The follower runs on an event loop, and a tracker blocks. So records go into a queue, which
threads empty in batches. Records and files have separate lanes: a store of files that is slow, unreachable or
refuses does not delay records. While the tracking server is unreachable the queue fills; points that no longer fit
are dropped and counted. The job is not affected.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.job import JobHandle, JobStatus
from nemo_airflow.tracking.base import Metric, PartlyRefusedError, RunRef, Tracker
from nemo_airflow.tracking.buffer import PointBuffer
from nemo_airflow.tracking.lane import Lane

BATCH = 1000
"""Points in one call of the tracker."""

LIMIT = 20_000
"""Points in the queue while the server is unreachable."""

_Call = tuple[str, Callable[[], "Mapping[str, str] | None"]]


class TrackerQueue:
    """The queue from one job to a tracker. To be used on one event loop; only ``drain`` waits.

    Args:
        tracker: The tracker.
        ref: The job's run.
        warn: Called on the event loop with a warning, in one line.
        interval: Seconds between batches.
        limit: Most points in the queue while the server is unreachable.
        points: A buffer with points that already wait; replaces ``limit``.
    """

    def __init__(
        self,
        tracker: Tracker,
        ref: RunRef,
        *,
        warn: Callable[[str], None],
        interval: float = 2.0,
        limit: int = LIMIT,
        points: PointBuffer | None = None,
    ) -> None:
        self._tracker = tracker
        self._ref = ref
        self._warn = warn
        self._points = PointBuffer(limit) if points is None else points
        self._calls: deque[_Call] = deque()
        self._last_calls: deque[_Call] = deque()
        self._file_calls: deque[_Call] = deque()
        self._refused: deque[tuple[str, str]] = deque()
        self._refused_points: list[int] = []
        self._mark_known = False
        self._warned: set[str] = set()
        self._ending = asyncio.Event()
        self._records = Lane(
            "records",
            send=self._send_records,
            waits=lambda: bool(self._records_left()),
            interval=interval,
            ending=self._ending,
            failed=lambda error: self._warn_once("away", f"tracking is delayed, the job goes on: {error}"),
            recovered=self._say_back,
            done=self._end_round,
        )
        self._files = Lane(
            "files",
            send=lambda: self._make(self._file_calls, files=True),
            waits=lambda: bool(self._file_calls),
            interval=interval,
            ending=self._ending,
            failed=self._say_files_wait,
            recovered=self._say_files_kept,
            done=self._end_round,
        )
        self._records.begin()

    @property
    def acknowledged(self) -> int:
        """Offset in the stream, in bytes, up to which no point is missing: reading can resume here."""
        return self._points.acknowledged

    @property
    def dropped(self) -> int:
        """Number of points dropped because the server was unreachable for too long."""
        return self._points.dropped

    @property
    def complete(self) -> bool:
        """Whether no point of the user was dropped; system samples do not count."""
        return self._points.complete

    def put_metrics(self, metrics: Sequence[Metric], mark: int) -> None:
        """Adds points.

        Args:
            metrics: The points of one record.
            mark: Offset of the record's end in the job's stream, in bytes. When the stream is read
                again, it identifies points that are already recorded.
        """
        self._points.put(metrics, mark)
        if self._points.dropped:
            self._warn_once(
                "dropped",
                f"{self._ref.uri} is away for long: the oldest points are dropped, system samples first",
            )
        self._records.begin()

    def put_config(self, plan: Mapping[str, Any]) -> None:
        """Adds the resolved config."""
        self._put("the config", lambda: self._tracker.config(self._ref, plan))

    def put_environment(self, environment: Mapping[str, Any]) -> None:
        """Adds the job's environment."""
        self._put("the environment", lambda: self._tracker.environment(self._ref, environment))

    def put_tags(self, tags: Mapping[str, str]) -> None:
        """Adds tags."""
        self._put("tags", lambda: self._tracker.tag(self._ref, tags))

    def put_started(self, handle: JobHandle, script: str) -> None:
        """Adds the handle and the request of the job."""
        self._put("where the job runs", lambda: self._tracker.started(self._ref, handle, script))

    def put_artifacts(self, folder: Path) -> None:
        """Adds a folder of files, which must stay until :meth:`drain` has returned."""
        self._file_calls.append(("the artifacts", lambda: self._tracker.artifacts(self._ref, folder)))
        self._files.begin()

    def put_ended(self, status: JobStatus, *, error: str = "") -> None:
        """Adds the job's end. It is recorded after all other records, but does not wait for files."""
        self._put("the job's end", lambda: self._tracker.ended(self._ref, status, error=error), last=True)

    def put_parent_closed(self, *, succeeded: bool) -> None:
        """Adds the end of the parent run, if this is the last job so far; a later job reopens the parent."""
        self._put(
            "the end of the parent run", lambda: self._tracker.close_parent(self._ref, succeeded=succeeded), last=True
        )

    async def drain(self, within: float) -> bool:
        """Waits until everything is recorded, or the time is over.

        Args:
            within: Most seconds to wait.

        Returns:
            Whether everything was recorded. If not, there was a warning that says what is missing.
        """
        self._ending.set()
        end = asyncio.get_running_loop().time() + within
        await self._records.drain(within)
        await self._files.drain(end - asyncio.get_running_loop().time())
        left = [*self._records_left(), *(what for what, _ in self._file_calls)]
        if left:
            self._warn(f"{self._ref.uri} did not accept these in time for run {self._ref.run_id}: {', '.join(left)}")
            await self._give_up()
        if self._points.dropped:
            self._warn(
                f"{self._points.dropped} points of run {self._ref.run_id} were dropped while {self._ref.uri} was away"
            )
        if len(self._refused_points) > 1:
            self._warn(f"{sum(self._refused_points)} points of run {self._ref.run_id} were refused in all")
        return not left and not self._points.dropped and not self._warned & {"refused"}

    def _put(self, what: str, call: Callable[[], Mapping[str, str] | None], *, last: bool = False) -> None:
        (self._last_calls if last else self._calls).append((what, call))
        self._records.begin()

    def _send_records(self) -> None:
        """Sends waiting records. Runs in a thread, at most one for a queue."""
        self._make(self._calls)
        if len(self._points) and not self._mark_known:
            self._points.acknowledge(self._tracker_mark())
            self._mark_known = True
        while (batch := self._points.take(BATCH)) is not None:
            try:
                # What stands before these points is recorded before them: a reader may begin anew at their mark.
                self._make(self._calls)
                self._attempt("points", functools.partial(self._tracker.metrics, self._ref, batch.metrics, batch.mark))
            except TrackingError:
                self._points.put_back(batch)
                raise
            if batch.mark:
                self._points.acknowledge(batch.mark)
        self._make(self._last_calls)

    def _make(self, calls: deque[_Call], *, files: bool = False) -> None:
        while calls:
            what, call = calls[0]
            texts = self._attempt(what, call, files=files)
            with contextlib.suppress(IndexError):  # given up in the meantime
                calls.popleft()
            if texts:
                keep = functools.partial(self._tracker.documents, self._ref, texts)
                self._file_calls.append((f"the document of {what.removeprefix('the ')}", keep))

    def _tracker_mark(self) -> int:
        marks: list[int] = []
        self._attempt("the mark", lambda: marks.append(self._tracker.mark(self._ref)))
        return marks[0] if marks else 0

    def _attempt(
        self, what: str, call: Callable[[], Mapping[str, str] | None], *, files: bool = False
    ) -> Mapping[str, str] | None:
        """Calls the tracker. A call with a permanent error is dropped."""
        try:
            return call()
        except Exception as error:  # an error of a tracker must not stop the following of a job
            if isinstance(error, TrackingError) and error.transient:
                raise
            text = str(error) or type(error).__name__
            if files:
                # A store refuses all files for the same reason: it is reported once.
                code = error.code if isinstance(error, TrackingError) else ""
                line = f"not all files of run {self._ref.run_id} were uploaded; its other records were: {what}: {text}"
                self._refused.append((f"files: {code or text}", line))
            else:
                line = f"{what} of run {self._ref.run_id} could not be recorded: {text}"
                about = line
                if what == "points" and isinstance(error, PartlyRefusedError):
                    # A job may log a refused point each step: the first are named, and all are counted at the end.
                    self._refused_points.append(error.count)
                    about = "refused points"
                self._refused.append((about, line))
            return error.documents if isinstance(error, PartlyRefusedError) else None

    def _end_round(self) -> None:
        while self._refused:
            about, line = self._refused.popleft()
            self._warned.add("refused")
            self._warn_once(about, line)
        self._files.begin()

    def _say_back(self) -> None:
        self._warned.discard("away")
        self._warn(f"the tracking server {self._ref.uri} is back")

    def _say_files_wait(self, error: TrackingError) -> None:
        if not self._records.is_failing:  # otherwise already reported
            self._warn_once("files wait", f"the files of run {self._ref.run_id} are not kept yet: {error}")

    def _say_files_kept(self) -> None:
        if "files wait" in self._warned:
            self._warned.discard("files wait")
            self._warn(f"the files of run {self._ref.run_id} can be uploaded again")

    def _records_left(self) -> list[str]:
        points = len(self._points)
        return [*([f"{points} points"] if points else []), *(what for what, _ in (*self._calls, *self._last_calls))]

    async def _give_up(self) -> None:
        for calls in (self._calls, self._last_calls, self._file_calls):
            calls.clear()
        await self._records.stop()
        await self._files.stop()

    def _warn_once(self, about: str, line: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self._warn(line)
