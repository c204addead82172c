"""One lane to a tracker: a thread sends waiting data, and retries while the other side is unreachable."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nemo_airflow.exceptions import TrackingError

_THREADS = 4
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0
_LONGEST_PAUSE_AT_THE_END = 2.0
_LOOK = 1.0


class Lane:
    """Sends waiting data repeatedly until nothing waits. To be used on one event loop.

    Args:
        name: Names the lane's threads, which all jobs of a process share.
        send: Sends waiting data, in a thread; never called twice at once.
        waits: Returns whether there is something to send.
        interval: Seconds between two rounds.
        ending: Set when the job has ended: then the only pauses are those after a failure.
        failed: Called on the event loop with the transient error that ended a round.
        recovered: Called on the event loop after the first round without an error.
        done: Called on the event loop after each round.
    """

    def __init__(
        self,
        name: str,
        *,
        send: Callable[[], None],
        waits: Callable[[], bool],
        interval: float,
        ending: asyncio.Event,
        failed: Callable[[TrackingError], None],
        recovered: Callable[[], None],
        done: Callable[[], None],
    ) -> None:
        self._name = name
        self._send = send
        self._waits = waits
        self._interval = interval
        self._ending = ending
        self._failed = failed
        self._recovered = recovered
        self._done = done
        self._delivery: asyncio.Task[None] | None = None
        self._failures = 0

    @property
    def is_failing(self) -> bool:
        """Whether the last round failed."""
        return self._failures > 0

    def begin(self) -> None:
        """Begins to send, if something waits and nothing is being sent."""
        if self._waits() and (self._delivery is None or self._delivery.done()):
            self._delivery = asyncio.get_running_loop().create_task(self._deliver(), name=f"nemo-tracking-{self._name}")

    async def drain(self, within: float, while_failing: float | None = None) -> None:
        """Waits until everything is sent, for a limited number of seconds.

        Args:
            within: Most seconds to wait.
            while_failing: Most seconds to wait while the other side does not answer; ``within`` if None.
        """
        self.begin()
        if self._delivery is None:
            return
        begun = asyncio.get_running_loop().time()
        waited = 0.0
        while not self._delivery.done() and waited < within:
            if while_failing is not None and self.is_failing and waited >= while_failing:
                return
            await asyncio.wait([self._delivery], timeout=min(_LOOK, within - waited))
            waited = asyncio.get_running_loop().time() - begun

    async def stop(self) -> None:
        """Stops sending; a call that is running in its thread ends by itself."""
        if self._delivery is not None:
            self._delivery.cancel()
            await asyncio.wait([self._delivery])

    async def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waits():
            await self._pause()
            try:
                await loop.run_in_executor(_pool(self._name, os.getpid()), self._send)
            except TrackingError as error:
                self._failures += 1
                self._failed(error)
            else:
                if self._failures:
                    self._recovered()
                self._failures = 0
            self._done()

    async def _pause(self) -> None:
        """Waits before the next round; after the job's end only following a failure."""
        if not self._failures:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), self._interval)
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._failures, 10)) * random.uniform(0.7, 1.0)  # noqa: S311 - only spreads the load
        if not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause)
        else:
            await asyncio.sleep(min(pause, _LONGEST_PAUSE_AT_THE_END))


@functools.cache
def _pool(name: str, pid: int) -> ThreadPoolExecutor:
    """Returns this process's thread pool; a fork does not have its parent's threads."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix=f"nemo-tracking-{name}-{pid}")
