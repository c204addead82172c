"""What it costs a new triggerer to go on with jobs whose logs are long: from where they were, and from the beginning.

The jobs are local ones that have ended with a log of so many megabytes; all logs are one file. From the beginning only
a twentieth of the jobs are followed, and what that takes is multiplied.
Usage: ``python tests/bench/restart.py [JOBS] [MEGABYTES]``.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle
from nemo_airflow.stream import BEGINNING, Line, Place, StreamReader

SHARE = 20


def write_log(path: Path, size: int) -> Place:
    """Writes a log of lines of a hundred bytes; returns where its last 10 kB begin."""
    last = BEGINNING
    with path.open("wb") as file:
        for number in range(size // 100):
            if number % 1000 == 0:
                clock = {"v": 1, "type": "clock", "ts": 1_800_000_000 + number / 1000, "at": file.tell()}
                file.write(b"\x1e" + json.dumps(clock).encode() + b"\n")
            file.write(b"%099d\n" % number)
        file.write(b'\x1e{"v":1,"type":"end","ts":1900000000.0,"at":0,"state":"succeeded"}\n')
    reader = StreamReader()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            for item in reader.feed(data):
                if isinstance(item, Line) and item.end < size - 10_000:
                    last = Place(item.end, round(item.timestamp * 1e6))
    return last


def make_jobs(root: Path, count: int, size: int) -> Place:
    """Makes folders of jobs that have ended; returns how far their logs were followed."""
    place = write_log(root / "log", size)
    claim = {"pid": 1, "start_ticks": 1, "boot_id": "an earlier one", "host": socket.gethostname(), "ts": 1.0}
    for number in range(count):
        folder = root / f"job-{number}"
        folder.mkdir()
        (folder / "claim").write_text(json.dumps(claim))
        (folder / "end.json").write_text('{"state":"succeeded"}')
        os.link(root / "log", folder / "log")
    return place


async def follow(root: Path, count: int, place: Place) -> int:
    """Follows jobs to their end; returns how many lines they had."""
    lines = 0

    def add(line: Line) -> None:
        nonlocal lines
        lines += 1

    executor = LocalExecutor(root=str(root))
    followers = [
        Follower(executor, JobHandle(f"job-{number}", "local", "1"), on_line=add, warn=print, logged=place)
        for number in range(count)
    ]
    await asyncio.gather(*(each.run() for each in followers))
    return lines


def measure(root: Path, count: int, place: Place, times: int) -> None:
    """Prints what it takes to follow jobs."""
    begun, used = time.monotonic(), time.process_time()
    lines = asyncio.run(follow(root, count // times, place))
    seconds, processor = (times * spent for spent in (time.monotonic() - begun, time.process_time() - used))
    begin = "the beginning" if place == BEGINNING else "where they were"
    print(f"{count} jobs, from {begin}: {seconds:.1f} s, {processor:.1f} s of a core, {times * lines:,} lines")


def main() -> None:
    """Makes the jobs, and measures both."""
    count, megabytes = [int(text) for text in sys.argv[1:]] + [200, 50][len(sys.argv) - 1 :]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place = make_jobs(root, count, megabytes * 1_000_000)
        measure(root, count, place, times=1)
        measure(root, count, BEGINNING, times=SHARE)


if __name__ == "__main__":
    main()
