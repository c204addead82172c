"""Writes a job's lines to its task's log, and knows how far others of the same try had come, so that none is repeated.

A line's timestamp is a function of the job's stream alone and rises with each line, so the
timestamps in the logs tell where to go on. Nothing else would: what a triggerer notes
elsewhere about its progress can be older or newer than what reached the log when it was killed. A worker that hands its
job over to a trigger is not killed: it says how far it has come, as its log may be on another machine.

Where in the stream to go on is another matter: a few of the newest places are noted in a small file beside the log, and
the newest of them that the log has reached is where the next triggerer begins to read. Without one it reads all again.
"""

from __future__ import annotations

import asyncio
import collections
import datetime
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from nemo_airflow.clean import clean_text
from nemo_airflow.job import JobHandle
from nemo_airflow.stream import BEGINNING, Line, Place
from nemo_airflow.triggers.logged_lines import FOLLOWER, LOGGER, Span, find_spans, has_notice, read_newest

_NOTE_EVERY = 256 << 10
"""Bytes of a stream between two notes of how far it has been written: so much is read again after a kill."""

_NOTES = 4
"""Places that are noted: the newest may not have reached the log when its triggerer was killed."""

_OWN_LOG_WITHIN = 10.0
"""Seconds for which a trigger waits for its own log. It is on this machine, unless the logging was changed."""

_log = structlog.get_logger(logger_name=LOGGER)
_follower_log = structlog.get_logger(logger_name=FOLLOWER)


