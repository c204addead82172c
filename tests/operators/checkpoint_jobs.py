"""Jobs that save their state, and stop when they are told to."""

import json
import os
import signal
import time
from pathlib import Path

from nemo_airflow.runner import Preempted, latest_checkpoint, log_metric, save_checkpoint, should_stop


def add_up(steps: int, warned_before: list[int], killed_before: int = -1, size: int = 0) -> dict:
    """Adds up numbers; is warned before some of them, as by a scheduler, and killed before another, each once."""
    found = latest_checkpoint()
    first, total = (found.values["step"], int(Path(found, "total").read_text())) if found else (0, 0)
    for step in range(first, steps):
        if step in warned_before and step != first:
            os.kill(os.getppid(), signal.SIGUSR1)
            while not should_stop():
                time.sleep(0.01)
        if should_stop() or (step == killed_before and step != first):
            with save_checkpoint(step=step) as folder:
                Path(folder, "total").write_text(str(total))
                Path(folder, "weights").write_bytes(bytes([step]) * size)
            if should_stop():
                raise Preempted
            os.kill(os.getpid(), signal.SIGKILL)
        total += step
        print(f"step {step}", flush=True)
        log_metric("total", total)
    return {"first": first, "total": total}


def save_and_vanish(store: str) -> list[int]:
    """Saves checkpoints until one has the number in $UNTIL, and dies with its runner once the store has it.

    Returns:
        What it went on from: the numbers of what the attempt before had gone on from, and of its last checkpoint.
    """
    until, found = int(os.environ["UNTIL"]), latest_checkpoint()
    before = found.values["before"] if found else 0
    at = found.number if found else 0
    if not until:
        return [before, at]
    while at < until:
        at += 1
        with save_checkpoint(before=found.number if found else 0) as folder:
            Path(folder, "frozen").write_bytes(bytes(1 << 20))
            Path(folder, "state").write_bytes(bytes([at]) * (1 << 20))
    listed = Path(store, "incoming", os.environ["NEMO_AIRFLOW_KEY"], "checkpoints.json")
    while not (listed.exists() and f'"{at:06d}-' in listed.read_text()):
        time.sleep(0.02)
    if "CUT" in os.environ:  # as by a store that has lost its last block
        files = json.loads(listed.read_text())["files"]
        piece = listed.with_name(next(sha256 for path, _, _, sha256 in reversed(files) if path.endswith("state")))
        piece.write_bytes(piece.read_bytes()[:-1])
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)
    return []


def stop_when_told(times: int) -> int:
    """Waits until it is told to stop, in so many attempts; returns how many were."""
    found = latest_checkpoint()
    done = found.values["attempts"] if found else 0
    print(f"attempt {done} waits", flush=not should_stop())
    if done == times:
        return done
    while not should_stop():
        time.sleep(0.05)
    with save_checkpoint(attempts=done + 1) as folder:
        Path(folder, "state").write_text("state")
    raise Preempted
