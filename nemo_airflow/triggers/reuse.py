"""Waits in the triggerer for a task that runs what another one would run too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from nemo_airflow.exceptions import NemoAirflowError
from nemo_airflow.tracking.registry import tracker_from_json
from nemo_airflow.tracking.reuse import Claim

_LOOK = 15.0
"""Seconds between two looks. The first is so long after the deferral, as Airflow fails a task whose trigger fires
before the scheduler has noted its deferral."""

_LONGEST = 3600.0
"""Seconds after which the task looks for itself again."""


class NemoReuseTrigger(BaseTrigger):
    """Fires when a claim does not stand any more: its job has ended, or never comes.

    Args:
        tracker: JSON form of the tracker.
        claim: The claim, or its fields.
        since: Since when the task waits, in seconds since the epoch; handed on in the event.
    """

    def __init__(self, tracker: Mapping[str, Any], claim: Claim | Mapping[str, Any], since: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's
        self.tracker = tracker
        self.claim = claim if isinstance(claim, Claim) else Claim(**claim)
        self.since = since

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Returns the class path and the arguments, all plain JSON types."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "tracker": dict(self.tracker),
            "claim": vars(self.claim),
            "since": self.since,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yields one event; also where the tracker is away for long: the task then says so."""
        begun = time.monotonic()
        while time.monotonic() - begun < _LONGEST:
            await asyncio.sleep(_LOOK)
            if not await asyncio.to_thread(self._holds):
                break
        yield TriggerEvent({"since": self.since})  # type: ignore[no-untyped-call]  # Airflow's

    def _holds(self) -> bool:
        try:
            runs = tracker_from_json(self.tracker).earlier_runs()
            return runs is not None and runs.holds(self.claim)
        except NemoAirflowError as error:
            self.log.warning("Cannot look whether %s has ended: %s", self.claim.who, error)
            return True
