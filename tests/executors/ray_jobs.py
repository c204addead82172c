"""What the tests of the Ray executor run. Shipped to the job as a package: standard library, Python >= 3.9."""

import os
import sys
import time
from pathlib import Path


def where(*names):
    """Returns environment variables, and where and by what the job runs."""
    return {"env": {name: os.environ.get(name) for name in names}, "python": sys.executable, "cwd": os.getcwd()}


def wait(seconds):
    """Prints that it has begun, then waits."""
    print("started", flush=True)
    time.sleep(seconds)


def wait_for(file):
    """Waits until a file is there."""
    print("started", flush=True)
    while not os.path.exists(file):
        time.sleep(0.05)
    return "seen"


def finish_when_told(seconds):
    """Waits, and on SIGTERM takes its time to write an output."""
    print("started", flush=True)
    try:
        time.sleep(seconds)
    finally:
        time.sleep(5)
        Path(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"], "checkpoint").write_text("saved")


def write_bytes():
    """Writes each byte value, invalid UTF-8 and carriage returns among them, then lines."""
    out = sys.stdout.buffer
    for _ in range(200):
        out.write(bytes(range(256)) + b"\r\n\r" + "漢".encode()[:2])
        out.flush()
    out.write(b"\nlast line\n")


def write_large(megabytes):
    """Writes one large output."""
    block = os.urandom(1 << 20)
    with open(os.path.join(os.environ["NEMO_AIRFLOW_OUTPUT_DIR"], "large.bin"), "wb") as file:
        for _ in range(megabytes):
            file.write(block)


def print_burst(count, width):
    """Prints wide lines fast."""
    line = "x" * width
    for number in range(count):
        print(number, line)


def remote_on(resource):
    """Runs a task on the node that has a resource; returns what it read from a file of this package there."""
    import ray

    ray.init(log_to_driver=False)
    return ray.get(ray.remote(read_note).options(resources={resource: 1}).remote())


def read_note():
    """Returns a file of the package, and the node."""
    import ray

    return Path("note.txt").read_text(), ray.get_runtime_context().get_node_id()