class TaskLog:
    """Writes the lines of a job to the log of its task, each once.

    Airflow merges the logs of a task's triggerers by the millisecond, and within one by the number of the line in its
    log: the first line of a new log would come before the last of the old one where a job wrote both in one
    millisecond. Such a line is shown a millisecond later than it was written; by how many is told by three digits
    that follow those of the microseconds.

    Args:
        spans: The lines that are there, in order.
        place: Up to where the stream is known to be in the log.
        notes: Where to note how far it is; None for nowhere.
    """

    def __init__(
        self,
        spans: Iterable[Span] = (),
        place: Place = BEGINNING,
        notes: _Notes | None = None,
    ) -> None:
        self._spans = collections.deque(spans)
        """Of the lines that are there those that the stream has not come to."""
        self._passed: Span | None = None
        self._newest = (0, 0)
        self._end = place.offset
        self._notes = notes
        self.place = place
        """Up to where the stream was in the log when this began."""

    @property
    def mark(self) -> tuple[int, int, int]:
        """The newest line that was written: when the job wrote it, at which millisecond it is shown, where it ends."""
        return *self._newest, self._end

    @classmethod
    async def reopen(cls, task_instance: Any, mark: Sequence[int] = (0, 0, 0), job: JobHandle | None = None) -> TaskLog:
        """Returns a log that goes on where the worker and earlier triggers of this try have ended.

        Where there is no line it begins with the job's first, as it must where the log of the
        killed triggerer was on another machine's disk and is gone with it.

        Args:
            task_instance: The task instance that the triggerer has; None outside one.
            mark: What :attr:`mark` of the worker's log was.
            job: The job that is followed: what was noted of another is of no use.
        """
        logged, shown, end = mark
        worker, handed_over = Span(0, logged, shown), Place(end, logged)
        if task_instance is None:
            return cls([worker], handed_over)
        if await asyncio.to_thread(_has_lines_after, task_instance, logged):
            await _await_own_log(task_instance)
            spans = await asyncio.to_thread(lambda: find_spans(_trigger_logs(task_instance), worker))
            _follower_log.info(
                "Going on with the job's lines that no other log of this try has",
                elsewhere=[[span.after, span.until] for span in spans],
            )
        else:
            spans = [worker]
        notes = _Notes(_note_path(task_instance), job) if job is not None else None
        noted = await asyncio.to_thread(notes.read) if notes is not None else []
        reached = spans[0].until if spans and not spans[0].after else 0
        return cls(spans, _last_place([handed_over, *noted], reached), notes)

    def write(self, line: Line) -> None:
        """Writes a line with the time at which the job wrote it, unless it is there."""
        time = round(line.timestamp * 1_000_000)
        while self._spans and self._spans[0].until < time:
            self._passed = self._spans.popleft()
        if self._spans and self._spans[0].after < time:
            return
        late = min(max(self._passed.shown + 1 - time // 1000, 0), 999) if self._passed is not None else 0
        when = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=time + 1000 * late)
        digits = f"{late:03}" if late else ""
        self._newest = (time, time // 1000 + late)
        self._end = line.end
        _log.info(clean_text(line.text), timestamp=f"{when:%Y-%m-%dT%H:%M:%S.%f}{digits}Z")
        if self._notes is not None:
            self._notes.add(Place(line.end, time))

    async def settle(self, task_instance: Any) -> None:
        """Waits until the lines that were written are in the log, for some seconds at most.

        Airflow's triggerer forgets the log of a trigger that has ended, with what it has not read of it until then: on
        a busy machine the job's last lines.

        Args:
            task_instance: As for :meth:`reopen`.
        """
        newest = self._newest[0]
        if task_instance is None or not newest or next(_trigger_logs(task_instance), None) is None:
            return
        await _await_log(task_instance, lambda log: read_newest(log)[0] >= newest)


class _Notes:
    """The newest places of a job's stream in the log of its task, in a file."""

    def __init__(self, path: Path, job: JobHandle) -> None:
        self._path = path
        self._job = [job.key, job.id]
        self._places: collections.deque[Place] = collections.deque(maxlen=_NOTES)
        self._noted: float = 0

    def read(self) -> list[Place]:
        """Returns what was noted of the job."""
        try:
            data = json.loads(self._path.read_bytes())
            places = [Place(*place) for place in data["places"]] if data["job"] == self._job else []
        except (OSError, ValueError, KeyError, TypeError):
            return []  # none, or somebody has changed it: all is read again
        self._places.extend(places)
        self._noted = max((place.offset for place in places), default=0)
        return places

    def add(self, place: Place) -> None:
        """Notes a place, unless it is near the one before."""
        if place.offset - self._noted < _NOTE_EVERY:
            return
        self._noted = place.offset
        self._places.append(place)
        data = json.dumps({"job": self._job, "places": [[each.offset, each.time] for each in self._places]})
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            new.write_text(data)
            new.replace(self._path)
        except OSError as error:
            self._noted = math.inf  # said once, and not tried again
            structlog.get_logger().warning(
                f"if this triggerer ends, the next one reads the job's log again from its beginning: {error}"
            )


async def _await_own_log(task_instance: Any) -> None:
    """Waits until the log of this trigger is the one that it writes.

    Airflow opens it at the trigger's first message, and empties one that the same triggerer has written in this try.
    """
    now = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
    _follower_log.info("Following the job again: looking up which of its lines this try has logged", timestamp=now)
    await _await_log(task_instance, lambda log: has_notice(log, now))


async def _await_log(task_instance: Any, condition: Callable[[Path], bool]) -> None:
    """Waits until one of the triggerers' logs is as it is to be, for some seconds at most."""
    pause, waited = 0.02, 0.0
    while waited < _OWN_LOG_WITHIN and not await asyncio.to_thread(
        lambda: any(map(condition, _trigger_logs(task_instance)))
    ):
        await asyncio.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, 1.0)


def _has_lines_after(task_instance: Any, time: int) -> bool:
    return any(read_newest(log)[0] > time for log in _trigger_logs(task_instance))


def _last_place(places: Iterable[Place], logged: int) -> Place:
    """Returns the last place that a log has reached whose newest line has a time."""
    return max((place for place in places if place.time <= logged), key=lambda place: place.offset, default=BEGINNING)


def _note_path(task_instance: Any) -> Path:
    # Not as the logs are named: what begins as one of those is shown with it.
    log = _log_path(task_instance)
    return log.with_name(f".{log.name}.places")


def _trigger_logs(task_instance: Any) -> Iterator[Path]:
    log = _log_path(task_instance)
    if log.parent.is_dir():
        yield from (path for path in log.parent.iterdir() if path.name.startswith(f"{log.name}.trigger."))


def _log_path(task_instance: Any) -> Path:
    from airflow.configuration import conf
    from airflow.utils.helpers import log_filename_template_renderer

    return Path(conf.get("logging", "base_log_folder")) / log_filename_template_renderer()(ti=task_instance)
