"""Threads for blocking calls of one kind, such as those of a connection: what hangs there delays no others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Two bounded pools of threads. Transfers, which may take hours, have their own: they delay no short call.

    Args:
        name: What to call the threads.
        calls: How many short calls may be under way at one time.
        transfers: How many transfers may be.
    """

    def __init__(self, name: str, calls: int = 8, transfers: int = 4) -> None:
        self._calls = concurrent.futures.ThreadPoolExecutor(calls, f"nemo-{name}")
        self._transfers = concurrent.futures.ThreadPoolExecutor(transfers, f"nemo-{name}-transfer")

    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Awaits a short call that blocks."""
        return await _run(self._calls, functools.partial(function, *args, **kwargs))

    async def transfer(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Awaits a call that moves packages, images or outputs."""
        return await _run(self._transfers, functools.partial(function, *args, **kwargs))

    def close(self) -> None:
        """Lets the threads end once they are idle; calls that have not begun are dropped."""
        for pool in (self._calls, self._transfers):
            pool.shutdown(wait=False, cancel_futures=True)


async def _run(pool: concurrent.futures.ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(pool, call)
