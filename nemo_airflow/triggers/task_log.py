"""How far a killed triggerer had come in a task's log, so that its successor repeats no line.

A line's timestamp is a function of the job's stream alone and rises with each line, so the
newest timestamp in the log tells where to go on. Nothing else would: what a triggerer notes
elsewhere about its progress can be older or newer than what reached the log when it was killed.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOGGER = "nemo_airflow.job"
"""Name of the logger that writes the lines of jobs, and only those."""

_TAIL = 1 << 16


def microseconds(timestamp: float) -> int:
    """Returns a time in seconds as whole microseconds: what a log record keeps of it."""
    return round(timestamp * 1_000_000)


async def last_logged(task_instance: Any) -> int:
    """Returns the time of the newest line of the job in the logs of this try, in microseconds.

    Zero when there is none: then the whole stream is logged, as it must be where the log of the
    killed triggerer was on another machine's disk and is gone with it.
    """
    if task_instance is None:
        return 0
    return await asyncio.to_thread(lambda: max((_newest(path) for path in _trigger_logs(task_instance)), default=0))


def _trigger_logs(task_instance: Any) -> Iterator[Path]:
    from airflow.configuration import conf
    from airflow.utils.helpers import log_filename_template_renderer

    log = Path(conf.get("logging", "base_log_folder")) / log_filename_template_renderer()(ti=task_instance)
    if log.parent.is_dir():
        yield from (path for path in log.parent.iterdir() if path.name.startswith(f"{log.name}.trigger."))


def _newest(path: Path) -> int:
    """Returns the time of the last line of the job in a log file; reads it from its end."""
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
                if (time := _time_of(line)) is not None:
                    return time
            tail = lines[0]
    return 0


def _time_of(line: bytes) -> int | None:
    """Returns the time of a record of the job's logger; None for others, and for one cut off by a kill."""
    if LOGGER.encode() not in line:
        return None
    try:
        record = json.loads(line)
        if record.get("logger") != LOGGER:
            return None
        return microseconds(datetime.datetime.fromisoformat(record["timestamp"]).timestamp())
    except (ValueError, KeyError, AttributeError):
        return None
