"""Asks how jobs fare, for tests that talk to a driver."""

from __future__ import annotations

import functools

from nemo_airflow.executors.base import Driver
from nemo_airflow.jobs.service import JobService


@functools.cache
def service_of(driver: Driver) -> JobService:
    """Returns the service that judges what a driver sees: the same at each call, as it remembers what was seen."""
    return JobService(driver)
