"""What the crash tests run as jobs."""

import os
import time


def count_and_talk(counter: str, lines: int, pause: float) -> int:
    """Adds a line to a file, to show how often it ran; then prints numbered lines."""
    with open(counter, "a") as file:
        file.write(f"{os.getpid()}\n")
    for number in range(lines):
        print(f"line {number}", flush=True)
        time.sleep(pause)
    return lines
