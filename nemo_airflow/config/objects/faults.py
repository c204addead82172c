"""Has every fault of the configs in a file found at once: where it would be raised, it is noted instead.

Outside :func:`faults_noted` nothing changes: the first fault is raised where it is.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from nemo_airflow.exceptions import NemoAirflowError

_BETWEEN = ("nemo_airflow", "fiddle", "airflow", "contextlib")
"""Packages whose code stands between an author's line and a check."""


@dataclasses.dataclass(frozen=True)
class NotedFault:
    """A fault that was not raised.

    Attributes:
        error: What would have been raised.
        file: The file of the line that made it, outside this package.
        line: That line.
        holder: The config that has the wrong argument, or what stands for the operator; kept alive for its identity.
    """

    error: NemoAirflowError
    file: str
    line: int
    holder: Any = None


_NOTED: contextvars.ContextVar[list[NotedFault] | None] = contextvars.ContextVar("noted_faults", default=None)


@contextlib.contextmanager
def faults_noted() -> Iterator[list[NotedFault]]:
    """Yields the list to which faults are added while code runs inside."""
    noted: list[NotedFault] = []
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)


def are_noted() -> bool:
    """Returns whether faults are noted and not raised."""
    return _NOTED.get() is not None


def note_fault(error: NemoAirflowError, holder: Any = None) -> bool:
    """Notes a fault, if faults are noted; returns whether they are: if not, the caller has to raise it."""
    noted = _NOTED.get()
    if noted is None:
        return False
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame = frame.f_back
    noted.append(NotedFault(error, frame.f_code.co_filename, frame.f_lineno, holder))
    return True


@contextlib.contextmanager
def noting(holder: Any = None) -> Iterator[None]:
    """Notes a fault that is raised inside, if faults are noted.

    Args:
        holder: As :attr:`NotedFault.holder`.
    """
    try:
        yield
    except NemoAirflowError as error:
        if not note_fault(error, holder):
            raise
