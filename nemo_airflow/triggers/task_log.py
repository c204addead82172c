"""Writes a job's lines to its task's log, and knows how far others of the same try had come, so that none is repeated.

A line's timestamp is a function of the job's stream alone and rises with each line, so the
newest timestamp in the log tells where to go on. Nothing else would: what a triggerer notes
elsewhere about its progress can be older or newer than what reached the log when it was killed. A worker that hands its
job over to a trigger is not killed: it says how far it has come, as its log may be on another machine.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

from nemo_airflow.clean import clean_text
from nemo_airflow.stream import Line

LOGGER = "nemo_airflow.job"
"""Name of the logger that writes the lines of jobs, and only those."""

_TAIL = 1 << 16

_LATE = re.compile(r"\.\d{6}(\d{3})Z$")

_log = structlog.get_logger(logger_name=LOGGER)


class TaskLog:
    """Writes the lines of a job to the log of its task, each once.

    Airflow merges the logs of a task's triggerers by the millisecond, and within one by the number of the line in its
    log: the first line of a new log would come before the last of the old one where a job wrote both in one
    millisecond. Such a line is shown a millisecond later than it was written; by how many is told by three digits
    that follow those of the microseconds.

    Args:
        logged: Time of the newest line that is there, in microseconds.
        shown: The millisecond at which that line is shown.
    """

    def __init__(self, logged: int = 0, shown: int = 0) -> None:
        self._logged = logged
        self._shown = shown
        self._newest = (logged, shown)

    @property
    def mark(self) -> tuple[int, int]:
        """The newest line that was written: when the job wrote it, and the millisecond at which it is shown."""
        return self._newest

    @classmethod
    async def reopen(cls, task_instance: Any, mark: tuple[int, int] = (0, 0)) -> TaskLog:
        """Returns a log that goes on where the worker and earlier triggers of this try have ended.

        Where there is no line it begins with the job's first, as it must where the log of the
        killed triggerer was on another machine's disk and is gone with it.

        Args:
            task_instance: The task instance that the triggerer has; None outside one.
            mark: What :attr:`mark` of the worker's log was.
        """
        if task_instance is None:
            return cls(*mark)
        newest = await asyncio.to_thread(lambda: [_newest(path) for path in _trigger_logs(task_instance)])
        return cls(*max([*newest, mark]))

    def write(self, line: Line) -> None:
        """Writes a line with the time at which the job wrote it, unless it is there."""
        time = round(line.timestamp * 1_000_000)
        if time <= self._logged:
            return
        late = min(max(self._shown + 1 - time // 1000, 0), 999) if self._logged else 0
        when = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=time + 1000 * late)
        digits = f"{late:03}" if late else ""
        self._newest = (time, time // 1000 + late)
        _log.info(clean_text(line.text), timestamp=f"{when:%Y-%m-%dT%H:%M:%S.%f}{digits}Z")


def _trigger_logs(task_instance: Any) -> Iterator[Path]:
    from airflow.configuration import conf
    from airflow.utils.helpers import log_filename_template_renderer

    log = Path(conf.get("logging", "base_log_folder")) / log_filename_template_renderer()(ti=task_instance)
    if log.parent.is_dir():
        yield from (path for path in log.parent.iterdir() if path.name.startswith(f"{log.name}.trigger."))


def _newest(path: Path) -> tuple[int, int]:
    """Returns when the last line of the job in a log file was written and is shown; reads the file from its end."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        tail = b""
        while size > 0:
            step = min(_TAIL, size)
            size -= step
            file.seek(size)
            tail = file.read(step) + tail
            lines = tail.split(b"\n")
            # The first piece may be the end of a record that begins further up.
            for line in reversed(lines if size == 0 else lines[1:]):
                if (times := _times_of(line)) is not None:
                    return times
            tail = lines[0]
    return 0, 0


def _times_of(line: bytes) -> tuple[int, int] | None:
    """Returns the times of a record of the job's logger; None for others, and for one cut off by a kill."""
    if LOGGER.encode() not in line:
        return None
    try:
        record = json.loads(line)
        if record.get("logger") != LOGGER:
            return None
        shown = round(datetime.datetime.fromisoformat(record["timestamp"]).timestamp() * 1_000_000)
        late = _LATE.search(record["timestamp"])
        return shown - 1000 * int(late[1] if late else 0), shown // 1000
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
