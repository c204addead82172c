"""Plays the triggerer for a task that is executed here."""

import asyncio
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred

from nemo_airflow.triggers.run import NemoRunTrigger


def fire(deferred: pytest.ExceptionInfo[TaskDeferred]) -> dict[str, Any]:
    """Runs the trigger of a task that has been deferred, as a triggerer makes it; returns its event."""
    trigger = NemoRunTrigger(**deferred.value.trigger.serialize()[1])
    trigger.task_instance = None

    async def first() -> Any:
        return await anext(aiter(trigger.run()))

    event: dict[str, Any] = asyncio.run(first()).payload
    return event
