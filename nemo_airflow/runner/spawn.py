"""Starts several processes of a job on this machine, and ends them together: no launcher needed."""

import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Any, Dict, List

_GRACE = 5.0


def run(count: int, folder: str) -> int:
    """Starts the processes and waits; returns 0, or the exit code of the first that failed.

    One that ends well leaves the others running; one that fails ends them all.

    Args:
        count: How many processes on this machine.
        folder: The job's folder.
    """
    processes = [_start(rank, count, folder) for rank in range(count)]
    selector = selectors.DefaultSelector()
    for rank, process in enumerate(processes):
        selector.register(process.stdout, selectors.EVENT_READ, _Prefixer(rank))  # type: ignore[arg-type]
    code = 0
    kill_at = 0.0
    while selector.get_map() or any(process.poll() is None for process in processes):
        for key, _ in selector.select(0.1):
            if not key.data(key.fileobj):
                selector.unregister(key.fileobj)
        failed = [code for process in processes if (code := process.poll() or 0)]
        if failed and not kill_at:
            code, kill_at = failed[0], time.monotonic() + _GRACE
            _signal(processes, signal.SIGTERM)
        if kill_at and time.monotonic() > kill_at:
            _signal(processes, signal.SIGKILL)
    return code if code >= 0 else 128 - code


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


def _signal(processes: "List[subprocess.Popen[bytes]]", number: int) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(number)


class _Prefixer:
    """Passes a process's lines on, each behind its rank."""

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
