"""Follows a launched job to its end, records it, and keeps what came of it; again from anywhere on this machine."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable, NemoAirflowError, SettingsError
from nemo_airflow.executors.base import Cursor
from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import JobHandle, JobState, JobStatus
from nemo_airflow.jobs.service import JobService
from nemo_airflow.launch.records import Launched, RecordedState, Records
from nemo_airflow.launch.said import Said
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.operators.keeping import Keeping
from nemo_airflow.stream import BEGINNING, Line, Place, StreamReader


class Following:
    """Follows one launched job.

    Args:
        records: The records.
        record: The job's.
        on_line: Called with each line that the job wrote.
        say: Called with what people should know, in one line.
    """

    def __init__(
        self, records: Records, record: Launched, on_line: Callable[[str], None], say: Callable[[str], None]
    ) -> None:
        self._records = records
        self._record = record
        self._on_line = on_line
        self._say = say
        self._executor = record.where
        self._place = BEGINNING

    def run(self) -> Outcome:
        """Returns how the job ended. Interrupted, it goes on at the next line when it is called again.

        Raises:
            SettingsError: The job was never submitted.
            JobFailed: It has succeeded, and what came of it cannot be kept now.
            BackendUnavailable: The back-end is away.
        """
        with self._records.recording(self._record.key) as records_it:
            if not records_it:
                self._say("another process on this machine records this job: only its log is shown here")
                return blocking.run(self._follower(self._find(), tracked=False).run())
            record = self._records.load(self._record.key)
            if (end := record.end) is not None:
                self._show_log()
                return end
            handle, run = self._find(), record.tracked
            follower = self._follower(handle, tracked=True)
            outcome = blocking.run(follower.run())
            if outcome.has_to_be_kept(tracked=run is not None):
                state = RecordedState(self._records, record.key)
                outcome = Keeping(self._executor, handle, run, outcome, state, Said(self._say), follower.view).keep()
            self._records.change(record.key, outcome=outcome.to_json())
            return outcome

    def cancel(self) -> None:
        """Cancels the job. Done again, it changes nothing.

        Raises:
            BackendUnavailable: The back-end is away.
            TimeoutError: It does not answer in time.
        """
        BackEnd(self._executor, Said(self._say).warning).cancel_at_once(self._find())

    def status(self) -> JobStatus:
        """Returns the job's status on its back-end.

        Raises:
            BackendUnavailable: The back-end is away.
        """
        return status_of(self._record)

    def _show_log(self) -> None:
        for line in read_log(self._record):
            self._on_line(line)

    def _find(self) -> JobHandle:
        if self._record.handle is not None:
            return self._record.job
        handle = BackEnd(self._executor, Said(self._say).warning).find(self._record.key)
        if handle is None:
            raise SettingsError(
                f"job {self._record.key} was not submitted: the process that launched it was ended before; run it again"
            )
        self._record = self._records.change(self._record.key, handle=handle.to_json())
        return handle

    def _follower(self, handle: JobHandle, *, tracked: bool) -> Follower:
        run = self._record.tracked if tracked else None
        return Follower(
            self._executor,
            handle,
            on_line=self._take,
            warn=self._say,
            inform=self._say,
            sink=run.sink(self._say) if run is not None else None,
            logged=self._place,
        )

    def _take(self, line: Line) -> None:
        self._place = Place(line.end, round(line.timestamp * 1e6))
        self._on_line(line.text)


def status_of(record: Launched) -> JobStatus:
    """Returns a job's status on its back-end.

    Raises:
        BackendUnavailable: The back-end is away.
    """
    executor, handle = record.where, record.job

    async def ask() -> JobStatus:
        return (await JobService.shared(executor).status([handle]))[handle.key]

    return blocking.run(ask())


def known_status(record: Launched) -> JobStatus:
    """Returns a job's status as far as it is known: as it was recorded, else as its back-end says it.

    Of a job that has ended and is not recorded yet, the reason says what does that; of one that cannot be asked for,
    why.
    """
    if (end := record.end) is not None:
        return dataclasses.replace(end.status, reason=end.message or end.status.reason)
    try:
        status = status_of(record)
    except NemoAirflowError as error:
        return JobStatus(JobState.UNKNOWN, reason=str(error))
    if not status.state.is_final or status.reason:
        return status
    return dataclasses.replace(status, reason=f"not recorded yet: 'nemo-airflow attach {record.key}' does that")


def read_log(record: Launched) -> list[str]:
    """Returns the lines that a job has written so far.

    Raises:
        BackendUnavailable: The back-end is away, or the log cannot be read.
    """
    executor, handle = record.where, record.job

    async def read() -> list[str]:
        driver, reader, offset = JobService.shared(executor).driver, StreamReader(), 0
        lines: list[str] = []
        while True:
            chunk = next(iter(await driver.read([Cursor(handle, offset)])), None)
            if chunk is not None and chunk.trouble:
                raise BackendUnavailable(f"the log of job {record.key} cannot be read: {chunk.trouble}")
            if chunk is None or not (chunk.data or chunk.gone):
                break
            items = [*(reader.skip(chunk.gone) if chunk.gone else []), *reader.feed(chunk.data)]
            lines += [item.text for item in items if isinstance(item, Line)]
            offset = chunk.end
        return [*lines, *(item.text for item in reader.finish() if isinstance(item, Line))]

    return blocking.run(read())


def record_in_background(records: Records, key: str) -> int:
    """Starts a process that follows a job to its end, and outlives this one; returns its pid."""
    return run_in_background(["attach", key, "--quiet"], records.log_of(key), records.folder.parent)


def run_in_background(arguments: Sequence[str], log: Path, home: Path) -> int:
    """Starts a command of ``nemo-airflow`` that outlives this process, and returns its pid.

    Args:
        arguments: The command.
        log: The file into which it prints.
        home: What is its ``$NEMO_AIRFLOW_HOME``.
    """
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "nemo_airflow.cli", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={**os.environ, "NEMO_AIRFLOW_HOME": str(home)},
        )
    return process.pid
