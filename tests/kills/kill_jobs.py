"""What the tasks of the kill matrix run. Shipped to the job as a package: standard library, Python >= 3.9."""

import os
import time
from pathlib import Path

from nemo_airflow import log_metric, output_dir

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
