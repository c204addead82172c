"""A back-end that fails for a moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nemo_airflow import blocking
from nemo_airflow.exceptions import BackendUnavailable
from nemo_airflow.executors.base import Driver, Executor
from nemo_airflow.executors.seen import Seen
from nemo_airflow.job import Job, JobHandle, JobStatus
from nemo_airflow.jobs.service import JobService
from nemo_airflow.testing.conformance.base import ConformanceCases


class OutageCases(ConformanceCases):
    """A wrong answer, and none, lose and double nothing."""

    def test_answer_that_knows_no_job_once_loses_none(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = blocking.run(driver.submit(executor.render(make("print_slowly", count=8, pause=1.0))))
        asked = blocking.run(_disturb(executor, monkeypatch, _know_nothing))
        finished = self.follow(executor, handle)
        assert asked[0] > 2
        assert finished.outcome.succeeded
        assert finished.lines == [f"line {number}" for number in range(8)]

    def test_back_end_that_is_away_for_a_moment_loses_and_doubles_nothing(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = blocking.run(driver.submit(executor.render(make("print_slowly", count=8, pause=1.0))))
        asked = blocking.run(_disturb(executor, monkeypatch, _be_away))
        finished = self.follow(executor, handle)
        assert asked[0] > 2
        assert finished.outcome.succeeded
        assert finished.lines == [f"line {number}" for number in range(8)]
        assert [text for text in finished.warnings if "the job goes on" in text], finished.warnings


async def _disturb(executor: Executor, patch: pytest.MonkeyPatch, disturbed: Callable[..., Any]) -> list[int]:
    """Makes the second answer to ``look`` a bad one, and returns the count of calls."""
    driver = JobService.shared(executor).driver
    look, asked = driver.look, [0]

    async def look_badly_once(handles: Sequence[JobHandle]) -> dict[str, Seen]:
        asked[0] += 1
        seen = await look(handles)
        return dict(disturbed(seen)) if asked[0] == 2 else seen

    patch.setattr(driver, "look", look_badly_once)
    return asked


def _know_nothing(seen: dict[str, Seen]) -> dict[str, Seen]:
    return {key: Seen(each.at) for key, each in seen.items()}


def _be_away(seen: dict[str, Seen]) -> dict[str, JobStatus]:
    raise BackendUnavailable("away for a moment")
