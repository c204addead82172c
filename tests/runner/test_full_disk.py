"""A disk that is full, and a reader that has stopped: the job waits, and its limit and a cancel hold."""

import os
import signal
import subprocess

import pytest
from runner_cases import Ran, wait_for

CODE = """
import time

def print_and_wait():
    open("started", "w").close()
    print("x" * 10_000_000, flush=True)
    time.sleep(600)

def print_much():
    print("x" * 10_000_000)
    return "done"
"""


@pytest.fixture(params=["full disk", "reader that has stopped"])
def blocked(request):
    """A place to write to that takes nothing."""
    if request.param == "full disk":
        with open("/dev/full", "wb") as file:
            yield file.fileno()
        return
    read, write = os.pipe()
    yield write
    os.close(read)
    os.close(write)


def test_time_limit_holds(start, folder, blocked):
    process = start("print_and_wait", code=CODE, stdout=blocked, time_limit=1.0, grace=0.5)
    assert process.wait(300) == 124
    assert '"state":"timeout"' in (folder / "end.json").read_text()


def test_cancel_holds(start, folder, blocked):
    process = start("print_and_wait", code=CODE, stdout=blocked, grace=0.5)
    wait_for((folder / "claim").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 143
    assert '"state":"cancelled"' in (folder / "end.json").read_text()


def test_job_waits_for_a_reader_and_loses_nothing(start, folder):
    read, write = os.pipe()
    process = start("print_much", code=CODE, stdout=write, time_limit=60.0)
    os.close(write)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    with os.fdopen(read, "rb") as file:
        stream = file.read()
    ran = Ran(process.wait(300), stream, folder)
    assert (ran.end["state"], ran.end["result"]) == ("succeeded", "done")
    assert sum(map(len, ran.lines)) == 10_000_000


@pytest.mark.lab  # mounts a disk, as the lab does
def test_job_waits_for_room_on_a_disk_and_loses_nothing(start, folder, small_disk):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (200 << 10))
    with open(small_disk / "log", "wb") as log:
        process = start("print_much", code=CODE.replace("10_000_000", "100_000"), stdout=log.fileno(), time_limit=60.0)
    wait_for(lambda: os.statvfs(small_disk).f_bavail == 0)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    filler.unlink()
    ran = Ran(process.wait(300), (small_disk / "log").read_bytes(), folder)
    assert (ran.end["state"], ran.end["result"]) == ("succeeded", "done")
    assert sum(map(len, ran.lines)) == 100_000


def test_waiting_runner_shows_that_it_lives(start, folder, blocked):
    """Or a batch system's later start on another machine would take it for dead, and run the job twice."""
    env = {"NEMO_AIRFLOW_OWNER": "slurm:72"}
    process = start("print_and_wait", code=CODE, stdout=blocked, heartbeat=0.2, env=env)
    claim = folder / "claim"
    wait_for(claim.exists)
    seen = set()
    wait_for(lambda: seen.add(claim.stat().st_mtime_ns) or len(seen) > 3)
    process.send_signal(signal.SIGTERM)
    process.wait(300)
