"""Gives a job what it needs besides its config: its run, the values of its secrets, leave to send its outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from nemo_airflow.connections import redact
from nemo_airflow.executors.base import Executor, Request
from nemo_airflow.executors.secret import show_secrets
from nemo_airflow.job import Job, JobHandle
from nemo_airflow.masking import mark_secrets, masked_job
from nemo_airflow.operators.back_end import BackEnd
from nemo_airflow.operators.direct import give_leave
from nemo_airflow.tracking.base import Tracker
from nemo_airflow.tracking.outputs import load_collector
from nemo_airflow.tracking.run import TrackedRun, open_run


@dataclasses.dataclass(frozen=True)
class Tracking:
    """How a job is tracked.

    Attributes:
        tracker: What remembers its run.
        experiment: The tracker's experiment.
        collector: Which outputs the tracker keeps, as ``"pkg.mod:Class"``; empty for all.
    """

    tracker: Tracker
    experiment: str
    collector: str

    def open_run(self, job: Job, executor: Executor, warn: Callable[[str], None]) -> TrackedRun:
        """Opens the run of a job, or returns it unopened, with a warning, where the tracker is away.

        Raises:
            ConfigError: The collector cannot be loaded.
        """
        load_collector(self.collector)
        return open_run(
            self.tracker,
            masked_job(job),
            experiment=self.experiment,
            shares_filesystem=executor.shares_filesystem,
            collector=self.collector,
            warn=warn,
        )


@dataclasses.dataclass(frozen=True)
class Equipped:
    """A job that can be submitted.

    Attributes:
        job: The job, with the variables of its run.
        executor: Where it runs, with the names of all its secrets.
        run: Its run in the tracker, or None.
        values: The values of its secrets, by their names.
    """

    job: Job
    executor: Executor
    run: TrackedRun | None
    values: Mapping[str, str] = dataclasses.field(repr=False)

    def request(self, warn: Callable[..., None], *, waits: bool) -> Request:
        """Returns what is sent to the back-end.

        Args:
            warn: Takes a warning, as a logger does.
            waits: Whether to wait until a job that needs its package from here has started.
        """
        request = BackEnd(self.executor, warn).render(self.job)
        return dataclasses.replace(request, values=self.values, waits=waits)

    def submitted_run(self, handle: JobHandle) -> TrackedRun | None:
        """Returns the run with the submitted job and its request, or None."""
        if self.run is None:
            return None
        return self.run.submitted(handle, redact(self.executor.render(masked_job(self.job)).to_text()))


def equip(
    job: Job,
    executor: Executor,
    values: Mapping[str, str],
    tracking: Tracking | None,
    *,
    env: Mapping[str, str],
    warn: Callable[[str], None],
) -> Equipped:
    """Opens the run of a job, and lets the job send its outputs.

    Args:
        job: The job.
        executor: Where it is to run.
        values: The values of the executor's secrets, by their names.
        tracking: How it is tracked, or None.
        env: Variables that the user gives the job: those of its run do not replace them.
        warn: Called with what people should know, in one line.
    """
    if tracking is None:
        return Equipped(job, executor, None, values)
    executor, leave = give_leave(executor, job.key, job.time_limit, warn)
    job = dataclasses.replace(job, secret_env=show_secrets(executor.secrets))
    run = tracking.open_run(job, executor, warn)
    if run.ref is not None:
        job = dataclasses.replace(job, env={**job.env, **run.env_beside(env), **env}, run_id=run.ref.run_id)
    return Equipped(mark_secrets(job), executor, run, {**values, **leave})
