"""Work that takes too long for a request: a few threads of this process do it, and what it came to is kept."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

_KEPT = 500

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Kept(Generic[T]):
    """What is kept of some work.

    Attributes:
        value: What it came to last; None before that.
        at: When that was, in seconds since the epoch.
        is_running: Whether it is done again just now.
        error: What went wrong the last time, that the work itself does not tell; empty otherwise.
    """

    value: T | None = None
    at: float = 0.0
    is_running: bool = False
    error: str = ""


class Background(Generic[T]):
    """Does work by name, each at most once at a time.

    Args:
        name: What to call the threads.
        threads: How many there are, at most.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"nemo-{name}")
        self._lock = threading.Lock()
        self._kept: dict[str, Kept[T]] = {}

    def get(self, name: str) -> Kept[T]:
        """Returns what is kept of a work."""
        with self._lock:
            return self._kept.get(name, Kept())

    def start(self, name: str, work: Callable[[], T]) -> None:
        """Has it done, unless it is waiting to be done, or under way."""
        with self._lock:
            kept = self._kept.pop(name, Kept())
            self._kept[name] = dataclasses.replace(kept, is_running=True)
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        if not kept.is_running:
            self._pool.submit(self._run, name, work)

    def _run(self, name: str, work: Callable[[], T]) -> None:
        try:
            kept = Kept(work(), time.time())
        except Exception as error:  # noqa: BLE001 - it must not stay under way for ever
            _log.exception("%s has failed", name)
            kept = Kept(None, time.time(), error=f"{type(error).__name__}: Airflow's log of the API server has more")
        with self._lock:
            self._kept[name] = kept
