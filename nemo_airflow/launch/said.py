"""Passes on what a logger would write, as one line for people."""

from __future__ import annotations

from collections.abc import Callable


class Said:
    """Has the methods of a logger that a task's code uses.

    Args:
        say: Takes one line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def info(self, text: str, *values: object) -> None:
        """Says it."""
        self._say(text % values if values else text)

    warning = info
    error = info
