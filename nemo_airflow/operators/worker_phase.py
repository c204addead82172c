"""How a worker follows a job before the triggerer takes over: for some seconds, in which a short job ends.

Airflow 3.3 may fail a deferred task whose trigger fires before the scheduler has noted the deferral, and each deferral
costs a second worker. A task whose job has ended when its worker looks has neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import JobState

QUEUED = 2.0
"""Seconds after which a job that still waits for its start is left to the triggerer: a queue may be hours long."""

_LOOK = 0.2
"""Seconds between two looks at whether to hand over."""

_UNKNOWN = 60.0
"""Seconds after which a job of an earlier try is left to the triggerer even if it is not known whether it has ended."""


async def follow_for(
    follower: Follower, seconds: float, leave: threading.Event, *, attached: bool = False
) -> Outcome | None:
    """Follows a job to its end if that comes soon.

    Args:
        follower: Follows the job. It is cancelled when the job is handed over; another follower then begins anew.
        seconds: For how long at most.
        leave: When set, the job is handed over at once: this process has to end.
        attached: Whether an earlier try submitted the job, which then may have ended long ago: it is looked at even if
            ``seconds`` is 0.

    Returns:
        How the job ended, or None where it is to be handed over: it has not ended yet, or is queued.
    """
    if seconds <= 0 and not attached:
        return None
    following = asyncio.create_task(follower.run())
    begun = time.monotonic()

    def is_to_be_handed_over() -> bool:
        waited = time.monotonic() - begun
        if follower.state is JobState.PENDING and waited >= QUEUED:
            return True
        seen_by = max(seconds, _UNKNOWN) if attached and follower.state is JobState.UNKNOWN else seconds
        return leave.is_set() or waited >= seen_by

    while not (following.done() or follower.has_seen_the_end):
        await asyncio.wait({following}, timeout=_LOOK)
        # No turn of the loop between this look and the cancellation: what the job left behind is kept by one alone.
        if not (following.done() or follower.has_seen_the_end) and is_to_be_handed_over():
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            return None
    return await following
