"""The trivial job that the benchmark runs everywhere."""

import time


def trivial() -> float:
    """Returns when its first line ran, in seconds since the epoch."""
    now = time.time()
    print("first line", now)
    return now
