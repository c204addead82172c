"""Runs coroutines from synchronous code, on one event loop in one private thread a process.

A thread of its own, because the caller's may be interrupted by a signal while it waits, and its
handler (a task that is killed) has to talk to the back-end as well.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Runs the coroutine on the private loop and returns its result.

    Args:
        coroutine: What to run. It is cancelled when the wait is interrupted by an exception.
        timeout: Seconds to wait at most, or None.

    Raises:
        TimeoutError: It did not end in time.
    """
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop(os.getpid()))
    try:
        return future.result(timeout)
    except BaseException:
        future.cancel()
        raise


@functools.cache
def _loop(pid: int) -> asyncio.AbstractEventLoop:
    """Returns this process's loop; a fork has no threads of its parent, so it needs its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=f"nemo-blocking-{pid}", daemon=True).start()
    return loop
