"""What the tasks of the kill matrix run. Shipped to the job as a package: standard library, Python >= 3.9."""

import os
import signal
import time
from pathlib import Path

from nemo_airflow import Preempted, latest_checkpoint, log_metric, output_dir, save_checkpoint, should_stop

LINES = 10


def count_and_talk(counter: str) -> str:
    """Adds a line to a file, to show how often it ran; then prints lines, logs points and keeps a file."""
    with open(counter, "a") as file:
        file.write(f"{os.getpid()}\n")
    for number in range(LINES):
        print(f"line {number}", flush=True)
        log_metric("loss", 1 / (number + 1), step=number)
        time.sleep(0.05)
    (Path(output_dir()) / "model.txt").write_text(f"weights of {Path(counter).name}")
    return f"result of {Path(counter).name}"


def stop_and_go_on(counter: str) -> str:
    """Adds a line to a file at each attempt; is warned halfway, as before a preemption, and goes on in the next one."""
    found = latest_checkpoint()
    first = found.values["step"] if found else 0
    with open(counter, "a") as file:
        file.write(f"{first}\n")
    for number in range(first, LINES):
        if number == LINES // 2 and not found:
            os.kill(os.getppid(), signal.SIGUSR1)
            while not should_stop():
                time.sleep(0.01)
            with save_checkpoint(step=number) as folder:
                (folder / "state").write_text("state")
            raise Preempted
        log_metric("loss", 1 / (number + 1), step=number)
    (Path(output_dir()) / "model.txt").write_text(f"weights of {Path(counter).name}")
    return f"result of {Path(counter).name}"
