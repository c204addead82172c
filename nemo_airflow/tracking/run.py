"""One job's run in a tracker: opened before the job is submitted, written while it runs, closed at its end.

Opening it in the worker gives the job its run id, and the task its link. If the tracking server
is unreachable then, the job is submitted anyway, and its follower opens the run later.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow.connections import redact
from nemo_airflow.exceptions import NemoAirflowError, TrackingError
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState, JobStatus
from nemo_airflow.stream import IMAGE, Record
from nemo_airflow.stream import PHASES as PHASES_RECORD
from nemo_airflow.tracking import calls, reserved
from nemo_airflow.tracking.artifacts import tags_of_artifacts
from nemo_airflow.tracking.base import IMAGE_DIGEST, PHASES, Metric, RunInput, RunRef, Tracker
from nemo_airflow.tracking.buffer import PointBuffer
from nemo_airflow.tracking.calls import Call
from nemo_airflow.tracking.outbox import LIMIT, Outbox
from nemo_airflow.tracking.queue import TrackerQueue
from nemo_airflow.tracking.registry import tracker_from_json
from nemo_airflow.tracking.undelivered import Undelivered

_DRAIN = 120.0
"""Most seconds for which a task waits for its tracker after the job's end."""

_OPEN_AGAIN = 15.0
"""Seconds between two tries to open a run whose tracker is unreachable, and for the last tries after the job's end."""

_LAST_PAUSE = 1.0

_LAST_WORD = 5.0
"""Seconds for which the tracker is told of an end that nobody follows: who tells it has to end, too."""

ENDED_BY_USER = JobStatus(JobState.CANCELLED, failure=FailureKind.CANCELLED, reason="a user has ended its task")

