"""Follows one job to its end: its lines to the log, its records to the tracker, its result back.

Used alike by the trigger and by a worker.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    retry_if_result,
    wait_exponential,
    wait_random,
)

from nemo_airflow.alerts import Alert
from nemo_airflow.artifact_references import find_references
from nemo_airflow.clean import LONGEST_MESSAGE, LONGEST_TRACEBACK, clean_text, clean_value, shorten_text
from nemo_airflow.exceptions import BackendUnavailable, ExecutorError
from nemo_airflow.executors.base import Executor
from nemo_airflow.executors.folder import status_of_end
from nemo_airflow.guarded_sink import GuardedSink, Sink
from nemo_airflow.job import FailureKind, JobHandle, JobState, JobStatus
from nemo_airflow.jobs.flood import FloodGate
from nemo_airflow.jobs.service import JobService, Update
from nemo_airflow.jobs.turns import Turns
from nemo_airflow.kept_log import HEAD, TAIL, KeptLog
from nemo_airflow.phases import JobView
from nemo_airflow.stream import BEGINNING, IMAGE, PHASES, Line, Place, Record, StreamReader

_CANCEL_SLACK = 30.0
"""Seconds, after the grace period of a job that is ended early, for its end to be seen."""

_TRIES_UNSAID = 3
"""Looks at the other machines of a job after which it is said that they are waited for."""

_READ_LOG_FOR = 600.0
"""Seconds for which a back-end that is away is asked again for the log of a job that has ended."""

_PIECE = 16 << 10
"""Bytes of the stream that are taken apart at once: of the shortest lines, some ten milliseconds of work."""

_WORTH_IT = 256 << 10
"""Bytes of a stream that are read again rather than passed over."""

_OPENING = 64 << 10
"""Bytes at the beginning of a stream that are read in any case: how the job has started, with which config, and where.
What a run's files are made of comes from there, and an earlier follower may have been killed before they were kept."""

_ENDED_FROM_OUTSIDE = frozenset({FailureKind.PREEMPTED, FailureKind.NODE_FAILURE, FailureKind.QUOTA})
"""What only the back-end knows: to the runner these look like a cancellation."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        status: The final status.
        result: What the job's function returned, as plain JSON types.
        message: The error in one line, or empty.
        traceback: The job's own traceback, or empty.
        outputs: Files and bytes that the job left to be kept, as it counted them (``{"files": 2, "bytes": 2048}``);
            empty if it did not come to count them; None if there are none.
        started_at: When the job's runner started, seconds since the epoch; 0 if that was not seen.
        ended_at: When it ended.
        sent: SHA-256 of the manifest of the outputs, where all of them went straight into the shared store; else empty.
        checkpoint: Name of the job's newest checkpoint, from which another attempt can go on; or empty.
    """

    status: JobStatus
    result: Any = None
    message: str = ""
    traceback: str = ""
    outputs: Mapping[str, int] | None = None
    sent: str = ""
    checkpoint: str = ""
    started_at: float = dataclasses.field(default=0.0, compare=False)
    ended_at: float = dataclasses.field(default=0.0, compare=False)

    @property
    def succeeded(self) -> bool:
        """Whether the job ran to its end without an error."""
        return self.status.state is JobState.SUCCEEDED

    def has_to_be_kept(self, *, tracked: bool) -> bool:
        """Whether the job has left files for its run, or for the artifacts that it returned."""
        return self.outputs is not None and (tracked or bool(find_references(self.result)))

    def to_json(self) -> dict[str, Any]:
        """Returns the outcome as plain JSON types, all of which Airflow can send on and store."""
        data = clean_value({**dataclasses.asdict(self), "status": self.status.to_json()})
        return dict(data)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """The inverse of ``to_json``."""
        return cls(**{**data, "status": JobStatus.from_json(data["status"])})


_LOG_IS_TRACKED = "log.txt of the job's run has the beginning and the end of the whole log"
_LOG_IS_IN_FOLDER = "the back-end's own log of the job has them"


