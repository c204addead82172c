"""Starts several processes of a job on this machine and ends them together, without a launcher."""

import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List

from nemo_airflow.runner import signals

_GRACE = 5.0
_DRAIN = 2.0


def run(count: int, folder: str) -> int:
    """Starts the processes and waits; returns 0, or the exit code of the first that failed.

    A process that succeeds leaves the others running; one that fails ends them all.

    Args:
        count: How many processes on this machine.
        folder: The job's folder.
    """
    processes = [_start(rank, count, folder) for rank in range(count)]
    for number in signals.WARNINGS:
        signal.signal(number, lambda number, frame: _pass_on(processes, number))
    selector = selectors.DefaultSelector()
    for rank, process in enumerate(processes):
        selector.register(process.stdout, selectors.EVENT_READ, _Prefixer(rank))  # type: ignore[arg-type]
    code = 0
    give_up = float("inf")
    while time.monotonic() < give_up:
        for key, _ in selector.select(0.1 if selector.get_map() else 0.02):
            if not key.data(key.fileobj):
                selector.unregister(key.fileobj)
        ended = [process.poll() for process in processes]
        # A process may close its output long before it ends, and its children may keep it open.
        if None not in ended and not selector.get_map():
            code = code or next((end for end in ended if end), 0)
            break
        if give_up < float("inf"):
            continue
        failed = [end for end in ended if end]
        if failed:
            code, give_up = failed[0], time.monotonic() + _GRACE
            # All processes and their children: they are in this process's group.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.killpg(0, signal.SIGTERM)
        elif None not in ended:
            give_up = time.monotonic() + _DRAIN
    # The supervisor ends the remaining processes with the whole group.
    return code if code >= 0 else 128 - code


def _pass_on(started: "List[subprocess.Popen[bytes]]", number: int) -> None:
    # All of them: any() would stop at the first that handles it.
    if not sum(signals.pass_on(process.pid, number) for process in started):
        os.write(2, f"{signals.explain_unhandled(number)}\n".encode())


def _start(local_rank: int, count: int, folder: str) -> "subprocess.Popen[bytes]":
    nodes, node = int(os.environ.get("NNODES", "1")), int(os.environ.get("NODE_RANK", "0"))
    env: Dict[str, str] = {
        **os.environ,
        "RANK": str(node * count + local_rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(nodes * count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    entry = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    return subprocess.Popen(
        [sys.executable, entry, "--rank", folder], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


class _Prefixer:
    """Passes on a process's lines, each with its rank in front."""

    def __init__(self, rank: int) -> None:
        self._prefix = f"[{rank}] ".encode()
        self._rest = b""

    def __call__(self, stream: Any) -> bool:
        data = os.read(stream.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if not data and self._rest:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            sys.stdout.buffer.write(self._prefix + line + b"\n")
        sys.stdout.buffer.flush()
        return bool(data)
