"""Gets a job's stream and outputs back out of the log as SkyPilot shows it. Pure."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Iterator

from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.skypilot.executor import LABELS, OUTPUT
from nemo_airflow.stream import MARK

_PREFIX = re.compile(
    r"(?:\x1b\[\d+m)*\((?:[^(),]+, )?(?:rank=(?P<rank>\d+), )?pid=\d+(?:, ip=[^()]+)?\)(?:\x1b\[\d+m)* ?"
)
"""What Ray puts before each line of a task: ``(name, pid=12)``, or ``(head, rank=0, pid=12)`` of one of several."""


def stream(log: str) -> bytes:
    """Returns what the first machine's runner wrote.

    Args:
        log: The log: lines of the job have a prefix, SkyPilot's own have none.
    """
    return b"".join(line.encode() + b"\n" for line in _lines(log) if not line.startswith((OUTPUT, LABELS)))


LINES = (200, 4_000, 80_000, 0)
"""How many lines from the end of a log are asked for, one after another; 0 for all."""


@dataclasses.dataclass(frozen=True)
class Anchor:
    """A record in a job's stream, by which an excerpt is placed: no other record is the same, as each has its time.

    Attributes:
        record: The record's line.
        offset: Bytes of the stream before it.
    """

    record: bytes
    offset: int


def place(excerpt: bytes, anchor: Anchor) -> int | None:
    """Returns how many bytes of the stream are before an excerpt of it; None where the anchor is not in it."""
    position = excerpt.find(anchor.record)
    return anchor.offset - position if position >= 0 else None


def last_anchor(excerpt: bytes, offset: int) -> Anchor | None:
    """Returns the last record of an excerpt, before which there are so many bytes of the stream; None without one."""
    end = len(excerpt)
    while (begin := excerpt.rfind(MARK, 0, end)) >= 0:
        line, newline, _ = excerpt[begin:].partition(b"\n")
        if newline and b'"ts":' in line:
            return Anchor(line + newline, offset + begin)
        end = begin
    return None


def labels(log: str) -> dict[str, str]:
    """Returns which task the job is of; nothing where the log does not say so yet."""
    line = next((line for line in _lines(log) if line.startswith(LABELS)), "")
    return dict(json.loads(base64.b64decode(line.split()[1]))) if line else {}


def has_begun(log: str) -> bool:
    """Returns whether the job's runner has claimed the work: only then it writes records."""
    return MARK in stream(log)


def outputs(log: str) -> bytes | None:
    """Returns the tar archive of the outputs; None when it has not come whole yet.

    Raises:
        ExecutorError: There was too much to be sent.
    """
    lines = [line.split() for line in _lines(log) if line.startswith(OUTPUT)]
    if not lines or len(lines[-1]) != 3:
        return None
    if len(lines) == 1:
        raise ExecutorError(
            f"the outputs have {int(lines[0][2]):,} bytes, more than output_limit of SkypilotExecutor: raise "
            "it, or write large outputs into a bucket of file_mounts"
        )
    return base64.b64decode("".join(line[1] for line in lines[:-1]))


def _lines(log: str) -> Iterator[str]:
    # Not splitlines: the job's own lines may hold other characters that it takes for the end of one.
    for line in log.split("\n")[:-1]:
        found = _PREFIX.match(line)
        if found and found["rank"] in (None, "0"):
            yield line[found.end() :].rstrip("\r")
