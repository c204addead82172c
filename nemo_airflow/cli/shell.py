"""Runs a command, or a shell, in the environment of a running job."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from nemo_airflow.cli.jobs import find_job
from nemo_airflow.cli.terminal import keep_output_clean
from nemo_airflow.exceptions import SettingsError
from nemo_airflow.job import JobState
from nemo_airflow.jobs.service import JobService
from nemo_airflow.launch.records import Records
from nemo_airflow.terminal import Terminal


def run(key: str, command: Sequence[str], executor: str) -> int:
    """Runs the command with this terminal; returns its exit code.

    Args:
        key: The job's key, the beginning of it, its name, or ``last``; with an executor the whole key.
        command: The command with its arguments; a shell when empty.
        executor: Where the job runs, if it was not launched from this machine.

    Raises:
        SettingsError: There is no such job, or it does not run.
        ExecutorError: The back-end has no way into a job.
        BackendUnavailable: The back-end is away.
    """
    keep_output_clean()
    if not executor and (end := Records().find(key).end) is not None:
        raise SettingsError(f"job {key} has ended: it is {end.status.state}, and nobody can enter it any more")
    where, handle = find_job(key, executor)

    async def enter() -> int:
        driver = where.connect()
        try:
            status = (await JobService(driver).status([handle]))[handle.key]
            if status.state is not JobState.RUNNING:
                raise SettingsError(
                    f"job {handle.key} does not run: it is {status.state}; 'nemo-airflow why {handle.key}' says why"
                )
            return await driver.enter(handle, command, where, Terminal())
        finally:
            await driver.close()

    return asyncio.run(enter())
