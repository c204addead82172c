"""What a job that writes 20 MB/s of short lines does to the others of its triggerer.

A hundred quiet jobs write a line a second; they are followed alone, then beside the loud one, then alone again. The
jobs are folders of the local executor, and one process writes all their logs. A line's delay is the time from its
writing to its log.
Usage: ``python tests/bench/noisy_neighbour.py [SECONDS]``.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle
from nemo_airflow.runner import claims
from nemo_airflow.stream import Line

QUIET = 100
RATE = 20 << 20
"""Bytes a second of the loud job."""

LOUD_LINE = b"step 12345 loss 0.5\n"
PACE = 0.02


def write(root: Path, seconds: float, loud: bool) -> None:
    """Is the jobs: claims their folders, writes their logs, and ends them."""
    names = [*(f"quiet-{number}" for number in range(QUIET)), *(["loud"] if loud else [])]
    for name in names:
        (root / name).mkdir()
        claims.take(str(root / name), 30)
    files = {name: (root / name / "log").open("ab", buffering=0) for name in names}
    block = LOUD_LINE * int(RATE * PACE / len(LOUD_LINE))
    print("ready", flush=True)
    begun = time.monotonic()
    turn = 0
    while time.monotonic() - begun < seconds:
        if loud:
            files["loud"].write(block)
        for number in range(turn % 50, QUIET, 50):  # each once a second, in turn
            files[f"quiet-{number}"].write(b"%.6f\n" % time.time())
        turn += 1
        time.sleep(max(begun + turn * PACE - time.monotonic(), 0))
    end = {"v": 1, "type": "end", "ts": time.time(), "at": 0, "state": "succeeded"}
    for name, file in files.items():
        file.write(b"\x1e" + json.dumps(end).encode() + b"\n")
        (root / name / "end.json").write_text('{"state":"succeeded"}')
    time.sleep(60)  # a runner outlives its job's end


async def follow(root: Path, seconds: float, loud: bool) -> None:
    """Follows the jobs to their end, and prints what it took."""
    arguments = [sys.executable, __file__, "--write", str(root), str(seconds), str(int(loud))]
    writer = await asyncio.create_subprocess_exec(*arguments, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    await writer.stdout.readline()
    executor = LocalExecutor(root=str(root))
    delays: list[float] = []
    loud_lines = 0

    def add(line: Line) -> None:
        delays.append(time.time() - float(line.text))

    def count(line: Line) -> None:
        nonlocal loud_lines
        loud_lines += 1

    followers = [
        Follower(executor, JobHandle(f"quiet-{number}", "local", "1"), on_line=add, warn=print)
        for number in range(QUIET)
    ]
    if loud:
        followers.append(Follower(executor, JobHandle("loud", "local", "1"), on_line=count, warn=print))
    holds: list[float] = []
    used = time.process_time()
    beating = asyncio.create_task(beat(holds))
    await asyncio.gather(*(each.run() for each in followers))
    beating.cancel()
    writer.kill()
    await writer.wait()
    delays.sort()
    print(
        f"| {'beside the loud one' if loud else 'alone'} | {statistics.median(delays):.2f} s "
        f"| {delays[int(len(delays) * 0.95)]:.2f} s | {max(holds):.2f} s "
        f"| {100 * (time.process_time() - used) / seconds:.0f} % | {loud_lines:,} |"
    )


async def beat(holds: list[float]) -> None:
    """Notes for how long the loop was held at a time, in seconds of the clock."""
    while True:
        asked = time.monotonic()
        await asyncio.sleep(0.01)
        holds.append(time.monotonic() - asked - 0.01)


def main(seconds: float) -> None:
    """Prints the table."""
    size = len(LOUD_LINE)
    print(f"{QUIET} quiet jobs for {seconds:.0f} s; the loud one writes {RATE >> 20} MiB/s in lines of {size} bytes")
    print("| | median delay | p95 | longest silence | processor | loud lines in the log |\n|---|--:|--:|--:|--:|--:|")
    for loud in (False, True, False):
        with tempfile.TemporaryDirectory(prefix="nemo-bench-") as root:
            asyncio.run(follow(Path(root), seconds, loud))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4] == "1")
    else:
        main(float(sys.argv[1]) if sys.argv[1:] else 30.0)
