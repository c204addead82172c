"""Pytest plugin: fixtures that run a task or a config on this machine, in an Airflow of the tests' own.

It imports nothing before a test asks for a fixture.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    import datetime
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Any

    from nemo_airflow.testing.airflow_home import AirflowHome
    from nemo_airflow.testing.job_run import JobRun


class RunTask(Protocol):
    """Runs a task of a DAG; see :func:`nemo_airflow.testing.running.run_task`."""

    def __call__(
        self,
        dag: Any,
        task_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        map_index: int = -1,
        logical_date: datetime.datetime | None = None,
    ) -> JobRun: ...


class RunConfig(Protocol):
    """Runs a config; see :func:`nemo_airflow.testing.running.run_config`."""

    def __call__(self, config: Any, *, folder: Path | None = None) -> JobRun: ...


@pytest.fixture(scope="session")
def nemo_airflow_home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    """The Airflow of the tests: its database, jobs and packages."""
    from nemo_airflow.testing.airflow_home import AirflowHome

    return AirflowHome(tmp_path_factory.mktemp("nemo-airflow"))


@pytest.fixture
def run_task(nemo_airflow_home: AirflowHome) -> RunTask:
    """Runs a task, and those it depends on, with its jobs on this machine; returns what it did."""
    from nemo_airflow.testing import running

    return functools.partial(running.run_task, nemo_airflow_home)


@pytest.fixture
def run_config(nemo_airflow_home: AirflowHome) -> RunConfig:
    """Runs a config as a job on this machine, without a DAG; returns what it did."""
    from nemo_airflow.testing import running

    return functools.partial(running.run_config, nemo_airflow_home)
