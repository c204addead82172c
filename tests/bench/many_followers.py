"""What it costs a triggerer to follow ten thousand jobs: processor and memory, with a driver that is simulated.

The driver answers at once, as no back-end does: what is measured is what is ours above it. Each job writes a line a
minute. Usage: ``python tests/bench/many_followers.py [JOBS] [SECONDS]``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import resource
import sys
import time
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from nemo_airflow.executors.base import Chunk, Cursor, Driver, Executor
from nemo_airflow.executors.seen import RUNNING, Seen
from nemo_airflow.follow import Follower
from nemo_airflow.job import JobHandle

LINE = b"step 1: loss 0.5\n"


class SimulatedDriver(Driver):
    """A cluster of jobs that run for ever and write a line a minute."""

    poll_interval: ClassVar[tuple[float, float]] = (1.0, 30.0)

    def __init__(self) -> None:
        self.begun = time.monotonic()
        self.looks = self.looked = 0

    async def look(self, handles: Sequence[JobHandle]) -> dict[str, Seen]:
        self.looks, self.looked = self.looks + 1, self.looked + len(handles)
        at = time.monotonic()
        return {handle.key: Seen(at, queue=RUNNING) for handle in handles}

    async def read(self, cursors: Sequence[Cursor]) -> list[Chunk]:
        minutes = int((time.monotonic() - self.begun) / 60)
        return [Chunk(each.handle.key, each.offset, LINE) for each in cursors if each.offset < minutes * len(LINE)]

    async def _none(self, *_: Any) -> Any:
        raise NotImplementedError("the simulated jobs run for ever")

    submit = find = cancel = collect = remove = survey = labels = _none


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatedExecutor(Executor):
    """Gives the one simulated driver."""

    kind: ClassVar[str] = "simulated"
    driver: ClassVar[SimulatedDriver]

    def render(self, job: Any) -> Any:
        raise NotImplementedError("nothing is submitted")

    def connection_key(self) -> Hashable:
        return self.kind

    def connect(self) -> Driver:
        return self.driver


async def follow(count: int, seconds: float) -> None:
    """Follows so many jobs for a time, and prints what it cost."""
    SimulatedExecutor.driver = SimulatedDriver()
    executor = SimulatedExecutor()
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    followers = [
        asyncio.create_task(
            Follower(
                executor, JobHandle(f"job-{number}", "simulated", str(number)), on_line=lambda line: None, warn=print
            ).run()
        )
        for number in range(count)
    ]
    await asyncio.sleep(10)  # until all have begun
    begun, used = time.monotonic(), time.process_time()
    longest = 0.0
    while time.monotonic() - begun < seconds:
        # In seconds of this thread: whatever else the machine does is not ours.
        asked = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - asked)
        await asyncio.sleep(0.005)
    used = (time.process_time() - used) / (time.monotonic() - begun)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / count
    driver = executor.driver
    print(f"{count} jobs: {100 * used:.0f} % of a core, {grown / 1000:.1f} kB a job, loop held {longest:.2f} s at most")
    print(f"{driver.looks} looks at {driver.looked / driver.looks:.0f} jobs each")
    for each in followers:
        each.cancel()
    await asyncio.gather(*followers, return_exceptions=True)


if __name__ == "__main__":
    arguments = [float(text) for text in sys.argv[1:]] + [10_000, 60][len(sys.argv) - 1 :]
    asyncio.run(follow(int(arguments[0]), arguments[1]))
