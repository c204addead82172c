"""A job that writes much keeps the event loop of the triggerer, and so its other jobs, from nothing."""

import asyncio
import gc
import json
import socket
import time

import pytest

from nemo_airflow.executors import LocalExecutor
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle
from nemo_airflow.triggers.task_log import TaskLog

END = b'\x1e{"v":1,"type":"end","ts":1.0,"at":0,"state":"succeeded"}\n'
LONGEST = 0.2
"""Seconds for which the loop may be held: Airflow counts a triggerer as dead after thirty."""


@pytest.fixture
def executor(tmp_path):
    """Where a job has ended that wrote four megabytes of the shortest lines."""
    folder = tmp_path / "job"
    folder.mkdir()
    claim = {"pid": 1, "start_ticks": 1, "boot_id": "an earlier one", "host": socket.gethostname(), "ts": 1.0}
    (folder / "claim").write_text(json.dumps(claim))
    (folder / "log").write_bytes(b"y\n" * (2 << 20) + END)
    (folder / "end.json").write_text('{"state":"succeeded"}')
    return LocalExecutor(root=str(tmp_path))


@pytest.fixture(autouse=True)
def small_heap():
    """Keeps the garbage collector from what other tests left in this process: it would hold the loop for a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def longest_turn(run):
    """Returns for how long a coroutine held the loop at most: in seconds of this thread, whatever else runs here."""
    longest = 0.0

    async def beat():
        nonlocal longest
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - begun)

    beating = asyncio.create_task(beat())
    await run
    beating.cancel()
    return longest


async def test_millions_of_short_lines_hold_the_event_loop_at_no_time(executor):
    lines = 0

    def count(line):
        nonlocal lines
        lines += int(line.text.split()[1].replace(",", "")) if "left out" in line.text else 1

    follower = Follower(executor, JobHandle("job", "local", "1"), on_line=count, warn=print)
    assert await longest_turn(follower.run()) < LONGEST
    assert lines == 2 << 20


async def test_lines_that_are_slow_to_log_hold_the_event_loop_at_no_time(executor, tmp_path):
    (tmp_path / "job" / "log").write_bytes(b"y\n" * (32 << 10) + END)
    follower = Follower(executor, JobHandle("job", "local", "1"), on_line=TaskLog().write, warn=print)
    assert await longest_turn(follower.run()) < LONGEST