_INPUT_FIELDS = [field.name for field in dataclasses.fields(RunInput)]


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A job's run, or the data to open it later.

    Attributes:
        tracker: The tracker.
        job: The job.
        experiment: Name of the experiment.
        shares_filesystem: Whether the job sees this machine's files.
        collector: Which outputs are kept, as ``"pkg.mod:Class"``; empty for all.
        ref: The run; None while the tracker could not be reached.
        handle: The submitted job; None before.
        script: The request to the back-end, for people.
        began: When the run began, seconds since the epoch, or None.
    """

    tracker: Tracker
    job: Job
    experiment: str
    shares_filesystem: bool
    collector: str = ""
    ref: RunRef | None = None
    handle: JobHandle | None = None
    script: str = ""
    began: float | None = None

    def open(self) -> TrackedRun:
        """Returns the run with its reference. Blocks.

        Raises:
            TrackingError: The tracker cannot be reached, or refuses.
        """
        labels = self.job.labels
        # A job that was launched by hand has no DAG run above it.
        parent = f"{labels['dag_id']} {labels.get('run_id', '')}".strip() if "dag_id" in labels else ""
        ref = self.tracker.open(
            self.job,
            experiment=self.experiment,
            parent=parent,
            shares_filesystem=self.shares_filesystem,
            at=self.began,
        )
        return dataclasses.replace(self, ref=ref)

    def env_beside(self, given: Mapping[str, str]) -> dict[str, str]:
        """Returns the variables of an open run that do not conflict with the user's."""
        env = dict(self.ref.env) if self.ref else {}
        if "MLFLOW_EXPERIMENT_NAME" in given:  # MLflow refuses a name and the id of another experiment
            env.pop("MLFLOW_EXPERIMENT_ID", None)
        return env

    def submitted(self, handle: JobHandle, script: str) -> TrackedRun:
        """Returns the run with the handle and the request of its job."""
        return dataclasses.replace(self, handle=handle, script=script)

    def to_json(self) -> dict[str, Any]:
        """Returns the run as plain JSON types, without data that an open run has already recorded."""
        # A plan and a patch can be large, and a trigger's arguments are rows of a database.
        job = self.job
        if self.ref is not None:
            job = dataclasses.replace(
                job, plan={}, package=None, description="", run_description="", asked={}, checkpoint=None
            )
        return {
            "tracker": self.tracker.to_json(),
            "job": job.to_json(),
            "experiment": self.experiment,
            "shares_filesystem": self.shares_filesystem,
            "collector": self.collector,
            "ref": self.ref.to_json() if self.ref else None,
            "handle": self.handle.to_json() if self.handle else None,
            "script": self.script,
            "began": self.began,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TrackedRun:
        """The inverse of ``to_json``."""
        return cls(
            **{
                **data,
                "tracker": tracker_from_json(data["tracker"]),
                "job": Job.from_json(data["job"]),
                "ref": RunRef.from_json(data["ref"]) if data["ref"] else None,
                "handle": JobHandle.from_json(data["handle"]) if data["handle"] else None,
            }
        )

    def sink(self, warn: Callable[[str], None]) -> RunSink:
        """Returns the sink for the job's records on this event loop."""
        return RunSink(self, warn)


def status_of_refusal(error: NemoAirflowError) -> JobStatus:
    """Returns the status of a job that could not be submitted."""
    return JobStatus(
        JobState.FAILED, failure=FailureKind.parse(getattr(error, "kind", FailureKind.USER_ERROR)), reason=str(error)
    )


async def record_end(run: TrackedRun, status: JobStatus, warn: Callable[[str], None]) -> None:
    """Records how a job ended, or that it never began, where nobody follows it: else its run is under way for ever.

    What the tracker does not take in a few seconds is kept for ``nemo-airflow sync``.

    Args:
        run: The run.
        status: How the job ended; its reason is the error of the run.
        warn: Called with a warning, in one line.
    """
    await RunSink(run, warn, open_again=_LAST_WORD, drain=_LAST_WORD).finish(status, None, "")


class RunSink:
    """Passes one job's records to its run; see :class:`nemo_airflow.guarded_sink.Sink`.

    Args:
        run: The run; opened here if it is not open.
        warn: Called with a warning, in one line.
        open_again: Seconds between two tries to open the run, and for the last tries after the job's end.
        drain: Most seconds for which ``finish`` waits for the tracker.
    """

    def __init__(
        self,
        run: TrackedRun,
        warn: Callable[[str], None],
        *,
        open_again: float | None = None,
        drain: float | None = None,
    ) -> None:
        self._run = run
        self._warn = warn
        self._open_again = _OPEN_AGAIN if open_again is None else open_again
        self._drain = _DRAIN if drain is None else drain
        self._queue: TrackerQueue | None = None
        self._undelivered = Undelivered(run.job.key, run.began)
        self._outbox = Outbox(PointBuffer(LIMIT, spill=self._undelivered.points))
        if run.handle is not None:
            self._outbox.put(calls.started(run.handle, run.script))
        self._opening: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()
        self._refusal: NemoAirflowError | None = None
        self._refused_tags: set[str] = set()
        self._result: Call | None = None
        self._started_at: float | None = None
        self._ended_at: float | None = None

    def record(self, record: Record) -> None:
        """Accepts one record; returns at once. Records wait until the run is open; only points can be dropped."""
        if self._queue is None and self._run.ref is not None:
            self._open_queue(self._run)
        if (points := self._points_of(record)) is not None:
            if self._queue is not None:
                self._queue.put_metrics(points, record.end)
            else:
                self._outbox.points.put(points, record.end)
        elif (call := self._call_of(record)) is not None:
            if self._queue is not None:
                self._queue.put(call)
            else:
                self._outbox.put(call)
        if self._queue is None and self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="nemo-tracking-open")

    async def mark(self) -> int:
        """Returns the tracker's mark; 0 where the run is not open, or the tracker does not answer."""
        if self._run.ref is None:
            return 0
        try:
            return await asyncio.to_thread(self._run.tracker.mark, self._run.ref)
        except TrackingError:  # said when the first records are sent
            return 0

    async def finish(self, status: JobStatus, log: Path | None, error: str) -> bool:
        """Records how the job ended and keeps its log; waits a bounded time for the tracker."""
        if self._queue is None and self._run.ref is not None:
            self._open_queue(self._run)
        self._ending.set()
        if self._queue is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._open_again):
                    if self._opening is not None and not self._opening.done():
                        await self._opening
                    if self._queue is None:  # no record yet, or refused: the reason may be gone by now
                        self._opening = asyncio.create_task(self._open(), name="nemo-tracking-open")
                        await self._opening
        if log is not None:
            self._outbox.file_calls.append(calls.log(self._run.job, log))
        if self._result is not None and status.state is JobState.SUCCEEDED:
            self._outbox.file_calls.append(self._result)
        at = self._end()
        self._outbox.last_calls.append(calls.ended(status, error, at))
        self._outbox.last_calls.append(calls.close_parent(succeeded=status.state is JobState.SUCCEEDED, at=at))
        recorded = await (self._queue.drain(self._drain) if self._queue is not None else self._keep_unopened())
        await self.close()
        return recorded

    async def close(self) -> None:
        """Stops recording. What is not recorded by then is read from the job's stream again."""
        if self._opening is not None:
            self._opening.cancel()
        if self._queue is not None:
            await self._queue.stop()
        await asyncio.to_thread(self._undelivered.discard)

    async def _keep_unopened(self) -> bool:
        line = f"this run is not recorded: {self._refusal or 'the tracker did not answer'}"
        try:
            self._warn(f"{line}{await self._keep_on_disk()}")
        except OSError as error:
            self._warn(f"{line}; its records are lost, as they cannot be kept here: {error}")
            return False
        return True

    async def _keep_on_disk(self) -> str:
        """Keeps what waits, and returns where it is and who delivers it, for a warning.

        Raises:
            OSError: It cannot be written.
        """
        error = self._refusal if self._queue is None else None
        is_refused = error is not None and not (isinstance(error, TrackingError) and error.transient)
        refusal = str(error) if is_refused else ""
        kept = await asyncio.to_thread(self._undelivered.keep, self._run, self._outbox, refusal)
        but = f" except {'; '.join(kept.lost)}" if kept.lost else ""
        if refusal:
            return f"; kept{but} in {kept.folder}: 'nemo-airflow sync --all' delivers it when that is mended"
        return f"; kept{but} in {kept.folder}: the next job that is followed here, or 'nemo-airflow sync', delivers it"

    def _end(self) -> float:
        """Returns when the job ended, in the time of this machine: that of the job may be wrong."""
        now = time.time()
        return now if self._ended_at is None else min(max(self._ended_at, self._run.began or 0), now)

    async def _open(self) -> None:
        while True:
            try:
                run = await asyncio.to_thread(self._run.open)
            except NemoAirflowError as error:
                known = self._refusal is not None and str(self._refusal) == str(error)
                self._refusal = error
                if isinstance(error, TrackingError) and error.transient:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._ending.wait(), self._open_again)
                    if self._ending.is_set():
                        await asyncio.sleep(min(_LAST_PAUSE, self._open_again))
                    continue
                if not known:  # not retryable
                    self._warn(f"this run cannot be tracked now and is tried once more when the job ends: {error}")
                return
            dropped = self._outbox.points.dropped
            self._warn(
                f"run {run.ref.run_id if run.ref else ''} is open now and recorded from here on, with "
                + (f"everything before except the {dropped} oldest points" if dropped else "everything before")
            )
            self._open_queue(run)
            return

    def _open_queue(self, run: TrackedRun) -> None:
        assert run.ref is not None  # noqa: S101 - for the type checker: callers have looked
        self._run = run
        self._queue = TrackerQueue(
            run.tracker,
            run.ref,
            warn=self._warn,
            outbox=self._outbox,
            keep=self._keep_on_disk,
            answered=_deliver_others,
        )

    def _call_of(self, record: Record) -> Call | None:
        """Returns the call that records a record without points; None if it has nothing to record."""
        if record.type == "config":
            return calls.config(record.data["plan"])
        if record.type == "environment":
            return calls.environment(
                {name: value for name, value in record.data.items() if name not in ("v", "type", "ts")}
            )
        if record.type == "input":
            return calls.inputs([RunInput(**{name: record.data[name] for name in _INPUT_FIELDS})])
        if record.type == "model":
            return calls.model(record.data["name"], record.data["path"])
        if tags := self._tags_of(record):
            return calls.tags(tags)
        return None

    def _points_of(self, record: Record) -> list[Metric] | None:
        """Returns the points of a record; None if it has no points."""
        if record.type == "metrics":
            points = record.data["points"]
            return [Metric(str(name), float(value), int(step), float(ts)) for name, value, step, ts in points]
        if record.type == "sample":
            since = self._started_at if self._started_at is not None else record.timestamp
            step = max(
                round(record.timestamp - since), 0
            )  # seconds since the job's start: the same when the stream is read again
            values = record.data["values"]
            place = f"system/node_{record.data['node']}" if "node" in record.data else "system"
            return [Metric(f"{place}/{name}", float(value), step, record.timestamp) for name, value in values.items()]
        if record.type == "start":
            self._started_at, self._ended_at = record.timestamp, None
        if record.type == "end":
            self._ended_at = record.timestamp
        return None

    def _tags_of(self, record: Record) -> dict[str, Any]:
        if record.type == "end":
            result = record.data.get("result")
            # Whole or not at all: a task that reuses the run has the same result.
            text = json.dumps(result, ensure_ascii=False)
            self._result = calls.result(result) if redact(text) == text else None
            return dict(tags_of_artifacts(result))
        if record.type == IMAGE:
            return {IMAGE_DIGEST: record.data["digest"]}
        if record.type == PHASES_RECORD:
            return {PHASES: record.data["phases"]}
        return self._own_tags(record.data["tags"]) if record.type == "tags" else {}

    def _own_tags(self, tags: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the tags that the job may set; names the others in one warning."""
        allowed, refused = reserved.split_tags(tags)
        if fresh := sorted(set(refused) - self._refused_tags):
            self._refused_tags |= set(fresh)
            self._warn(
                f"the job may not set the tags {', '.join(fresh)}, which nemo-airflow uses to find and judge its run: "
                "they were not changed; choose other names"
            )
        return allowed


def _deliver_others() -> None:
    """Delivers what other jobs have left on this machine, now that a tracker answers."""
    from nemo_airflow.tracking.delivery import deliver_soon  # which opens runs

    deliver_soon()


def open_run(
    tracker: Tracker,
    job: Job,
    *,
    experiment: str,
    shares_filesystem: bool,
    collector: str,
    warn: Callable[[str], None],
) -> TrackedRun:
    """Opens a job's run; if the tracker cannot be reached, warns and returns the run unopened. Blocks."""
    run = TrackedRun(tracker, job, experiment, shares_filesystem, collector, began=time.time())
    begun = time.monotonic()
    try:
        return run.open()
    except TrackingError as error:
        warn(
            f"the run could not be opened ({error}) within {time.monotonic() - begun:.0f} s; "
            "the job is submitted anyway, and the run opened later"
        )
        return run
