"""Runs coroutines from synchronous code, on one event loop in a private thread of each process.

A separate thread, because a signal may interrupt the caller's thread while it waits, and the
signal's handler (of a task that is killed) also has to talk to the back-end.
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
        coroutine: The coroutine. It is cancelled when an exception interrupts the wait.
        timeout: Most seconds to wait, or None.

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
    """Returns this process's loop; a fork needs its own, since it does not have its parent's threads."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=f"nemo-blocking-{pid}", daemon=True).start()
    return loop
