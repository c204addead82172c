"""Tells which lines of a job the logs of a task's try have: each of its triggerers writes a log of its own.

A log has all lines up to its newest one, apart from those that its trigger has left to other logs. A trigger that finds
lines in other logs says in its own which ones these are: those logs may be gone later. Without that it leaves
to others only what the worker has written.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

LOGGER = "nemo_airflow.job"
"""Name of the logger that writes the lines of jobs, and only those."""

FOLLOWER = "nemo_airflow.follower"
"""Name of the logger by which a trigger says what it leaves to other logs, as ``elsewhere``."""

_TAIL = _HEAD = 1 << 16

_LATE = re.compile(r"\.\d{6}(\d{3})Z$")


@dataclasses.dataclass(frozen=True)
class Span:
    """Lines of a job that follow each other.

    Attributes:
        after: Time of the line before the first of them, in microseconds; 0 for none.
        until: Time of the last of them.
        shown: The millisecond at which that one is shown.
    """

    after: int
    until: int
    shown: int


def find_spans(logs: Iterable[Path], worker: Span) -> list[Span]:
    """Returns what the logs of triggerers have, with what the worker's log has; in order, and apart from each other."""
    spans = [worker]
    for log in logs:
        newest, shown = read_newest(log)
        elsewhere = _read_elsewhere(log)
        spans += _without(Span(0, newest, shown), [(0, worker.until)] if elsewhere is None else elsewhere)
    return _merge(span for span in spans if span.until > span.after)


def read_newest(path: Path) -> tuple[int, int]:
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


def has_notice(path: Path, timestamp: str) -> bool:
    """Returns whether a log begins with what a trigger has logged at a time."""
    return any(record.get("timestamp") == timestamp for record in _notices(path))


def _read_elsewhere(path: Path) -> list[tuple[int, int]] | None:
    """Returns the times of the lines that a trigger has left to other logs; None where it does not say."""
    said = [record["elsewhere"] for record in _notices(path) if "elsewhere" in record]
    return [(int(after), int(until)) for after, until in said[0]] if said else None


def _notices(path: Path) -> list[dict[str, Any]]:
    """Returns the records of the follower's logger at the beginning of a log."""
    with path.open("rb") as file:
        lines = [line for line in file.read(_HEAD).splitlines() if FOLLOWER.encode() in line]
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:  # cut off
            continue
        if isinstance(record, dict) and record.get("logger") == FOLLOWER:
            records.append(record)
    return records


def _without(span: Span, others: Iterable[tuple[int, int]]) -> list[Span]:
    """Returns what is left of a span without others."""
    left = []
    begin = span.after
    for after, until in sorted(others):
        if after >= span.until:
            break
        if begin < after:
            left.append(Span(begin, after, after // 1000))
        begin = max(begin, until)
    return [*left, dataclasses.replace(span, after=begin)]


def _merge(spans: Iterable[Span]) -> list[Span]:
    """Returns spans in order, those that touch each other as one."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.after, span.until)):
        last = merged[-1] if merged else None
        if last is None or span.after > last.until:
            merged.append(span)
        elif span.until > last.until:
            merged[-1] = dataclasses.replace(span, after=last.after)
        else:
            merged[-1] = dataclasses.replace(last, shown=max(last.shown, span.shown if span.until == last.until else 0))
    return merged


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
