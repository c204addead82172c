"""The SkyPilot executor passes the conformance suite, with SkyPilot's own client, on a stand-in for its server."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.sky_server import sky_server  # noqa: F401 - a fixture

from nemo_airflow import blocking
from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import Driver
from nemo_airflow.executors.skypilot import SkypilotExecutor
from nemo_airflow.executors.skypilot.driver import SkypilotDriver
from nemo_airflow.job import Job
from nemo_airflow.testing.conformance import ExecutorConformance, Finished


class SkypilotConformance(ExecutorConformance):
    @pytest.fixture
    def executor(self, sky_server, monkeypatch):  # noqa: F811
        monkeypatch.setattr(SkypilotDriver, "poll_interval", (0.2, 2.0))
        return SkypilotExecutor(managed=self.managed, python=sys.executable)

    def test_large_output_and_many_small_ones_are_collected(
        self, run: Callable[..., Finished], driver: Driver, tmp_path: Path
    ) -> None:
        handle = run("write_large_output", size=20_000_000, others=2000).handle
        assert len(blocking.run(driver.collect(handle, tmp_path), self.timeout)) == 2001
        too_large = run("write_large_output", size=60_000_000, others=0)
        with pytest.raises(ExecutorError, match="output_limit"):
            blocking.run(driver.collect(too_large.handle, tmp_path))


class TestJobsOnClusters(SkypilotConformance):
    managed = False


class TestManagedJobs(SkypilotConformance):
    """What SkyPilot's controller has another way for: starting, finding, following and ending a job."""

    managed = True

    # What a machine does with a job is the same, whoever has it started there.
    for name in (
        "test_running_out_of_memory_is_named",
        "test_arguments_come_through_unchanged",
        "test_environment_comes_through_unchanged",
        "test_a_job_without_a_package_runs_what_is_there",
        "test_a_package_arrives_also_as_changes_of_another",
        "test_a_package_is_read_in_the_format_that_the_session_says",
        "test_split_utf8_and_a_last_line_without_newline",
        "test_both_streams_and_child_processes_are_logged",
        "test_large_output_and_many_small_ones_are_collected",
        "test_time_limit_ends_the_job",
        "test_render_is_pure_and_shows_what_is_sent",
    ):
        assert hasattr(SkypilotConformance, name)
        locals()[name] = None

    def test_ended_job_can_be_removed_and_a_running_one_not(
        self, executor: SkypilotExecutor, driver: Driver, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        # SkyPilot's controller keeps its list of ended jobs, and nothing else of them.
        handle = blocking.run(driver.submit(executor.render(make("mark_and_wait", marker="marker", seconds=600))))
        with pytest.raises(ExecutorError, match=handle.key):
            blocking.run(driver.remove([handle]))
        blocking.run(driver.cancel([handle]))
        self.follow(executor, handle)
        blocking.run(driver.remove([handle]))
        assert blocking.run(driver.find([handle.key])) == {handle.key: handle}
