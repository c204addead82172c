"""One key, one job: however often it is submitted, and whatever ids the back-end gives."""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from nemo_airflow import blocking
from nemo_airflow.executors.base import Cursor, Driver, Executor
from nemo_airflow.job import Job, JobHandle, JobState
from nemo_airflow.testing.conformance.base import ConformanceCases
from nemo_airflow.testing.services import service_of


class IdentityCases(ConformanceCases):
    """A key stands for one job, and no id is taken for another's."""

    def test_submitting_again_gives_the_same_job(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        request = executor.render(make("print_lines", count=3))
        first = blocking.run(driver.submit(request))
        assert blocking.run(driver.submit(request)) == first
        assert self.follow(executor, first).lines == ["line 0", "line 1", "line 2"]
        assert blocking.run(driver.submit(request)) == first
        assert self.follow(executor, first).lines == ["line 0", "line 1", "line 2"]

    def test_submitting_at_the_same_moment_from_several_processes_starts_one_job(
        self, executor: Executor, driver: Driver, make: Callable[..., Job]
    ) -> None:
        request = executor.render(make("print_lines", count=3))
        with _processes(executor).Pool(4, _set_environment, (dict(os.environ),)) as pool:
            handles = pool.map(_submit, [(executor, request)] * 4, chunksize=1)
        assert len(set(handles)) == 1
        assert self.follow(executor, handles[0]).lines == ["line 0", "line 1", "line 2"]

    @pytest.mark.parametrize("delay", [0.0, 0.3])
    def test_submit_that_is_killed_and_done_again_starts_one_job(
        self, executor: Executor, driver: Driver, make: Callable[..., Job], delay: float
    ) -> None:
        request = executor.render(make("print_lines", count=3))
        processes = _processes(executor)
        begun = processes.Event()
        process = processes.Process(target=_submit_and_say, args=(begun, executor, request, dict(os.environ)))
        process.start()
        assert begun.wait(self.timeout)
        time.sleep(delay)
        process.kill()
        process.join()
        handle = blocking.run(driver.submit(request), self.timeout)
        assert self.follow(executor, handle).lines == ["line 0", "line 1", "line 2"]
        assert blocking.run(driver.find([handle.key])) == {handle.key: handle}

    def test_find_knows_ended_jobs(self, ended: JobHandle, driver: Driver) -> None:
        assert blocking.run(driver.find([ended.key, "never-submitted"])) == {ended.key: ended}

    def test_unknown_job_is_unknown_and_not_failed(self, driver: Driver, executor: Executor) -> None:
        nobody = JobHandle("never-submitted", executor.kind, "999999999", submitted_at=time.time())
        assert self.status(driver, nobody).state is JobState.UNKNOWN
        assert blocking.run(driver.read([Cursor(nobody)])) == []
        blocking.run(driver.cancel([nobody]))

    def test_recycled_id_is_not_taken_for_the_job(self, ended: JobHandle, driver: Driver) -> None:
        other = dataclasses.replace(ended, key="another-job")
        assert self.status(driver, other).state is JobState.UNKNOWN

    def test_id_of_another_cluster_is_not_taken_for_the_job(self, ended: JobHandle, driver: Driver) -> None:
        other = dataclasses.replace(ended, key="another-job", cluster="another-cluster")
        statuses = blocking.run(service_of(driver).status([other, ended]))
        assert statuses[other.key].state is JobState.UNKNOWN
        assert statuses[ended.key].state is not JobState.UNKNOWN


def _processes(executor: Executor) -> ForkServerContext:
    """Returns what makes processes that have no thread of this one, and need not import all for themselves."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, type(executor.connect()).__module__])
    return context


def _set_environment(env: dict[str, str]) -> None:
    os.environ.update(env)


def _submit(arguments: tuple[Executor, Any]) -> JobHandle:
    executor, request = arguments
    return asyncio.run(executor.connect().submit(request))


def _submit_and_say(begun: Any, executor: Executor, request: Any, env: dict[str, str]) -> None:
    _set_environment(env)

    async def submit() -> None:
        driver = executor.connect()
        begun.set()
        await driver.submit(request)

    asyncio.run(submit())
