"""Answers that take long, each found once for all who want it within a moment."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class SharedAnswers(Generic[T]):
    """Keeps the newest answers for a while; whoever asks for one that is being found waits for it.

    An error goes to all who wait for it, and is not kept.

    Args:
        at_most: How many are kept.
        seconds: Returns for how long an answer is kept.
    """

    def __init__(self, at_most: int, seconds: Callable[[T], float]) -> None:
        self._at_most, self._seconds = at_most, seconds
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, Future[T]]] = {}

    def get(self, key: Hashable, find: Callable[[], T]) -> T:
        """Returns the answer for a key, which ``find`` finds."""
        with self._lock:
            at, answer = self._known.get(key, (-math.inf, Future[T]()))
            # One that has failed is no longer kept, so what is done has a result.
            is_ours = at == -math.inf or (answer.done() and time.monotonic() - at > self._seconds(answer.result()))
            if is_ours:
                answer = Future()
                self._known.pop(key, None)  # to the end: the oldest ones go first
                self._known[key] = (time.monotonic(), answer)
                while len(self._known) > self._at_most:
                    del self._known[next(iter(self._known))]
        if is_ours:
            try:
                answer.set_result(find())
            except BaseException as error:  # noqa: BLE001 - raised below, and for all who wait
                with self._lock:
                    if self._known.get(key, (0, None))[1] is answer:
                        del self._known[key]
                answer.set_exception(error)
        return answer.result()

    def forget(self) -> None:
        """Drops all answers."""
        with self._lock:
            self._known.clear()
