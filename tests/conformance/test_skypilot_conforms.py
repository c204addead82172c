"""The SkyPilot executor passes the conformance suite, with SkyPilot's own client, on a stand-in for its server."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.sky_server import sky_server  # noqa: F401 - a fixture

from nemo_airflow import blocking
from nemo_airflow.exceptions import ExecutorError
from nemo_airflow.executors.base import Session
from nemo_airflow.executors.skypilot import SkypilotExecutor
from nemo_airflow.executors.skypilot.session import SkypilotSession
from nemo_airflow.job import Job
from nemo_airflow.testing.conformance import ExecutorConformance, Finished


class TestSkypilotExecutor(ExecutorConformance):
    @pytest.fixture(params=["cluster", "managed"])
    def executor(self, sky_server, request, monkeypatch):  # noqa: F811
        monkeypatch.setattr(SkypilotSession, "poll_interval", (0.2, 2.0))
        return SkypilotExecutor(managed=request.param == "managed", python=sys.executable)

    def test_large_output_and_many_small_ones_are_collected(
        self, run: Callable[..., Finished], session: Session, tmp_path: Path
    ) -> None:
        handle = run("write_large_output", size=20_000_000, others=2000).handle
        assert len(blocking.run(session.collect(handle, tmp_path), self.timeout)) == 2001
        too_large = run("write_large_output", size=60_000_000, others=0)
        with pytest.raises(ExecutorError, match="output_limit"):
            blocking.run(session.collect(too_large.handle, tmp_path))

    def test_ended_job_can_be_removed_and_a_running_one_not(
        self, executor: SkypilotExecutor, session: Session, make: Callable[..., Job], tmp_path: Path
    ) -> None:
        if not executor.managed:
            super().test_ended_job_can_be_removed_and_a_running_one_not(executor, session, make, tmp_path)
            return
        # SkyPilot's controller keeps its list of ended jobs, and nothing else of them.
        handle = blocking.run(session.submit(executor.render(make("mark_and_wait", marker="marker", seconds=600))))
        with pytest.raises(ExecutorError, match=handle.key):
            blocking.run(session.remove([handle]))
        blocking.run(session.cancel([handle]))
        self.follow(executor, handle)
        blocking.run(session.remove([handle]))
        assert blocking.run(session.find([handle.key])) == {handle.key: handle}
