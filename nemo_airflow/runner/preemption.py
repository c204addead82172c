"""What user code imports to be told that its job is to end soon: by a preemption, its time limit, or a person.

SIGTERM comes when the job ends early; SIGUSR1 and SIGUSR2 come before that, from Slurm's ``--signal`` or a person.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, Dict, List

from nemo_airflow.runner.signals import WARNINGS

NUMBERS = (*WARNINGS, signal.SIGTERM)


class Preempted(SystemExit):
    """Raised by a job that has saved its state and stops before it is done: its next attempt goes on from there."""

    def __init__(self, message: str = "the job has stopped before it is done, to be continued") -> None:
        super().__init__(0)  # no failure for a launcher, which would start the process again
        self.message = message


class _Warnings:
    """The signals that this process has got."""

    def __init__(self) -> None:
        self.arrived = False
        self.is_asked = False
        """Whether the job looks at :func:`should_stop`, and so ends by itself."""
        self.callbacks: List[Callable[[], object]] = []
        self._pid = 0
        self._before: Dict[int, Any] = {}
        self._told: List[int] = []

    def handle(self) -> None:
        """Has this process take the signals.

        Raises:
            RuntimeError: This is not the main thread.
        """
        if self._before:
            return
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("should_stop, on_preempt: call it first in the main thread, which takes signals")
        self._pid = os.getpid()
        for number in NUMBERS:
            self._before[number] = signal.signal(number, self._take)

    def _take(self, number: int, frame: Any) -> None:
        before = self._before[number]
        is_own = os.getpid() == self._pid  # a forked worker has inherited this, and ends as it would without
        if is_own and number in self._told:  # it may come from the scheduler and from the runner, one and the same
            return
        self.arrived = True
        self._told.append(number)
        for callback in list(self.callbacks) if is_own else ():
            callback()
        if callable(before) and not (is_own and number == signal.SIGTERM and self.is_asked):
            before(number, frame)


_warnings = _Warnings()


def on_preempt(callback: Callable[[], object]) -> None:
    """Has a function called, without arguments, when this process is told that the job is to end soon.

    It runs in the main thread, between two of its instructions, as any handler of a signal does: once for each signal.
    After SIGTERM the process ends, as it would without it, unless the job looks at :func:`should_stop`.

    Args:
        callback: The function; several are called in the order in which they were given.

    Raises:
        RuntimeError: The first call is not in the main thread.
    """
    _warnings.handle()
    _warnings.callbacks.append(callback)


def should_stop() -> bool:
    """Returns whether this process was told that the job is to end soon.

    From the first call on SIGTERM does not end the process: the job saves its state and raises :class:`Preempted`, or
    it is killed after its executor's ``grace``. So call it often, and for the first time before the work begins.

    Raises:
        RuntimeError: The first call is not in the main thread.
    """
    _warnings.is_asked = True
    _warnings.handle()
    return _warnings.arrived
