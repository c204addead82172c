"""Gives the other jobs of an event loop their turn: Airflow counts a triggerer as dead whose loop is held for long."""

from __future__ import annotations

import asyncio
import time

_LONGEST = 0.005
"""Seconds of work after which the others have their turn."""


class Turns:
    """The turns of one piece of work that goes on and on."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    async def pause(self) -> None:
        """Lets others work, if this work has lasted long enough."""
        if time.monotonic() - self._begun > _LONGEST:
            await asyncio.sleep(0)
            self._begun = time.monotonic()
