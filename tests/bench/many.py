"""Follows many jobs in one event loop, in a process of its own, and says what it took."""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Watcher = tuple[subprocess.Popen[str], TextIO]

MARK = "REPORT "


def start(script: str | Path, name: str, given: object, env: Mapping[str, str]) -> Watcher:
    """Starts a watcher: the script again, with ``--watch NAME`` and what it is given as JSON on its standard input."""
    # A file: a pipe that nobody empties would hold up the watcher, whose triggers write their task logs there.
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the watcher
    command = [sys.executable, str(script), "--watch", name]
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, text=True, env=env)
    assert watcher.stdin is not None
    json.dump(given, watcher.stdin)
    watcher.stdin.close()
    return watcher, output


def report_of(watcher: Watcher) -> dict:
    """Waits for a watcher, and returns what it printed for us."""
    process, output = watcher
    process.wait()
    with output:
        output.seek(0)
        return next(json.loads(line.removeprefix(MARK)) for line in output if line.startswith(MARK))


async def measure(
    triggers: Mapping[str, Any],
    succeeded: Callable[[Any], bool],
    requests: Callable[[], int],
    connections: Callable[[], int],
) -> None:
    """Runs triggers in this event loop, and prints what it took."""
    ended, failed = {}, []
    longest = 0.0

    async def follow(key: str, trigger: Any) -> None:
        async for event in trigger.run():
            ended[key] = time.time()
            if not succeeded(event.payload):
                failed.append(key)
            return

    async def heart() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            longest = max(longest, time.monotonic() - before - 0.05)

    beating = asyncio.create_task(heart())
    begun, cpu = time.time(), time.process_time()
    await asyncio.gather(*(follow(key, trigger) for key, trigger in triggers.items()))
    beating.cancel()
    report = {
        "ended": ended, "failed": failed, "seconds": time.time() - begun, "cpu": time.process_time() - cpu,
        "requests": requests(), "connections": connections(), "silence": longest,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
    print(f"\n{MARK}{json.dumps(report)}")


def show(name: str, report: dict, ended: Mapping[str, float], connections: int) -> None:
    """Prints one watcher's figures; ``ended`` says when the jobs themselves had ended."""
    waits = sorted(report["ended"][key] - ended[key] for key in report["ended"] if key in ended)
    p95 = waits[int(len(waits) * 0.95)]
    print(
        f"{name:20} connections {connections:5}  requests/s {report['requests'] / report['seconds']:6.2f}  "
        f"CPU {report['cpu']:6.1f} s in {report['seconds']:4.0f} s  "
        f"end to end: median {statistics.median(waits):5.2f} s, p95 {p95:5.2f} s  "
        f"longest silence {report['silence']:.2f} s  wrongly failed {len(report['failed'])}  {report['rss']:.0f} MiB"
    )