class Follower:
    """Follows one job.

    Args:
        executor: Where the job runs.
        handle: The job.
        on_line: Called with each line that the job wrote, in order, each once.
        warn: Called with what people should know, in one line.
        inform: Called with why the job waits, whenever that changes; ``warn`` when None.
        sink: Where the records go, or None.
        deadline: Seconds since the epoch after which the job is cancelled, or None.
        logged: How far an earlier follower had come with the lines: those before that are not passed on again.
        watch: Returns the alerts that a record raises, or None. Each is told by ``warn``, and is a tag of the run.
        view: What is known of the job; a new one when None.
    """

    def __init__(
        self,
        executor: Executor,
        handle: JobHandle,
        *,
        on_line: Callable[[Line], None],
        warn: Callable[[str], None],
        inform: Callable[[str], None] | None = None,
        sink: Sink | None = None,
        deadline: float | None = None,
        logged: Place = BEGINNING,
        watch: Callable[[Record], Sequence[Alert]] | None = None,
        view: JobView | None = None,
    ) -> None:
        self._executor = executor
        self._handle = handle
        self._on_line = on_line
        self._warn: Callable[[str], None] = lambda text: warn(clean_text(text))
        self._inform: Callable[[str], None] = lambda text: (inform or warn)(clean_text(text))
        self._sink = GuardedSink(sink, self._warn) if sink is not None else None
        self._deadline = deadline
        self._watch = watch
        self.view = view or JobView(handle)
        self._logged = logged if logged.offset >= _WORTH_IT else BEGINNING
        self._reader = StreamReader(self._logged.offset, self._logged.time / 1e6)
        self._behind: StreamReader | None = None
        """Reads what has to be read before that, of which only the records are passed on."""
        self._begins_at = 0
        self._stream_end = 0
        self._gate = FloodGate(_LOG_IS_TRACKED if sink is not None else _LOG_IS_IN_FOLDER)
        self._end: Record | None = None
        self._rest: JobStatus | None = None
        """How the other machines of a group have ended, after the first."""
        self._started_at = 0.0
        self._checkpoint = ""
        self._timed_out = False
        self._waits = ""
        self._turns = Turns()
        self.state = JobState.UNKNOWN
        """The job's state as last seen."""
        self.has_seen_the_end = False
        """Whether all that the job wrote was passed on: what is left is to keep what came of it."""

    async def run(self) -> Outcome:
        """Returns how the job ended, once all it wrote was passed on.

        It can be cancelled at any time: the job goes on, and another follower can begin anew.
        """
        self._begins_at = self._logged.offset
        if self._sink is None:
            return await self._end_of(await self._follow(log=None))
        if self._logged.offset and (mark := await self._sink.mark()) < self._logged.offset:
            self._begins_at, self._behind = mark, StreamReader(mark)
        scratch = self._make_scratch()
        log = KeptLog(Path(scratch.name), self._warn) if scratch is not None and not self._begins_at else None
        try:
            outcome = await self._end_of(await self._follow(log))
            scratch = scratch or self._make_scratch()
            if scratch is not None:
                log = log or await self._read_log_again(Path(scratch.name))
                await asyncio.to_thread(log.close)
            error = "\n".join(filter(None, (outcome.message, outcome.traceback)))
            await self._record_image(self._sink)
            phases = {"phases": self.view.phases.to_text()}
            self._sink.record(Record(PHASES, phases, outcome.ended_at or time.time(), self._stream_end))
            await self._sink.finish(outcome.status, log.path if log is not None else None, error)
            return outcome
        finally:
            await self._sink.close()
            if scratch is not None:
                await asyncio.to_thread(scratch.cleanup)

    async def _record_image(self, sink: GuardedSink) -> None:
        """Records which image the job ran in, while its back-end still knows."""
        driver = JobService.shared(self._executor).driver
        try:
            digest = await driver.image_digest(self._executor, self._handle)
        except ExecutorError as error:
            self._inform(f"the digest of the job's image is not recorded: {error}")
            return
        if digest:
            sink.record(Record(IMAGE, {"digest": digest}, time.time(), self._stream_end))

    async def wait_for_start(self) -> bool:
        """Returns whether the job runs, once it does, or has ended without."""
        service = JobService.shared(self._executor)
        overdue = asyncio.create_task(self._cancel_when_overdue(service))
        has_ended = False
        try:
            async for update in service.watch(self._handle):
                await self._take(update, None)
                if self.state is JobState.RUNNING:
                    return True
            has_ended = True  # run() comes next
            return False
        finally:
            overdue.cancel()
            if self._sink is not None and not has_ended:
                await self._sink.close()

    def _make_scratch(self) -> tempfile.TemporaryDirectory[str] | None:
        try:
            return tempfile.TemporaryDirectory(prefix="nemo-airflow-", ignore_cleanup_errors=True)
        except OSError as error:
            self._warn(f"the run gets no copy of the log, the task's log is not affected: {error}")
            return None

    async def _read_log_again(self, folder: Path) -> KeptLog:
        """Returns the copy of a log of which this follower has not seen the beginning."""
        log = KeptLog(folder, self._warn)
        tail = max(self._stream_end - TAIL, HEAD)
        try:
            async with asyncio.timeout(_READ_LOG_FOR):
                await self._copy_log(log, 0, HEAD if tail < self._stream_end else self._stream_end)
                if tail < self._stream_end:
                    log.leave_out(tail - HEAD)
                    await self._copy_log(log, tail, self._stream_end)
        except (TimeoutError, BackendUnavailable) as error:
            self._warn(f"the run's copy of the log is incomplete, the task's log is not affected: {error}")
        return log

    async def _copy_log(self, log: KeptLog, begin: int, end: int) -> None:
        """Copies the lines that stand between two bytes of the stream of a job that has ended."""
        reader = StreamReader(begin)
        async for update in JobService.shared(self._executor).watch(self._handle, begin):
            if update.gone:
                log.add([f"[{update.gone} bytes are gone: the back-end has dropped them]"])
            data = update.data[: max(end - update.offset - update.gone, 0)]
            for at in range(0, len(data), _PIECE):
                log.add([item.text for item in reader.feed(data[at : at + _PIECE]) if isinstance(item, Line)])
                await self._turns.pause()
            if update.offset + update.gone + len(update.data) >= end:
                break
        log.add([item.text for item in reader.finish() if isinstance(item, Line)])

    async def _end_of(self, status: JobStatus) -> Outcome:
        if status.state is JobState.LOST:
            # What a dead runner left behind must not run on unseen.
            await self._attempt(
                "cancel what is left of the job", JobService.shared(self._executor).driver.cancel([self._handle])
            )
        sent = self._end.data.get("sent") if self._end is not None and self._outputs is not None else None
        ended_at = self._end.timestamp if self._end is not None else 0.0
        outcome = dataclasses.replace(self._outcome(status), started_at=self._started_at, ended_at=ended_at)
        self.view.end(outcome.status, outcome.message, ended_at)
        return dataclasses.replace(outcome, outputs=self._outputs, sent=str(sent or ""), checkpoint=self._newest)

    async def _follow(self, log: KeptLog | None) -> JobStatus:
        service = JobService.shared(self._executor)
        status = JobStatus(JobState.UNKNOWN)
        overdue = asyncio.create_task(self._cancel_when_overdue(service))
        try:
            async with asyncio.timeout(self._give_up_after()):
                async for update in self._updates(service):
                    await self._take(update, log)
                    status = update.status or status
                    if self._has_ended_by_itself:
                        break
                if self._end is not None and self._has_ended_by_itself and self._executor.is_group:
                    self._rest = await self._await_rest(service, status_of_end(self._end.data))
        except TimeoutError:
            self._warn(
                f"job {self._handle.key} did not end {_CANCEL_SLACK:.0f} s after it was told to: look at it by hand"
            )
        finally:
            overdue.cancel()
        await self._pass_on(self._reader.finish(), log)
        for line in self._gate.finish():
            self._on_line(line)
        self.has_seen_the_end = True
        return status

    async def _updates(self, service: JobService) -> AsyncIterator[Update]:
        if self._begins_at:
            await self._read_opening(service)
            self._end = None  # of an earlier start, if it has one
        since = self._logged.time / 1e6 if self._begins_at else None
        async for update in service.watch(self._handle, self._begins_at, lambda: self._end is not None, since):
            yield update

    async def _read_opening(self, service: JobService) -> None:
        """Passes on the records at the beginning of a stream that is not read from there."""
        reader, end = StreamReader(), min(_OPENING, self._begins_at)
        async for update in service.watch(self._handle, at_once=end):
            # Its trouble and what is lost are told by those who read on; its state is not the end of anything here.
            self._pass_on_records(reader.feed(update.data[: end - update.offset]))
            if update.gone or update.offset + len(update.data) >= end:
                return

    @property
    def _has_ended_by_itself(self) -> bool:
        """Whether the runner's last record is there, and the back-end has nothing to add to it.

        A runner that was told to end does not know why: cancelled, preempted, to be started again ...
        """
        return self._end is not None and status_of_end(self._end.data).state is not JobState.CANCELLED

    async def _await_rest(self, service: JobService, first: JobStatus) -> JobStatus:
        """Returns how a job ends as a whole, of which only the first machine's stream is read."""

        def say(state: RetryCallState) -> None:
            if state.attempt_number == _TRIES_UNSAID and state.outcome is not None:
                error = state.outcome.exception()
                away = f"the back-end cannot be reached, trying again; the job goes on: {error}"
                self._inform(away if error else "the first machine of the job has ended, others still run")

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(BackendUnavailable) | retry_if_result(lambda rest: rest is None),
            wait=wait_exponential(multiplier=0.5, max=15) + wait_random(0, 1),
            before_sleep=say,
        )
        rest: JobStatus = await retrying(service.driver.rest, self._handle, first)
        return rest

    def _give_up_after(self) -> float | None:
        if self._deadline is None:
            return None
        return max(self._deadline - time.time(), 0) + self._executor.grace + _CANCEL_SLACK

    async def _cancel_when_overdue(self, service: JobService) -> None:
        if self._deadline is None:
            return None
        await asyncio.sleep(max(self._deadline - time.time(), 0))
        self._timed_out = True
        self._warn("the deadline of the task has passed: the job is cancelled")
        while True:
            try:
                return await service.driver.cancel([self._handle])
            except BackendUnavailable as error:
                self._warn(f"cannot cancel the job yet: {error}")
                await asyncio.sleep(5)

    async def _take(self, update: Update, log: KeptLog | None) -> None:
        if update.status:
            self.state = update.status.state
        if update.status and self.state is JobState.PENDING and update.status.reason != self._waits:
            self._waits = update.status.reason
            self._inform(f"the job waits: {self._waits}")
        if update.outage:
            self._warn(update.outage)
        self.view.see(update.status, update.outage, is_over=update.is_over)
        if update.cut:
            self._warn("the end of the job's log did not show: its last lines are unknown, and what it returned")
        data, gone = update.data, update.gone
        if self._behind is not None:
            # The lines up to there are in the log, the records may not be.
            lacks = self._logged.offset - update.offset
            self._pass_on_records(self._behind.skip(min(gone, lacks)) if gone else [])
            for at in range(0, min(max(lacks - gone, 0), len(data)), _PIECE):
                self._pass_on_records(self._behind.feed(data[at : min(at + _PIECE, lacks - gone)]))
                await self._turns.pause()
            data, gone = data[max(lacks - gone, 0) :], max(gone - lacks, 0)
            if update.offset + update.gone + len(update.data) >= self._logged.offset:
                self._behind = None
        self._stream_end = max(self._stream_end, update.offset + update.gone + len(update.data))
        if gone:
            await self._pass_on(self._reader.skip(gone), log)
        for begin in range(0, len(data), _PIECE):
            piece = data[begin : begin + _PIECE]
            if not await self._leave_out(piece, log):
                await self._pass_on(self._reader.feed(piece), log)

    async def _leave_out(self, piece: bytes, log: KeptLog | None) -> bool:
        """Passes over lines of a flood, if these are; returns whether. Line by line a flood takes more than a core."""
        block = self._reader.block(piece) if self._gate.is_shut else None
        if block is None or not self._gate.leave_out(block):
            return False
        self._reader.take(block)
        if log is not None:
            log.add([block.text.decode("utf-8", "backslashreplace")])
        await self._turns.pause()
        return True

    def _pass_on_records(self, items: list[Line | Record]) -> None:
        for item in items:
            if isinstance(item, Record):
                self._pass_on_record(item)

    async def _pass_on(self, items: list[Line | Record], log: KeptLog | None) -> None:
        if log is not None:
            log.add([item.text for item in items if isinstance(item, Line)])
        for item in items:
            await self._turns.pause()
            if isinstance(item, Line):
                for line in self._gate.admit(item):
                    self._on_line(line)
            else:
                self._pass_on_record(item)

    def _pass_on_record(self, record: Record) -> None:
        if record.type in (IMAGE, PHASES):  # which no job makes
            return
        self.view.take(record)
        if record.type == "start":
            self._end = None  # of an earlier start: the back-end has started the job again
            self._started_at = record.timestamp
        elif record.type == "end":
            self._end = record
        elif record.type == "warning":
            self._warn(str(record.data.get("message", "")))
        elif record.type == "checkpoint":
            self._checkpoint = str(record.data.get("path") or "")
        if self._sink is not None:
            self._sink.record(record)
        for alert in self._watch(record) if self._watch is not None else ():
            self._warn(f"alert: {alert.text}")
            if self._sink is not None:
                tags = {f"alert.{alert.rule.metric}": alert.text}
                self._sink.record(dataclasses.replace(record, type="tags", data={"tags": tags}))

    @property
    def _newest(self) -> str:
        """The newest checkpoint that the job told of; a killed one has not done so at its end."""
        return str((self._end.data.get("checkpoint") if self._end is not None else None) or self._checkpoint)

    @property
    def _outputs(self) -> dict[str, int] | None:
        """The job's count of its outputs; empty if it did not come to count them, or only one of its machines did."""
        outputs = self._end.data.get("outputs") if self._end is not None else None
        if not isinstance(outputs, Mapping) or self._executor.is_group:
            return {}
        counts = {name: count for name in ("files", "bytes") if isinstance(count := outputs.get(name), int)}
        return counts if counts.get("files", 1) else None

    async def _attempt(self, what: str, call: Any) -> bool:
        """Does what comes after the job's end, which must not change how it ended; returns whether it was done."""
        try:
            await call
        except (BackendUnavailable, ExecutorError, OSError) as error:
            self._warn(f"could not {what}: {error}")
            return False
        return True

    @staticmethod
    def _was_ended_from_outside(status: JobStatus, end: JobStatus) -> bool:
        """Whether the back-end knows better than the runner why the job ended."""
        lost = status.state is JobState.LOST and end.state is JobState.CANCELLED
        return lost or status.failure in _ENDED_FROM_OUTSIDE

    def _outcome(self, status: JobStatus) -> Outcome:
        end = self._end.data if self._end is not None else {}
        # The runner's own word is the better one: a back-end only sees an exit code.
        if end and not self._was_ended_from_outside(status, status_of_end(end)):
            status = self._rest or status_of_end(end)
        if self._timed_out and status.state is not JobState.SUCCEEDED:
            return Outcome(
                JobStatus(JobState.FAILED, status.exit_code, FailureKind.TIMEOUT, status.reason),
                message="the job did not end before the task's execution_timeout",
            )
        if status.state is JobState.SUCCEEDED:
            return Outcome(status, result=end.get("result"))
        error = end.get("error")
        traceback = str(error.get("traceback") or "") if isinstance(error, Mapping) else ""
        message = status.reason or f"the job ended {status.state}"
        if status.failure is FailureKind.TIMEOUT:
            message = status.reason or "the job ran into its time limit"
        return Outcome(
            status,
            message=clean_text(shorten_text(message, LONGEST_MESSAGE)),
            traceback=clean_text(shorten_text(traceback, LONGEST_TRACEBACK)),
        )
