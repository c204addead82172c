"""One job's run in a tracker: opened before the job is submitted, fed while it runs, closed at its end.

Opening it in the worker gives the job its run id, and the task its link. Where the tracking server
is away just then, the job is submitted all the same, and whoever follows it opens the run later.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nemo_airflow.exceptions import ConfigError, NemoAirflowError, TrackingError
from nemo_airflow.job import Job, JobHandle, JobState, JobStatus
from nemo_airflow.stream import Record
from nemo_airflow.tracking.artifacts import ArtifactCollector, CollectEverything, keep
from nemo_airflow.tracking.base import OUTPUTS_DIGEST, Metric, RunRef, Tracker
from nemo_airflow.tracking.queue import TrackerQueue
from nemo_airflow.tracking.registry import tracker_from_json

_DRAIN = 120.0
"""Seconds for which a task waits at most for its tracker after the job's end; large outputs are uploaded then."""

_OPEN_AGAIN = 15.0
_HELD_RECORDS = 10_000


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """A job's run, or what is needed to open it later.

    Attributes:
        tracker: What remembers it.
        job: The job.
        experiment: Name of the experiment.
        shares_filesystem: Whether the job sees this machine's files.
        collector: Which outputs are kept, as ``"pkg.mod:Class"``; empty for all.
        ref: The run; None while the tracker could not be reached.
        handle: The submitted job, once it is.
        script: What was sent to the back-end, for people.
    """

    tracker: Tracker
    job: Job
    experiment: str
    shares_filesystem: bool
    collector: str = ""
    ref: RunRef | None = None
    handle: JobHandle | None = None
    script: str = ""

    def open(self) -> TrackedRun:
        """Returns the run with its reference. Blocks.

        Raises:
            TrackingError: The tracker cannot be reached, or refuses.
        """
        labels = self.job.labels
        parent = f"{labels.get('dag_id', self.job.name)} {labels.get('run_id', '')}".strip()
        ref = self.tracker.open(
            self.job, experiment=self.experiment, parent=parent, shares_filesystem=self.shares_filesystem
        )
        return dataclasses.replace(self, ref=ref)

    def submitted(self, handle: JobHandle, script: str) -> TrackedRun:
        """Returns the run with where its job was submitted to."""
        return dataclasses.replace(self, handle=handle, script=script)

    def to_json(self) -> dict[str, Any]:
        """Returns the run as plain JSON types; without what an open run has recorded already."""
        # A plan and a patch can be large, and a trigger's arguments are rows of a database.
        job = self.job if self.ref is None else dataclasses.replace(self.job, plan={}, package=None)
        return {
            "tracker": self.tracker.to_json(),
            "job": job.to_json(),
            "experiment": self.experiment,
            "shares_filesystem": self.shares_filesystem,
            "collector": self.collector,
            "ref": self.ref.to_json() if self.ref else None,
            "handle": self.handle.to_json() if self.handle else None,
            "script": self.script,
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
        """Returns what takes the job's records on this event loop."""
        return RunSink(self, warn)


class RunSink:
    """Takes one job's records, and passes them to its run; see :class:`nemo_airflow.follow.Sink`.

    Args:
        run: The run; it is opened here where it is not.
        warn: Called with what people should know, in one line.
    """

    def __init__(self, run: TrackedRun, warn: Callable[[str], None]) -> None:
        self._run = run
        self._warn = warn
        self._queue: TrackerQueue | None = None
        self._held: deque[Record] = deque(maxlen=_HELD_RECORDS)
        self._opening: asyncio.Task[None] | None = None
        self._started_at: float | None = None

    def record(self, record: Record) -> None:
        """Takes one record; returns at once."""
        if self._queue is None and self._run.ref is not None:
            self._open_queue(self._run)
        if self._queue is not None:
            self._put(self._queue, record)
            return
        self._held.append(record)
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="nemo-tracking-open")

    async def finish(self, status: JobStatus, folder: Path, error: str, *, collected: bool) -> bool:
        """Records how the job ended, and keeps its log and outputs; waits a bounded time for the tracker."""
        if self._queue is None and self._run.ref is not None:
            self._open_queue(self._run)
        if self._opening is not None and self._queue is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._opening, _OPEN_AGAIN)
        if self._queue is None:
            self._warn("the tracking server was away until the end: this run is not recorded")
            return False
        kept = folder / "kept"
        await asyncio.to_thread(self._gather, folder, kept)
        # Else the tag would no longer name what an earlier follower has kept, before the back-end let go of it.
        if collected and (digest := await asyncio.to_thread(self._share, kept)):
            self._queue.put_tags({OUTPUTS_DIGEST: digest})
        self._queue.put_artifacts(kept)
        self._queue.put_ended(status, error=error)
        self._queue.put_parent_closed(succeeded=status.state is JobState.SUCCEEDED)
        return await self._queue.drain(_DRAIN)

    def _gather(self, folder: Path, kept: Path) -> None:
        try:
            collector = load_collector(self._run.collector)
            keep(collector, self._run.job, folder / "outputs", kept)
        except ConfigError as error:
            self._warn(f"{error}; all outputs are kept")
            keep(CollectEverything(), self._run.job, folder / "outputs", kept)
        log = kept / "nemo_airflow" / "log.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").rename(log)

    def _share(self, kept: Path) -> str:
        """Keeps what was kept in the shared store too, and returns by which digest; empty where there is none."""
        from nemo_airflow.packaging.store.address import configured_store
        from nemo_airflow.packaging.store.trees import put_tree

        try:
            store = configured_store()
            return put_tree(store, kept) if store is not None else ""
        except NemoAirflowError as error:
            self._warn(f"the outputs are not in the shared store: {error}")
            return ""

    async def _open(self) -> None:
        while True:
            try:
                run = await asyncio.to_thread(self._run.open)
            except TrackingError:
                await asyncio.sleep(_OPEN_AGAIN)
                continue
            except NemoAirflowError as error:  # waiting would not mend it
                self._warn(f"this run is not tracked: {error}")
                return
            self._warn(
                "the tracking server can be reached again: the run is recorded from here on, with all that came before"
            )
            self._open_queue(run)
            return

    def _open_queue(self, run: TrackedRun) -> None:
        assert run.ref is not None  # noqa: S101 - for the type checker: callers have looked
        self._queue = TrackerQueue(run.tracker, run.ref, warn=self._warn)
        if run.handle is not None:
            self._queue.put_started(run.handle, run.script)
        while self._held:
            self._put(self._queue, self._held.popleft())

    def _put(self, queue: TrackerQueue, record: Record) -> None:
        data = record.data
        if record.type == "metrics":
            queue.put_metrics(
                [Metric(str(name), float(value), int(step), float(ts)) for name, value, step, ts in data["points"]],
                record.end,
            )
        elif record.type == "sample":
            since = self._started_at if self._started_at is not None else record.timestamp
            step = max(round(record.timestamp - since), 0)  # seconds of the job's life: the same when it is read again
            points = [
                Metric(f"system/{name}", float(value), step, record.timestamp) for name, value in data["values"].items()
            ]
            queue.put_metrics(points, record.end)
        elif record.type == "config":
            queue.put_config(data["plan"])
        elif record.type == "environment":
            queue.put_environment({name: value for name, value in data.items() if name not in ("v", "type", "ts")})
        elif record.type == "tags":
            queue.put_tags(data["tags"])
        elif record.type == "start":
            self._started_at = record.timestamp


def open_run(
    tracker: Tracker,
    job: Job,
    *,
    experiment: str,
    shares_filesystem: bool,
    collector: str,
    warn: Callable[[str], None],
) -> TrackedRun:
    """Opens a job's run; where the tracker cannot be reached, returns it unopened, with a warning. Blocks."""
    run = TrackedRun(tracker, job, experiment, shares_filesystem, collector)
    begun = time.monotonic()
    try:
        return run.open()
    except TrackingError as error:
        warn(
            f"the run is not tracked yet ({error}), after {time.monotonic() - begun:.0f} s; "
            "the job is submitted all the same"
        )
        return run


def load_collector(path: str) -> ArtifactCollector:
    """Returns the collector that ``"pkg.mod:Class"`` names; the one that keeps all for an empty text.

    Raises:
        ConfigError: There is none of that name, or it is no collector.
    """
    if not path:
        return CollectEverything()
    module, _, name = path.partition(":")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"collector={path!r} cannot be imported as 'pkg.mod:Class': {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, ArtifactCollector)):
        raise ConfigError(f"collector={path!r} is not an ArtifactCollector")
    return cls()
