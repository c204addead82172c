"""Ending a job early, and what is left of it afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_airflow import blocking
from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import Driver, Executor
from nemo_airflow.job import FailureKind, Job, JobHandle, JobState
from nemo_airflow.testing.conformance.base import ConformanceCases


class EndingCases(ConformanceCases):
    """A job is ended by its time limit and by being cancelled; an ended one can be removed."""

    # Ending early

    def test_time_limit_ends_the_job(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> None:
        executor = dataclasses.replace(executor, grace=1.0, time=1.0)
        handle = blocking.run(driver.submit(executor.render(make("ignore_sigterm", seconds=600))))
        finished = self.follow(executor, handle)
        assert finished.outcome.status.state is JobState.FAILED
        assert finished.outcome.status.failure is FailureKind.TIMEOUT

    def test_cancel_while_running_and_again(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> None:
        executor = dataclasses.replace(executor, grace=1.0)
        handle = blocking.run(driver.submit(executor.render(make("ignore_sigterm", seconds=600))))
        self.wait_for_output(driver, handle, b"started")
        blocking.run(driver.cancel([handle]))
        blocking.run(driver.cancel([handle]))
        finished = self.follow(executor, handle)
        assert finished.outcome.status.state is JobState.CANCELLED
        assert finished.outcome.status.failure is FailureKind.CANCELLED
        blocking.run(driver.cancel([handle]))
        assert self.status(driver, handle).state is JobState.CANCELLED

    def test_cancel_of_an_ended_job_changes_nothing(self, ended: JobHandle, driver: Driver) -> None:
        assert self.final_status(driver, ended).state is JobState.SUCCEEDED
        blocking.run(driver.cancel([ended]))
        assert self.status(driver, ended).state is JobState.SUCCEEDED

    def test_cancel_right_after_submitting(self, executor: Executor, driver: Driver, make: Callable[..., Job]) -> None:
        executor = dataclasses.replace(executor, grace=1.0)
        handle = blocking.run(driver.submit(executor.render(make("ignore_sigterm", seconds=600))))
        blocking.run(driver.cancel([handle]))
        assert self.follow(executor, handle).outcome.status.state is JobState.CANCELLED

    # Afterwards

    def test_ended_job_can_be_removed_and_a_running_one_not(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        handle = blocking.run(driver.submit(executor.render(make("mark_and_wait", marker="marker", seconds=600))))
        self.wait_for_output(driver, handle, b"started")
        with pytest.raises(ExecutorError, match=handle.key):
            blocking.run(driver.remove([handle]))
        blocking.run(driver.cancel([handle]))
        self.follow(executor, handle)
        blocking.run(driver.remove([handle]))
        assert blocking.run(driver.find([handle.key])) == {}

    def test_render_is_pure_and_shows_what_is_sent(self, executor: Executor, make: Callable[..., Job]) -> None:
        job = make("add", a=1, b=1)
        request = executor.render(job)
        assert request == executor.render(job)
        assert job.key in request.to_text()
