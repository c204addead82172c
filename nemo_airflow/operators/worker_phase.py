"""How a worker follows a job before the triggerer takes over: for some seconds, in which a short job ends.

Airflow 3.3 may fail a deferred task whose trigger fires before the scheduler has noted the deferral, and each deferral
costs a second worker. A task whose job has ended when its worker looks has neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from nemo_airflow.follow import Follower, Outcome
from nemo_airflow.job import JobState
from nemo_airflow.operators.termination import Termination

QUEUED = 2.0
"""Seconds after which a job that still waits for its start is left to the triggerer: a queue may be hours long."""

_LOOK = 0.2
"""Seconds between two looks at whether to hand over."""

_ENDS_WITHIN = 2.0
"""Seconds for which the end of a job is waited for that a user has ended: Airflow kills this process after five."""

_UNKNOWN = 60.0
"""Seconds after which a job of an earlier try is left to the triggerer even if it is not known whether it has ended."""


async def follow_for(
    follower: Follower, seconds: float | None, termination: Termination, *, attached: bool = False
) -> Outcome | None:
    """Follows a job to its end if that comes soon.

    Args:
        follower: Follows the job. It is cancelled when the job is handed over; another follower then begins anew.
        seconds: For how long at most; None to the end, whatever else becomes of this process.
        termination: Why this process has to end: then the job is handed over at once, or has been ended.
        attached: Whether an earlier try submitted the job, which then may have ended long ago: it is looked at even if
            ``seconds`` is 0.

    Returns:
        How the job ended; None if it has not: it is to be handed over, or a user has ended it and it takes its time.
    """
    if seconds is not None and seconds <= 0 and not attached:
        return None
    following = asyncio.create_task(follower.run())
    begun = time.monotonic()

    def is_to_be_left() -> bool:
        if termination.job_told_for > _ENDS_WITHIN:
            return True
        if seconds is None:
            return False
        waited = time.monotonic() - begun
        if follower.state is JobState.PENDING and waited >= QUEUED:
            return True
        seen_by = max(seconds, _UNKNOWN) if attached and follower.state is JobState.UNKNOWN else seconds
        return termination.leave.is_set() or waited >= seen_by

    while not (following.done() or follower.has_seen_the_end):
        await asyncio.wait({following}, timeout=_LOOK)
        # No turn of the loop between this look and the cancellation: what the job left behind is kept by one alone.
        if not (following.done() or follower.has_seen_the_end) and is_to_be_left():
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following
            return None
    return await following
