"""What the tests of the runner share: jobs, and what is left of one that has run."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from nemo_airflow.stream import Line, Record, StreamReader

JOBS = """
import enum, os, pathlib, subprocess, sys, time, datetime, dataclasses, multiprocessing

class Color(enum.Enum):
    RED = "red"

@dataclasses.dataclass
class Score:
    value: float

class Scalar:
    shape = ()
    def item(self):
        return 1.5

def values():
    made = {"path": pathlib.Path("a"), "color": Color.RED, "score": Score(1.0), "scalar": Scalar()}
    return {**made, "day": datetime.date(2026, 1, 2), "pair": (1, 2), 3: None}

def no_json():
    return object()

def too_large():
    return "x" * (2 << 20)

def not_finite():
    return float("nan")

def separators():
    sys.stdout.write("a\\x1e{b}\\n")

def report(processes):
    from nemo_airflow.runner import log_metric, set_tag, in_job
    assert in_job()
    log_metric("loss", 1); log_metric("loss", 0.5); log_metric("nan", float("nan")); log_metric("at", 2.0, step=7)
    set_tag("dataset", "v2")
    code = "from nemo_airflow.runner import log_metrics; log_metrics({'of_%d': 1.0})"
    for number in range(processes):
        subprocess.run([sys.executable, "-c", code % number], check=True)
    if os.fork() == 0:
        log_metric("of_fork", 3)
        os._exit(0)
    os.wait()

def many_points(count):
    from nemo_airflow import log_metric
    for number in range(count):
        log_metric("x", number)

def bad_metric():
    from nemo_airflow import log_metric
    log_metric("loss", "low")

def keep():
    from nemo_airflow import log_artifact, output_dir
    pathlib.Path("model.bin").write_bytes(b"12345")
    log_artifact("model.bin", "models/best.bin")
    (output_dir() / "direct.txt").write_text("x")

def leave_a_child():
    child = subprocess.Popen(["sleep", "600"])
    print("done")
    print(child.pid)

def wait(seconds):
    try:
        print("waiting", flush=True)
        time.sleep(seconds)
    finally:
        print("cleaning up", flush=True)
        time.sleep(0.3)
        print("cleaned up", flush=True)

def clean_up_with_a_program(loses_a_signal):
    import signal
    if loses_a_signal:  # as it does that comes just before Python blocks in a system call
        usual = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, usual))
    try:
        print("waiting", flush=True)
        time.sleep(600)
    finally:
        print("program", subprocess.call(["sleep", "2"]), flush=True)

def memory():
    raise MemoryError("no room")

def chained():
    try:
        1 / 0
    except ZeroDivisionError as error:
        raise RuntimeError("outer") from error

def segfault():
    import ctypes
    ctypes.string_at(0)

def busy(seconds):
    data = bytearray(50 << 20)
    while time.process_time() < seconds:
        data[0] ^= 1
"""


def interpreters():
    """Returns the Pythons from 3.9 on that this machine has, by version: on the PATH, or found by uv or pyenv."""
    found = {}
    root = subprocess.run(["pyenv", "root"], capture_output=True, text=True).stdout if shutil.which("pyenv") else ""
    for minor in range(9, 15):
        uv = (
            subprocess.run(["uv", "python", "find", "--no-project", f"3.{minor}"], capture_output=True, text=True)
            if shutil.which("uv")
            else None
        )
        kept = Path(root.strip()).glob(f"versions/3.{minor}.*/bin/python3.{minor}") if root else ()
        for path in (shutil.which(f"python3.{minor}"), uv and uv.stdout.strip(), *kept):
            # A version manager's stand-in for a version that is not there fails.
            if path and subprocess.run([path, "-c", "import json"], capture_output=True).returncode == 0:
                found[f"3.{minor}"] = path
    return {**found, "own": sys.executable}


INTERPRETERS = interpreters()


class Ran:
    """What a job left."""

    def __init__(self, code, stream, folder):
        reader = StreamReader()
        self.items = reader.feed(stream) + reader.finish()
        self.code = code
        self.lines = [item.text for item in self.items if isinstance(item, Line)]
        self.end = json.loads((folder / "end.json").read_text()) if (folder / "end.json").exists() else None
        self.warnings = [record["message"] for record in self.records("warning")]
        self.points = [tuple(point) for record in self.records("metrics") for point in record["points"]]

    def records(self, kind):
        return [item.data for item in self.items if isinstance(item, Record) and item.type == kind]


def read_until(process, text):
    seen = b""
    while text not in seen:
        data = os.read(process.stdout.fileno(), 65536)
        assert data, seen
        seen += data
    return seen


def gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "ZX"
    except FileNotFoundError:
        return True


def wait_for(condition, limit=300):
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
