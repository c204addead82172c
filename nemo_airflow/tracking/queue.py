"""Passes a job's reports to a tracker without delaying the follower of the job.

The follower runs on an event loop, and a tracker blocks. So records go into a queue, which
threads empty in batches. Records and files have separate lanes: a store of files that is slow, unreachable or
refuses does not delay records. While the tracking server is unreachable the queue fills; what it has not taken at the
end is handed over to be kept. The job is not affected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from nemo_airflow.exceptions import TrackingError
from nemo_airflow.tracking.base import Metric, PartlyRefusedError, RunRef, Tracker
from nemo_airflow.tracking.buffer import PointBuffer
from nemo_airflow.tracking.calls import Call
from nemo_airflow.tracking.lane import Lane
from nemo_airflow.tracking.outbox import LIMIT, Outbox, Refusal

_WAIT_FOR_ANSWER = 10.0
"""Seconds for which a tracker that does not answer is waited for at the end, where what is left can be kept."""


class TrackerQueue:
    """The queue from one job to a tracker. To be used on one event loop; only ``drain`` waits.

    Args:
        tracker: The tracker.
        ref: The job's run.
        warn: Called on the event loop with a warning, in one line.
        interval: Seconds between batches.
        limit: Most points in the queue while the server is unreachable.
        outbox: What waits already; replaces ``limit``.
        keep: Keeps what still waits at the end, and returns where it is.
        answered: Called on the event loop when the tracker has taken something.
    """

    def __init__(
        self,
        tracker: Tracker,
        ref: RunRef,
        *,
        warn: Callable[[str], None],
        interval: float = 2.0,
        limit: int = LIMIT,
        outbox: Outbox | None = None,
        keep: Callable[[], Awaitable[str]] | None = None,
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        self._tracker = tracker
        self._ref = ref
        self._warn = warn
        self._outbox = Outbox(PointBuffer(limit)) if outbox is None else outbox
        self._points = self._outbox.points
        self._refused_points: list[int] = []
        self._keep = keep
        self._answered = answered
        self._warned: set[str] = set()
        self._ending = asyncio.Event()
        self._records = Lane(
            "records",
            send=lambda: self._outbox.send_records(tracker, ref),
            waits=lambda: bool(self._outbox.records_left),
            interval=interval,
            ending=self._ending,
            failed=lambda error: self._warn_once("away", f"tracking is delayed, the job goes on: {error}"),
            recovered=self._say_back,
            done=self._end_round,
        )
        self._files = Lane(
            "files",
            send=lambda: self._outbox.send_files(tracker, ref),
            waits=lambda: bool(self._outbox.file_calls),
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
            why = f" ({self._points.problem})" if self._keep is not None else ""
            self._warn_once(
                "dropped",
                f"{self._ref.uri} is away for long: the oldest points are dropped, system samples first{why}",
            )
        self._records.begin()

    def put(self, call: Call) -> None:
        """Adds a call."""
        self._outbox.put(call)
        self._records.begin()

    async def drain(self, within: float) -> bool:
        """Waits until everything is recorded, or the time is over.

        Args:
            within: Most seconds to wait.

        Returns:
            Whether everything was recorded, or is kept to be recorded later. If not, there was a warning that says
            what is missing.
        """
        self._ending.set()
        end = asyncio.get_running_loop().time() + within
        while_failing = _WAIT_FOR_ANSWER if self._keep is not None else None
        await self._records.drain(within, while_failing)
        await self._files.drain(end - asyncio.get_running_loop().time(), while_failing)
        left = self._outbox.left
        if left:
            await self.stop()
            line = f"{self._ref.uri} did not accept these in time for run {self._ref.run_id}: {', '.join(left)}"
            try:
                self._warn(f"{line}{await self._keep() if self._keep is not None else ''}")
                left = left if self._keep is None else []
            except OSError as error:
                self._warn(f"{line}; they are lost, as they cannot be kept here: {error}")
            self._outbox.clear()
        if self._points.dropped:
            self._warn(
                f"{self._points.dropped} points of run {self._ref.run_id} were dropped while {self._ref.uri} was away"
            )
        if len(self._refused_points) > 1:
            self._warn(f"{sum(self._refused_points)} points of run {self._ref.run_id} were refused in all")
        return not left and not self._points.dropped and not self._warned & {"refused"}

    async def stop(self) -> None:
        """Stops sending."""
        await self._records.stop()
        await self._files.stop()

    def _end_round(self) -> None:
        if not self._records.is_failing:
            self._answered()
        while self._outbox.refusals:
            self._warned.add("refused")
            self._say_refused(self._outbox.refusals.popleft())
        self._files.begin()

    def _say_refused(self, refusal: Refusal) -> None:
        run, what, error = self._ref.run_id, refusal.call, refusal.error
        if refusal.of_files:
            # A store refuses all files for the same reason: it is reported once.
            code = error.code if isinstance(error, TrackingError) else ""
            about = f"files: {code or refusal.reason}"
            line = f"not all files of run {run} were uploaded; its other records were: {what}: {refusal.reason}"
        else:
            about = line = f"{what} of run {run} could not be recorded: {refusal.reason}"
            if what == "points" and isinstance(error, PartlyRefusedError):
                # A job may log a refused point each step: the first are named, and all are counted at the end.
                self._refused_points.append(error.count)
                about = "refused points"
        self._warn_once(about, line)

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

    def _warn_once(self, about: str, line: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            self._warn(line)
